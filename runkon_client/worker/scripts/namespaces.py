"""The sandbox for machines without bubblewrap: what `unshare` starts, before the script."""

from __future__ import annotations

from typing import Final

SETUP: Final = r"""
set -eu
root=$1 folder=$2 tmp_bytes=$3
shift 3
mount -t tmpfs -o mode=755,size=1m runkon "$root"

make_read_only() {
    while read -r _ _ _ _ point _; do
        case $point in
            "$root$1" | "$root$1"/*) mount -o remount,bind,ro "$point" ;;
        esac
    done < /proc/self/mountinfo
}

show() {
    if [ -d "$1" ]; then
        mkdir -p "$root$1"
    else
        mkdir -p "$root${1%/*}"
        [ -e "$root$1" ] || : > "$root$1"
    fi
    mount --rbind "$1" "$root$1"
}

mkdir "$root/proc" "$root/dev" "$root/dev/shm" "$root/tmp" "$root/.old"
mount -t proc -o ro,nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o "mode=1777,size=$tmp_bytes,nosuid,nodev" tmp "$root/tmp"
for device in null zero full random urandom; do
    show "/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
for stream in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${stream#*:}" "$root/dev/${stream%:*}"
done
while [ "$1" != -- ]; do
    path=${1#*:}
    case $1 in
        link:*) ln -s "${path#*:}" "$root${path%%:*}" ;;
        read:*) show "$path"; make_read_only "$path" ;;
        write:*) show "$path" ;;
    esac
    shift
done
shift
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . .old
umount -l /.old
cd "$folder"
unset OLDPWD
setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "$@"
exit $?
"""
"""Shell text for the first process of fresh user, mount and PID namespaces.

Its arguments: an empty folder to build the new root upon, the folder to run in, the size of `/tmp`
in bytes, what to show (`link:PLACE:TARGET`, `read:PATH`, `write:PATH`), `--`, the command. It stays
as process 1, so the kernel kills whatever the command leaves behind when it ends.
"""

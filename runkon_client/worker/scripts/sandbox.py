"""What stands between a script and the machine: bubblewrap, plain namespaces, or nothing.

Both sandboxes give a script the same: system programs and the folder of scripts to read, an empty
`/tmp` of its own, its own processes to see and no others, no capability and no network. They
differ in who sets it up.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runkon_client.worker.scripts.environment import PATH
from runkon_client.worker.scripts.namespaces import SETUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHELL: Final = "/bin/sh"
HOME: Final = "/tmp"  # noqa: S108 - inside the sandbox, which nobody else shares
PROGRAMS: Final = {"bubblewrap": "bwrap", "namespaces": "unshare"}
"""What each sandbox is set up with, the better one first."""
_TMP_MAX_BYTES: Final = 256 << 20
_PROBE_S: Final = 10.0
_SYSTEM: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS: Final = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs")
_NETWORK_SETTINGS: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
_NOBODY: Final = "65534"


class SandboxMode(StrEnum):
    """What the operator asks for."""

    AUTO = "auto"
    """The best there is; a warning if there is none."""
    REQUIRE = "require"
    """No sandbox, no worker."""
    NONE = "none"


class SandboxMissingError(Exception):
    """A sandbox is required, and this machine has none to offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a script is to see of the machine besides the system's programs."""

    folder: Path
    """Folder of scripts, a real path; it is the same path inside."""
    is_writable: bool = False
    readable: tuple[Path, ...] = ()
    """Further files and folders, real paths."""
    has_network: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How commands are wrapped."""

    name: str
    """`bubblewrap`, `namespaces` or `none`."""
    program: str = ""
    mount_point: str = ""
    """An empty folder, for `namespaces` to build its root upon."""

    @property
    def is_none(self) -> bool:
        """Whether scripts run unprotected."""
        return self.name == "none"

    def wrap(self, argv: Sequence[str], view: View) -> list[str]:
        """The command that runs `argv` in the sandbox, in the folder of the view."""
        match self.name:
            case "bubblewrap":
                return [*self._bubblewrap(view), *argv]
            case "namespaces":
                return [*self._namespaces(view), *argv]
            case _:
                return [*argv]

    def _bubblewrap(self, view: View) -> Iterator[str]:
        yield from (self.program, "--unshare-all", "--die-with-parent", "--new-session")
        yield from ("--cap-drop", "ALL", "--uid", _NOBODY, "--gid", _NOBODY)
        if view.has_network:
            yield "--share-net"
        for target, link in _links():
            yield from ("--symlink", target, link)
        yield from ("--proc", "/proc", "--dev", "/dev")
        yield from ("--size", str(_TMP_MAX_BYTES), "--tmpfs", HOME)
        for path in _read_only(view):
            yield from ("--ro-bind", path, path)
        yield from (("--bind" if view.is_writable else "--ro-bind"), *[str(view.folder)] * 2)
        # As root the script would be root to the files of /proc, its lack of capabilities or not.
        yield from ("--remount-ro", "/proc", "--remount-ro", "/", "--chdir", str(view.folder), "--")

    def _namespaces(self, view: View) -> Iterator[str]:
        yield from (self.program, "--user", "--map-root-user", "--mount", "--pid", "--fork")
        yield from ("--kill-child", "--ipc", "--uts")
        if not view.has_network:
            yield "--net"
        yield from ("--", SHELL, "-c", SETUP, "runkon-sandbox")
        yield from (self.mount_point, str(view.folder), str(_TMP_MAX_BYTES))
        for target, link in _links():
            yield f"link:{link}:{target}"
        for path in _read_only(view):
            yield f"read:{path}"
        yield f"{'write' if view.is_writable else 'read'}:{view.folder}"
        yield "--"


NO_SANDBOX: Final = Sandbox("none")


def find_sandbox(mode: SandboxMode, view: View, mount_point: Path) -> tuple[Sandbox, str]:
    """The first sandbox that works, tried out with the view that scripts will have.

    Returns:
        The sandbox, and if there is none, why: nobody asked for one, or what is missing.

    Raises:
        SandboxMissingError: one is required, and none works; the text says why.
    """
    if mode is SandboxMode.NONE:
        return NO_SANDBOX, "as asked for"
    reasons: list[str] = []
    for name in PROGRAMS:
        try:
            return try_sandbox(name, view, mount_point), ""
        except SandboxMissingError as missing:
            reasons.append(str(missing))
    if mode is SandboxMode.REQUIRE:
        raise SandboxMissingError("; ".join(reasons))
    return NO_SANDBOX, "; ".join(reasons)


def try_sandbox(name: str, view: View, mount_point: Path) -> Sandbox:
    """The sandbox of this name, after a command has run in it.

    Raises:
        SandboxMissingError: it is not installed, or this machine does not let it work.
    """
    program = PROGRAMS[name]
    path = shutil.which(program)
    if path is None:
        raise SandboxMissingError(f"{program} is not installed")
    sandbox = Sandbox(name, path, str(mount_point))
    complaint = _probe(sandbox, view)
    if complaint is not None:
        raise SandboxMissingError(f"{program} does not work here: {complaint}")
    return sandbox


def _probe(sandbox: Sandbox, view: View) -> str | None:
    """Run nothing in it; what it complains of, or None."""
    try:
        done = subprocess.run(
            sandbox.wrap([SHELL, "-c", "exit 0"], view),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": PATH},
            timeout=_PROBE_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def _links() -> Iterator[tuple[str, str]]:
    """Target and place of the system's folders that are symlinks, as on all newer systems."""
    for path in _SYSTEM:
        if Path(path).is_symlink():
            yield str(Path(path).readlink()), path


def _read_only(view: View) -> Iterator[str]:
    """What is only read, parents before what lies in them."""
    yield "/usr"
    yield from (path for path in _SYSTEM if Path(path).is_dir() and not Path(path).is_symlink())
    settings = (*_SETTINGS, *_NETWORK_SETTINGS) if view.has_network else _SETTINGS
    yield from (path for path in settings if Path(path).exists())
    yield from sorted(str(path) for path in view.readable)

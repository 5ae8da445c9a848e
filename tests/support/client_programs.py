"""The programs of `examples/clients`, built where they see nothing of Runkon but its .proto files.

Builds are kept from one session to the next in RUNKON_POLYGLOT_CACHE, by default `runkon/polyglot`
in the user's cache folder; a build is repeated when a file of it changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final = Path("examples/clients")
MADE: Final = frozenset({"gen", "dist", "node_modules", "target", "greeting"})
"""What builds make, directly in a program's folder."""
BUILD_TIMEOUT_S: Final = 900


class NotHereError(Exception):
    """A program cannot be built on this machine; the text names what is missing."""


class BuildFailedError(Exception):
    """A program cannot be built on any machine; the text is what the toolchain said."""


@dataclass(frozen=True, slots=True)
class Language:
    """How the program of one language is built and run, each in its folder."""

    name: str
    needs: tuple[str, ...]
    """Programs that have to be on the path."""
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    registry: str
    """Where its packages come from, for people."""
    unreachable: str
    """What the toolchain says, as a pattern, when it cannot get a package from there."""


LANGUAGES: Final = (
    Language(
        name="go",
        needs=("go", "buf"),
        build=(("go", "generate", "."), ("go", "build", "-o", "greeting", ".")),
        run=("./greeting",),
        registry="a Go module proxy",
        unreachable=r"dial tcp|no such host|module lookup disabled|i/o timeout",
    ),
    Language(
        name="typescript",
        needs=("node", "npm", "buf"),
        build=(("npm", "ci", "--no-audit", "--no-fund"), ("npm", "run", "build")),
        run=("node", "dist/src/main.js"),
        registry="an npm registry",
        unreachable=r"ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ERR_SOCKET_TIMEOUT",
    ),
    Language(
        name="java",
        needs=("java", "mvn"),
        build=(("mvn", "--batch-mode", "--quiet", "package"),),
        run=("java", "-jar", "target/greeting.jar"),
        registry="a Maven repository",
        unreachable=r"Could not transfer|Unknown host|Connection refused|offline mode",
    ),
    Language(
        name="rust",
        needs=("cargo",),
        build=(("cargo", "build", "--locked"),),
        run=("target/debug/greeting",),
        registry="a registry of crates",
        unreachable=r"Could not resolve host|Couldn't connect|failed to download|spurious network",
    ),
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was built; `command` is to be run in `folder`."""

    folder: Path
    command: tuple[str, ...]


def built(language: Language) -> Program:
    """Build the program, unless that was done before.

    Raises:
        NotHereError: the toolchain or its registry is missing.
        BuildFailedError: it does not build.
    """
    path = _search_path()
    missing = [name for name in language.needs if shutil.which(name, path=path) is None]
    if missing:
        raise NotHereError(f"{language.name}: not installed: {', '.join(missing)}")
    base = cache_folder() / language.name
    base.mkdir(parents=True, exist_ok=True)
    with _locked(base / "lock"):
        folder = base / CLIENTS / language.name
        sources = _sources(language)
        stamp, wanted = base / "built", _fingerprint(language, sources)
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            stamp.unlink(missing_ok=True)
            _mirror(language, sources, base)
            for command in language.build:
                _run(language, command, folder, path)
            stamp.write_text(wanted, encoding="utf-8")
    return Program(folder, language.run)


def cache_folder() -> Path:
    """Where programs are built."""
    if chosen := os.environ.get("RUNKON_POLYGLOT_CACHE"):
        return Path(chosen).absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "runkon" / "polyglot"


def _search_path() -> str:
    """The path, and before it the environment of the tests, which holds `buf`."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _sources(language: Language) -> dict[Path, bytes]:
    """All that a program is built from, by paths relative to the root: .proto files and its own."""
    found = list((ROOT / "protos").rglob("*.proto"))
    found += _own_files(ROOT / CLIENTS / language.name)
    return {path.relative_to(ROOT): path.read_bytes() for path in sorted(found)}


def _own_files(folder: Path) -> list[Path]:
    """The files in a program's folder that no build made."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in MADE
    ]


def _fingerprint(language: Language, sources: dict[Path, bytes]) -> str:
    digest = hashlib.sha256(repr(language).encode())
    for path, content in sources.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _mirror(language: Language, sources: dict[Path, bytes], base: Path) -> None:
    """Bring the copy up to date, but touch no file that is equal: builds go by their times."""
    copies = list((base / "protos").rglob("*.proto"))
    for path in copies + _own_files(base / CLIENTS / language.name):
        if path.relative_to(base) not in sources:
            path.unlink()
    for known, content in sources.items():
        path = base / known
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _run(language: Language, command: tuple[str, ...], folder: Path, path: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return
    if re.search(language.unreachable, done.stdout):
        raise NotHereError(f"{language.name}: {language.registry} does not answer")
    raise BuildFailedError(f"{' '.join(command)}\n{done.stdout}")


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes of the session from building the same."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield

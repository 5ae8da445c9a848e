"""Workflow files: finding them, reading them, and writing them back whole."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

STDIN: Final = "-"
STDIN_LABEL: Final = "<stdin>"
SUFFIX: Final = ".wf"
SNAPSHOT_SUFFIX: Final = ".json"
_NOT_ENTERED: Final = frozenset(
    {".git", ".hg", ".svn", ".tox", ".venv", "__pycache__", "node_modules", "venv"}
)


class UnreadableError(Exception):
    """A file or a folder cannot be read or written; the text says which, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def label_of(path: str) -> str:
    """What a file is called in output."""
    return STDIN_LABEL if path == STDIN else path


def find_files(paths: Iterable[str], refused: Callable[[UnreadableError], None]) -> list[str]:
    """The files that the arguments mean, each once, in their order.

    A folder means all its `.wf` files, also those in the folders below it, by the alphabet. Those
    of version control and of installed packages are not entered, and links to folders not followed.

    Args:
        paths: files, folders, or `-`; none means the working directory.
        refused: is told of what cannot be read.
    """
    found: dict[str, None] = {}
    for path in paths:
        if path != STDIN and Path(path).is_dir():
            found.update(dict.fromkeys(_files_in(path, refused)))
        else:
            found[path] = None
    return list(found)


def _files_in(folder: str, refused: Callable[[UnreadableError], None]) -> Iterator[str]:
    def fail(reason: OSError) -> None:
        refused(UnreadableError(str(reason.filename), reason.strerror or "cannot be read"))

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(set(folders) - _NOT_ENTERED)
        for name in sorted(names):
            if name.endswith(SUFFIX):
                yield os.path.normpath(os.path.join(parent, name))  # noqa: PTH118 - as walk gives it


def _read_bytes(path: str) -> bytes:
    if path != STDIN:
        return Path(path).read_bytes()
    if sys.stdin is None:  # closed by whoever started the program
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def read_text(path: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        UnreadableError: it cannot be read, or is not UTF-8.
    """
    try:
        return _read_bytes(path).decode("utf-8")
    except OSError as reason:
        raise UnreadableError(label_of(path), reason.strerror or "cannot be read") from reason
    except UnicodeDecodeError as reason:
        message = f"is not UTF-8: byte {reason.start} is invalid"
        raise UnreadableError(label_of(path), message) from reason


def write_text(path: str, text: str) -> None:
    """Put a text into a file, all of it or none; a file that is there keeps its mode.

    Raises:
        UnreadableError: it cannot be written.
    """
    target = Path(path).resolve()  # through links, so that they stay
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(text.encode())  # a device or a pipe, such as /dev/stdout
        else:
            _replace(target, text)
    except OSError as reason:
        raise UnreadableError(path, f"cannot be written: {reason.strerror}") from reason


def _replace(target: Path, text: str) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(text.encode())
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


class Refusals:
    """Tells of files that cannot be used, and remembers that there were any."""

    def __init__(self) -> None:
        self.told: list[UnreadableError] = []

    def __call__(self, error: UnreadableError) -> None:
        """Say so on standard error."""
        self.told.append(error)
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)

    def read(self, path: str) -> str | None:
        """The text of a file; None after telling why there is none."""
        try:
            return read_text(path)
        except UnreadableError as error:
            self(error)
            return None

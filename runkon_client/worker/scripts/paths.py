"""Whether the program that a script names lies in the folder of scripts."""

from __future__ import annotations

import re
import shlex
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_FIRST_WORD: Final = re.compile(r"\s*([\w.+,:@%/-]+)(?=[\s;&|<>)]|$)", re.ASCII)
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)


class ScriptPathError(Exception):
    """The text names a program that is not to be run."""


def check_script(text: str, folder: Path) -> str:
    """The text to hand to `sh -c`, which runs the very file that was looked at.

    Only a text that begins with a plain word can name a file: the word has a slash, or there is a
    file of that name in the folder. Everything else is shell text, and left as it is.

    Args:
        text: what the definition's `run` came to.
        folder: real path of the folder of scripts, in which the text runs.

    Raises:
        ScriptPathError: no regular file, not executable, or not in the folder, be it by `..`, as
            an absolute path or by way of a symlink.
    """
    if "\0" in text or not text.strip():
        raise ScriptPathError("there is nothing to run")
    found = _FIRST_WORD.match(text)
    if found is None or _ASSIGNMENT.match(found[1]):
        return text
    word = found[1]
    if "/" not in word and not folder.joinpath(word).is_file():
        return text
    path = _resolve(word, folder)
    relative = path.relative_to(folder)
    return f"{text[: found.start(1)]}./{shlex.quote(str(relative))}{text[found.end(1) :]}"


def _resolve(word: str, folder: Path) -> Path:
    if word.startswith("/"):
        raise ScriptPathError(f"{word}: absolute paths are not allowed")
    if ".." in word.split("/"):
        raise ScriptPathError(f"{word}: `..` is not allowed")
    try:
        path = folder.joinpath(word).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "no such file"
        raise ScriptPathError(f"{word}: {reason}") from error
    if not path.is_relative_to(folder):
        raise ScriptPathError(f"{word}: leads out of the folder of scripts")
    if not stat.S_ISREG(mode):
        raise ScriptPathError(f"{word}: not a regular file")
    if not mode & 0o111:
        raise ScriptPathError(f"{word}: not executable (mode {stat.S_IMODE(mode):o}): chmod +x")
    return path

"""The workflow files of the folders that an editor has open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pygls.uris import to_fs_path

from runkon_server.dsl import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIX: Final = ".wf"
_FILES_MAX: Final = 5_000
_SKIPPED: Final = frozenset({"node_modules", "__pycache__", "venv"})
"""Folders without workflows, beside those whose name starts with a dot."""


def key_of(uri: str) -> str:
    """The name under which a document is kept: the path of a file, however its address is spelt."""
    path = to_fs_path(uri) if uri.startswith("file:") else None
    return uri if path is None else os.path.normpath(path)


def uri_of(key: str) -> str:
    """The address of a document that no editor has named yet."""
    return Path(key).as_uri() if Path(key).is_absolute() else key


def is_inside(key: str, folders: Iterable[str]) -> bool:
    """Whether a file is in one of the folders."""
    return any(Path(key).is_relative_to(folder) for folder in folders)


def find(folders: Iterable[str]) -> dict[str, str]:
    """The workflow files of some folders and of those inside them, with their texts.

    Links to folders are not followed; what cannot be read, or is no text, is left out.
    """
    found: dict[str, str] = {}
    for path in _walk(folders):
        if len(found) >= _FILES_MAX:
            break
        text = read(path)
        if text is not None:
            found[path] = text
    return found


def _walk(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        for where, inner, names in os.walk(folder):
            inner[:] = sorted(
                name for name in inner if name not in _SKIPPED and not name.startswith(".")
            )
            yield from (
                os.path.normpath(Path(where, name))
                for name in sorted(names)
                if name.endswith(SUFFIX)
            )


def siblings(key: str) -> dict[str, str]:
    """The workflow files beside one, and itself."""
    folder = Path(key).parent
    try:
        paths = sorted(str(path) for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError:
        return {}
    texts = ((path, read(path)) for path in paths[:_FILES_MAX])
    return {path: text for path, text in texts if text is not None}


def read(path: str) -> str | None:
    """The text of a file; None if there is none to be had, or too much for a workflow."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limits.SOURCE_BYTES + 1)
        return data.decode("utf-8") if len(data) <= limits.SOURCE_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None

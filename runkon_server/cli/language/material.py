"""`--schema` and `--snippet`: what workflows name and do not hold, as `workflows put` takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from runkon_server.cli.language.files import UnreadableError, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCHEMAS: Final = frozenset({".yaml", ".yml"})
_SNIPPETS: Final = frozenset({".md", ".txt"})


def schemas_of(words: Iterable[str]) -> dict[str, str | None]:
    """Each output schema by name: why it cannot be used, None if it can.

    Args:
        words: `[NAME=]FILE`, the name being that of the file without its ending, or a folder.

    Raises:
        UnreadableError: a file cannot be read.
    """
    from runkon_server.core.outputs_schema import SchemaError
    from runkon_server.runtime.schemas import read_schema

    found: dict[str, str | None] = {}
    for name, path in _named(words, _SCHEMAS):
        text = read_text(path)
        try:
            read_schema(name, text)
        except SchemaError as error:
            found[name] = str(error)
        else:
            found[name] = None
    return found


def snippets_of(words: Iterable[str]) -> tuple[str, ...]:
    """The names of prompt snippets. Arguments and errors as for schemas."""
    found = dict(_named(words, _SNIPPETS))
    for path in found.values():
        read_text(path)
    return tuple(found)


def _named(words: Iterable[str], suffixes: frozenset[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        if Path(word).is_dir():
            try:
                paths = sorted(Path(word).iterdir())
            except OSError as error:
                raise UnreadableError(word, error.strerror or "cannot be read") from error
            for path in paths:
                if path.suffix in suffixes and not path.name.startswith("."):
                    yield path.stem, str(path)
        else:
            name, equals, path_text = word.partition("=")
            yield (name, path_text) if equals else (Path(word).stem, word)

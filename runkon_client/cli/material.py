"""What a workflow names and does not hold: output schemas and prompt snippets, read from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.sources import read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_SCHEMAS: Final = (".yaml", ".yml")
_SNIPPETS: Final = (".md", ".txt")


def material_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `schemas` and `snippets` of a command that sends sources: texts by name."""
    for parameter in (_option("--snippet", "snippets", _SNIPPETS),
                      _option("--schema", "schemas", _SCHEMAS)):  # fmt: skip
        command = parameter(command)
    return command


def _option(word: str, name: str, suffixes: tuple[str, ...]) -> Callable[..., Any]:
    def read(
        context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in words:
            for key, path in _files(text, suffixes):
                if key in found:
                    raise click.BadParameter(f"{key!r} is given twice", context, parameter)
                found[key] = read_source(path)
        return found

    what = "An output schema" if name == "schemas" else "A prompt snippet"
    kinds = " and ".join(f"*{suffix}" for suffix in suffixes)
    return click.option(
        word,
        name,
        multiple=True,
        metavar="[NAME=]FILE|DIR",
        callback=read,
        help=f"{what} that the workflow names, NAME being that of the file without its ending; or"
        f" all {kinds} of a folder. Repeat it for more.",
    )


def _files(word: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Names and paths that a word means."""
    if Path(word).is_dir():
        for path in sorted(Path(word).iterdir()):
            if path.suffix in suffixes and not path.name.startswith("."):
                yield path.stem, str(path)
        return
    name, equals, path_text = word.partition("=")
    if equals:
        yield name, path_text
    else:
        yield Path(word).stem, word

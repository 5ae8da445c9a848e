"""Running `runkon` on files that a test writes, in this process and without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from click.testing import CliRunner

from runkon_client.cli import main

if TYPE_CHECKING:
    from pathlib import Path


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


def runkon(*words: object, text: str | bytes | None = None, colour: bool = False) -> Answer:
    """Run a command line.

    Args:
        words: without the program's name.
        text: standard input.
        colour: pretend that standard output is a terminal that shows colours.
    """
    result = CliRunner().invoke(main, [str(word) for word in words], input=text, color=colour)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def write_files(folder: Path, **contents: str) -> None:
    """Files named like their workflows, `__` for a slash, from the workflows' contents."""
    for name, text in contents.items():
        path = folder / f"{name.replace('__', '/')}.wf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"workflow {path.stem} {{\n{text}\n}}\n")

"""`runkon fmt`."""

from __future__ import annotations

import difflib
import io
from typing import TYPE_CHECKING

import click

from runkon_server.cli.language.excerpts import show
from runkon_server.cli.language.files import (
    STDIN,
    Refusals,
    UnreadableError,
    find_files,
    label_of,
    write_text,
)
from runkon_server.cli.language.outcomes import explain, leave
from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.format import format_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command(
    epilog=explain(
        clean="all are in the canonical layout",
        found="a file has errors and was left alone, or --check or --diff found another layout",
        used="read or written",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--check", is_flag=True, help="Write nothing; name the files whose layout is another."
)
@click.option("--diff", is_flag=True, help="Write nothing; show what would change.")
def fmt(paths: tuple[str, ...], *, check: bool, diff: bool) -> None:
    """Bring workflow files into the canonical layout, and name those that changed.

    A folder means all `.wf` files in it and below; without a PATH it is the working directory.
    With - the text comes from standard input, and its layout goes to standard output.
    """
    refusals = Refusals()
    work = _Formatting(is_writing=not check and not diff, is_naming=not diff or check, diff=diff)
    files = find_files(paths or (".",), refusals)
    for path in files:
        text = refusals.read(path)
        if text is not None:
            try:
                work.format(path, text)
            except UnreadableError as error:
                refusals(error)
    if not files:
        click.echo("no workflow files found", err=True)
    leave(found=work.found, unreadable=bool(refusals.told))


class _Formatting:
    """Formats one file after the other, and remembers whether there was something to find."""

    def __init__(self, *, is_writing: bool, is_naming: bool, diff: bool) -> None:
        self._is_writing = is_writing
        self._is_naming = is_naming
        self._diff = diff
        self.found = False

    def format(self, path: str, text: str) -> None:
        """Write, name or show one file.

        Raises:
            UnreadableError: it cannot be written.
        """
        label = label_of(path)
        result = format_text(text, label)
        if has_errors(result.diagnostics):
            show(result.diagnostics, result.source, err=True)
        if result.text is None:
            self.found = True
        elif path == STDIN and self._is_writing:
            click.echo(result.text, nl=False)
        elif result.text != text:
            self._changed(path, text, result.text)

    def _changed(self, path: str, before: str, after: str) -> None:
        label = label_of(path)
        if self._is_writing:
            write_text(path, after)
        else:
            self.found = True
        if self._is_naming:
            click.echo(label)
        if self._diff:
            for line in _difference(label, before, after):
                click.echo(line)


def _difference(label: str, before: str, after: str) -> Iterator[str]:
    """A unified difference, coloured, for `patch` if it is not."""
    # Lines end with a line feed only, as in the language: `splitlines` knows more ends.
    old, new = (list(io.StringIO(text)) for text in (before, after))
    lines = difflib.unified_diff(old, new, label, label)
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        shown = line.removesuffix("\n")
        yield click.style(shown, fg=colour) if colour else shown
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"

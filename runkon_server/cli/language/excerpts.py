"""Diagnostics for people: place, message, the line with carets, advice; coloured on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from runkon_server.dsl.codes import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Source

_COLOUR: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow"}
_CARETS: Final = 2
"""The line of a rendered diagnostic that holds the carets; those behind it are the advice."""


def show(diagnostics: Iterable[Diagnostic], source: Source, *, err: bool = False) -> None:
    """Print each with a blank line behind it."""
    for each in diagnostics:
        click.echo(f"{_styled(each, source)}\n", err=err)


def _styled(found: Diagnostic, source: Source) -> str:
    """As `Diagnostic.render` writes it, with colours."""
    colour = _COLOUR[found.severity]
    head, *rest = found.render(source).split("\n")
    mark = f"{found.severity} {found.code}"
    place, _, message = head.partition(f" {mark}: ")
    mark = click.style(mark, fg=colour, bold=True)
    lines = [f"{click.style(place, bold=True)} {mark}: {click.style(message, bold=True)}"]
    for number, line in enumerate(rest, 1):
        gutter, bar, text = line.partition("| " if number <= _CARETS else "= ")
        shown = click.style(text, fg=colour, bold=True) if number == _CARETS else text
        lines.append(f"{click.style(gutter + bar, fg='blue')}{shown}")
    return "\n".join(lines)

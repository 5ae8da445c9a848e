"""Filters on the command line: one that is refused is shown with the place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.session import Settings, exit_code_of, report
from runkon_client.cli.telling import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELD: Final = "filter:"


@contextlib.contextmanager
def pointing_into(filter_text: str, settings: Settings) -> Iterator[None]:
    """Print a filter that the server refuses, with a caret below what it does not understand."""
    from runkon_client.errors import InvalidArgumentError

    try:
        yield
    except InvalidArgumentError as error:
        fields = [each.field for each in error.violations if each.field.startswith(_FIELD)]
        column = fields[0].removeprefix(_FIELD) if fields else ""
        if settings.as_json or not column.isdecimal():
            raise
        report(error, settings)
        shown = printable(filter_text.replace("\n", " ").replace("\t", " "))
        click.echo(f"    {shown}\n    {' ' * (int(column) - 1)}^", err=True)
        raise click.exceptions.Exit(exit_code_of(error)) from error

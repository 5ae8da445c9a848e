"""Drawing a workflow file: what `runkon graph` does with one, without a server."""

from __future__ import annotations

import json

import click

from runkon_server.cli.language.excerpts import show
from runkon_server.cli.language.files import (
    STDIN,
    Refusals,
    UnreadableError,
    label_of,
    write_text,
)
from runkon_server.cli.language.outcomes import Outcome, explain
from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.graph import GraphFormat
from runkon_server.dsl.graph import graph as draw
from runkon_server.dsl.parser import parse


@click.command(epilog=explain(clean="drawn", found="the file has errors", used="read or written"))
@click.argument("file")
@click.option("--format", "format_name", default="mermaid", help="mermaid, dot, json or svg.")
@click.option("-o", "--output", default=STDIN, help="Write it to a file.")
@click.option("--json", "as_json", is_flag=True, help="Print the picture inside a JSON document.")
def graph(file: str, *, format_name: str, output: str, as_json: bool) -> None:
    """Draw a workflow file; - is standard input."""
    refusals = Refusals()
    text = refusals.read(file)
    if text is None:
        raise click.exceptions.Exit(Outcome.UNREADABLE)
    result = parse(text, label_of(file))
    if has_errors(result.diagnostics):
        show(result.diagnostics, result.source, err=True)
    if result.definition is None:
        raise click.exceptions.Exit(Outcome.FOUND)
    picture = draw(result.definition, GraphFormat(format_name))
    if output != STDIN:
        try:
            write_text(output, picture)
        except UnreadableError as error:
            refusals(error)
            raise click.exceptions.Exit(Outcome.UNREADABLE) from error
    elif as_json:
        document = {"format": format_name, "graph": picture}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        click.echo(picture, nl=False)

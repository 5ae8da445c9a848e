"""`runkon workflows graph`."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.naming import is_run_id
from runkon_client.cli.session import ServerCommand, Settings, exit_code_of, print_document
from runkon_client.cli.sources import is_file, read_source, show_refusal, write_text
from runkon_client.errors import RunkonClientError
from runkon_client.values import GraphFormat

if TYPE_CHECKING:
    from runkon_client import SyncClient

_STDOUT: Final = "-"
_BY_SUFFIX: Final = {
    ".dot": GraphFormat.DOT,
    ".gv": GraphFormat.DOT,
    ".json": GraphFormat.JSON,
    ".svg": GraphFormat.SVG,
}


@click.command("graph", cls=ServerCommand, epilog=explain())
@click.argument("subject", metavar="FILE|NAME[@VERSION]|RUN")
@click.option(
    "--format",
    "format_name",
    type=click.Choice([each.value for each in GraphFormat]),
    help="How to write it.  [default: by the suffix of -o, else mermaid]",
)
@click.option("-o", "--output", default=_STDOUT, metavar="FILE", help="Write it to a file.")
@click.pass_obj
def graph(settings: Settings, subject: str, *, format_name: str | None, output: str) -> None:
    """Draw a workflow: a file (*.wf, a path, or - for standard input), a stored one, or a run.

    A run, named by its id, is drawn with its steps coloured by their status.
    """
    if format_name is None:
        graph_format = _BY_SUFFIX.get(PurePath(output).suffix.lower(), GraphFormat.MERMAID)
    else:
        graph_format = GraphFormat(format_name)
    with settings.connect() as client:
        picture = _draw(client, subject, graph_format)
    if output != _STDOUT:
        write_text(output, picture)
    elif settings.as_json:
        print_document({"format": graph_format, "graph": picture})
    else:
        click.echo(picture, nl=False)


def _draw(client: SyncClient, subject: str, graph_format: GraphFormat) -> str:
    """The picture; a source that cannot be read is shown with what is wrong with it."""
    if is_run_id(subject):
        return client.graph_workflow(run_id=subject, graph_format=graph_format)
    if not is_file(subject):
        return client.graph_workflow(subject, graph_format=graph_format)
    source = read_source(subject)
    try:
        return client.graph_workflow(source=source, graph_format=graph_format)
    except RunkonClientError as error:
        if exit_code_of(error) is Exit.REFUSED and show_refusal(client, error, subject, source):
            sys.exit(Exit.REFUSED)
        raise

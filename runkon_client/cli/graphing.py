"""`runkon graph`, which draws files itself, and `runkon workflows graph`, which asks a server."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.extensions import load_extension
from runkon_client.cli.naming import is_run_id
from runkon_client.cli.session import ServerCommand, Settings, exit_code_of, print_document
from runkon_client.cli.sources import is_file, read_source, show_refusal, write_text
from runkon_client.errors import RunkonClientError
from runkon_client.sizes import refuse_too_large
from runkon_client.values import GraphFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client import SyncClient

_CommandT = TypeVar("_CommandT", bound="Callable[..., Any]")
_STDOUT: Final = "-"
_BY_SUFFIX: Final = {
    ".dot": GraphFormat.DOT,
    ".gv": GraphFormat.DOT,
    ".json": GraphFormat.JSON,
    ".svg": GraphFormat.SVG,
}


def _options(command: _CommandT) -> _CommandT:
    """What to draw, how, and where to put it."""
    command = click.option(
        "-o", "--output", default=_STDOUT, metavar="FILE", help="Write it to a file."
    )(command)
    command = click.option(
        "--format",
        "format_name",
        type=click.Choice([each.value for each in GraphFormat]),
        help="How to write it.  [default: by the suffix of -o, else mermaid]",
    )(command)
    return click.argument("subject", metavar="FILE|NAME[@VERSION]|RUN")(command)


@click.command("graph", cls=ServerCommand, epilog=explain(failed="the file has errors"))
@_options
@click.pass_context
def graph(context: click.Context, subject: str, *, format_name: str | None, output: str) -> None:
    """Draw a workflow file (*.wf, a path, or - for standard input), a stored workflow, or a run.

    A file is drawn without a server. A run, named by its id, is drawn with its steps coloured by
    their status.
    """
    settings: Settings = context.obj
    graph_format = _chosen(format_name, output)
    if is_file(subject):
        context.invoke(
            load_extension("graph"),
            file=subject,
            format_name=graph_format.value,
            output=output,
            as_json=settings.as_json,
        )
        return
    with settings.connect() as client:
        _put(settings, _draw(client, subject, graph_format), graph_format, output)


@click.command("graph", cls=ServerCommand, epilog=explain())
@_options
@click.pass_obj
def graph_by_server(
    settings: Settings, subject: str, *, format_name: str | None, output: str
) -> None:
    """Draw a workflow: a file (*.wf, a path, or - for standard input), a stored one, or a run.

    A run, named by its id, is drawn with its steps coloured by their status.
    """
    graph_format = _chosen(format_name, output)
    with settings.connect() as client:
        _put(settings, _draw(client, subject, graph_format), graph_format, output)


def _chosen(format_name: str | None, output: str) -> GraphFormat:
    if format_name is not None:
        return GraphFormat(format_name)
    return _BY_SUFFIX.get(PurePath(output).suffix.lower(), GraphFormat.MERMAID)


def _put(settings: Settings, picture: str, graph_format: GraphFormat, output: str) -> None:
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
        refuse_too_large(source)
        return client.graph_workflow(source=source, graph_format=graph_format)
    except RunkonClientError as error:
        if exit_code_of(error) is Exit.REFUSED and show_refusal(client, error, subject, source):
            sys.exit(Exit.REFUSED)
        raise

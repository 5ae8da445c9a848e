"""`runkon workflows format`."""

from __future__ import annotations

import sys

import click

from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.session import ServerCommand, Settings, print_document
from runkon_client.cli.sources import STDIN, read_source, show_diagnostics, write_text
from runkon_client.sizes import too_large
from runkon_client.values import FormattedWorkflow


@click.command(
    "format",
    cls=ServerCommand,
    epilog=explain(failed="a file cannot be read as a workflow, or --check found one to format"),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", is_flag=True, help="Only name the files whose layout is another.")
@click.option("--write", is_flag=True, help="Write the layout back to the files.")
@click.pass_obj
def format_files(settings: Settings, files: tuple[str, ...], *, check: bool, write: bool) -> None:
    """Print workflows in the canonical layout; - is standard input.

    Nothing is stored on the server. A file that cannot be read as a workflow is left alone.
    """
    if check and write:
        raise click.UsageError("--check only looks; it does not go with --write")
    if write and STDIN in files:
        raise click.UsageError("standard input cannot be written to; leave out --write")
    found = {}
    with settings.connect() as client:
        for file in files:
            source = read_source(file)
            problem = too_large(source)
            if problem is not None:
                found[file] = FormattedWorkflow(formatted="", changed=False, diagnostics=(problem,))
            else:
                found[file] = client.format_workflow(source)
            if write and found[file].changed:
                write_text(file, found[file].formatted)
            if not settings.as_json:
                _show(file, found[file], names_only=check or write)
    if settings.as_json:
        print_document(found)
    if not all(each.formatted for each in found.values()):
        sys.exit(Exit.FAILED)
    if check and any(each.changed for each in found.values()):
        sys.exit(Exit.FAILED)


def _show(file: str, answer: FormattedWorkflow, *, names_only: bool) -> None:
    """Print what is wrong with a file, and its layout or, if that is another, its name."""
    show_diagnostics(file, answer.diagnostics)
    if not names_only:
        click.echo(answer.formatted, nl=False)
    elif answer.changed:
        click.echo(file)

"""`runkon workflows`: put, list, show, delete, validate, format, graph."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final, Unpack

import click

from runkon_client.cli.exits import Exit, explain
from runkon_client.cli.formatting import format_files
from runkon_client.cli.graphing import graph_by_server
from runkon_client.cli.material import material_options
from runkon_client.cli.session import (
    ServerGroup,
    Settings,
    exit_code_of,
    print_document,
    print_table,
    report,
)
from runkon_client.cli.sources import read_source, show_diagnostics, show_refusal
from runkon_client.errors import RunkonClientError
from runkon_client.sizes import refuse_too_large, too_large
from runkon_client.values import InputType, Validation

if TYPE_CHECKING:
    from runkon_client import SyncClient
    from runkon_client.cli.sources import Material
    from runkon_client.values import StoredWorkflow, WorkflowInput

_VERSION_MAX: Final = 2**63 - 1
_STRICT = click.option("--strict", is_flag=True, help="Let warnings refuse it as well.")


@click.group(cls=ServerGroup)
def workflows() -> None:
    """Store, list, show, delete, check, format and draw workflows."""


workflows.add_command(format_files)
workflows.add_command(graph_by_server)


@workflows.command(epilog=explain(failed="a file was refused"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@material_options
@_STRICT
@click.pass_obj
def put(
    settings: Settings,
    files: tuple[str, ...],
    schemas: dict[str, str],
    snippets: dict[str, str],
    *,
    strict: bool,
) -> None:
    """Store workflows, each under the name in its source; what is new makes a new version.

    Schemas and snippets are stored with each of the files.
    """
    stored = []
    beside: Material = {"output_schemas": schemas, "snippets": snippets}
    with settings.connect() as client:
        for file in files:
            answer = _put(settings, client, file, strict=strict, **beside)
            if answer is not None:
                stored.append(answer)
    if settings.as_json:
        print_document(stored)
    if len(stored) < len(files):
        sys.exit(Exit.FAILED)


def _put(
    settings: Settings, client: SyncClient, file: str, *, strict: bool, **beside: Unpack[Material]
) -> StoredWorkflow | None:
    """Store one file and say so; None if its text was refused."""
    source = read_source(file)
    try:
        refuse_too_large(source)
        answer = client.put_workflow(source, strict=strict, **beside)
    except RunkonClientError as error:
        if exit_code_of(error) is not Exit.REFUSED or not error.reason.startswith("DSL_"):
            raise
        if settings.as_json:
            report(error, settings)
        else:
            show_refusal(client, error, file, source, strict=strict, **beside)
        return None
    if not settings.as_json:
        show_diagnostics(file, answer.diagnostics)
        verb = "stored" if answer.created else "unchanged"
        click.echo(f"{answer.workflow.name}@{answer.workflow.version} {verb}")
    return answer


@workflows.command("list", epilog=explain())
@click.argument("name", required=False, default="")
@click.pass_obj
def list_workflows(settings: Settings, name: str) -> None:
    """List the newest version of every workflow, or every version of NAME."""
    with settings.connect() as client:
        found = list(client.list_workflows(name))
    if settings.as_json:
        print_document(found)
        return
    print_table(
        ("WORKFLOW", "VERSION", "STORED", "BY", "INPUTS", "TITLE"),
        (
            (
                each.name,
                str(each.version),
                "" if each.created_at is None else f"{each.created_at.astimezone():%F %T}",
                each.created_by,
                " ".join(map(_declared, each.inputs)),
                each.title,
            )
            for each in found
        ),
        empty="no workflows yet; `runkon workflows put FILE` stores one",
    )


@workflows.command(epilog=explain())
@click.argument("workflow", metavar="NAME[@VERSION]")
@click.pass_obj
def show(settings: Settings, workflow: str) -> None:
    """Print the source of a stored workflow."""
    name, at, version = workflow.partition("@")
    number = int(version) if re.fullmatch(r"[0-9]{1,19}", version) else 0
    if at and not 1 <= number <= _VERSION_MAX:
        raise click.UsageError(f"{workflow!r} is not NAME or NAME@VERSION")
    with settings.connect() as client:
        found = client.get_workflow(name, version=number)
    if settings.as_json:
        print_document(found)
    else:
        click.echo(found.source, nl=not found.source.endswith("\n"))


@workflows.command(epilog=explain())
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(settings: Settings, name: str, *, yes: bool) -> None:
    """Take a workflow's name away, with all its versions.

    Nobody can start it any more, nor call it from another workflow. Runs that began before go on.
    Storing it again makes the next version.
    """
    if "@" in name:
        raise click.UsageError("a name goes with all its versions; leave the @VERSION out")
    if not yes:
        click.confirm(f"Delete all versions of workflow {name}?", abort=True, err=True)
    with settings.connect() as client:
        count = client.delete_workflow(name)
    if settings.as_json:
        print_document({"name": name, "deleted": count})
    else:
        click.echo(f"{name} deleted, {count} versions" if count else f"{name} was deleted before")


@workflows.command(epilog=explain(ok="all can be stored", failed="one cannot be stored"))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@material_options
@_STRICT
@click.option("--served", is_flag=True, help="Also report what no connected worker serves.")
@click.pass_obj
def validate(
    settings: Settings,
    files: tuple[str, ...],
    schemas: dict[str, str],
    snippets: dict[str, str],
    *,
    strict: bool,
    served: bool,
) -> None:
    """Check workflows, with the stored ones that they call, and store nothing."""
    found = {}
    with settings.connect() as client:
        for file in files:
            source = read_source(file)
            problem = too_large(source)
            if problem is not None:
                found[file] = Validation(valid=False, diagnostics=(problem,), workflow=None)
            else:
                found[file] = client.validate_workflow(
                    source,
                    output_schemas=schemas,
                    snippets=snippets,
                    strict=strict,
                    check_served=served,
                )
            if not settings.as_json:
                show_diagnostics(file, found[file].diagnostics, err=False)
                if found[file].valid:
                    click.echo(f"{file}: ok")
    if settings.as_json:
        print_document(found)
    if not all(each.valid for each in found.values()):
        sys.exit(Exit.FAILED)


def _declared(declared: WorkflowInput) -> str:
    """An input as a command line would give it, in brackets if it may be left out."""
    value = "true|false" if declared.type is InputType.BOOLEAN else "…"
    text = f"{declared.name}={value}"
    return text if declared.required else f"[{text}]"

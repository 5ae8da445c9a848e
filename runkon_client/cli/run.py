"""`runkon run`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from runkon_client.cli.exits import WATCHED_RUN, Exit
from runkon_client.cli.material import material_options
from runkon_client.cli.pairs import read_pairs
from runkon_client.cli.session import ServerCommand, Settings, exit_code_of, print_document
from runkon_client.cli.sources import is_file, read_source, show_refusal
from runkon_client.errors import RunkonClientError
from runkon_client.sizes import refuse_too_large
from runkon_client.values import ConflictPolicy

if TYPE_CHECKING:
    from runkon_client import SyncClient, SyncStartedRun
    from runkon_client.calls.runs import RunOptions
    from runkon_client.cli.sources import Material


@click.command(cls=ServerCommand, epilog=WATCHED_RUN)
@click.argument("workflow", metavar="FILE|NAME")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_pairs,
    help="An input of the workflow; repeat it for more.",
)
@click.option("--watch", is_flag=True, help="Draw the run as it goes on, until it ends.")
@click.option("--wait", is_flag=True, help="Wait in silence until it ends.")
@click.option("--plain", is_flag=True, help="With --watch: print lines, draw nothing.")
@click.option("--key", default="", help="Your own identity for the run: one live run holds it.")
@click.option(
    "--on-conflict",
    type=click.Choice([policy.value.replace("_", "-") for policy in ConflictPolicy]),
    default="fail",
    show_default=True,
    help="What to do when a live run holds the key.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_pairs,
    help="A label, to find the run again; repeat it for more. `queue=NAME` gives its tasks to "
    "workers of that queue only.",
)
@click.option(
    "--priority",
    default=0,
    show_default=True,
    type=click.IntRange(-100, 100),
    help="Tasks of runs with a higher one are handed out first.",
)
@material_options
@click.option("--dry-run", is_flag=True, help="Change nothing outside; gates approve themselves.")
@click.option("--keep-going", is_flag=True, help="Go on after a failed step; the run fails late.")
@click.pass_obj
def run(
    settings: Settings,
    *,
    workflow: str,
    inputs: dict[str, str],
    schemas: dict[str, str],
    snippets: dict[str, str],
    labels: dict[str, str],
    priority: int,
    on_conflict: str,
    key: str,
    watch: bool,
    wait: bool,
    plain: bool,
    dry_run: bool,
    keep_going: bool,
) -> None:
    """Start a run of a workflow: a file (*.wf, a path, or - for standard input), or a stored
    one, NAME or NAME@VERSION.

    Prints the run's id. With --watch or --wait it ends when the run does.
    """  # noqa: D205 - this is the help, which click wraps anew
    options: RunOptions = {
        "inputs": inputs,
        "output_schemas": schemas,
        "snippets": snippets,
        "labels": labels,
        "priority": priority,
        "key": key,
        "conflict_policy": ConflictPolicy(on_conflict.replace("-", "_")),
        "dry_run": dry_run,
        "fail_fast": not keep_going,
        "trigger": "runkon run",
    }
    with settings.connect() as client:
        handle = _start(settings, client, workflow, options)
        if not handle.started:
            click.echo("a live run holds the key already", err=True)
        if watch:
            from runkon_client.cli.watching import watch_run

            sys.exit(watch_run(settings, handle, plain=plain))
        if wait:
            from runkon_client.cli.watching import wait_for_run

            sys.exit(wait_for_run(settings, handle))
        if settings.as_json:
            print_document(handle.run)
        else:
            click.echo(handle.id)
            again = settings.command("runs", "watch", handle.id)
            click.echo(f"watch it with: {again}", err=True)


def _start(
    settings: Settings, client: SyncClient, workflow: str, options: RunOptions
) -> SyncStartedRun:
    """Start it; a source that is refused is shown with what is wrong with it."""
    if not workflow:
        raise click.UsageError("FILE|NAME is empty")
    if not is_file(workflow):
        return client.start_run(workflow, **options)
    source = read_source(workflow)
    try:
        refuse_too_large(source)
        return client.start_run(**options | {"source": source})
    except RunkonClientError as error:
        beside: Material = {
            "output_schemas": options["output_schemas"],
            "snippets": options["snippets"],
        }
        refused = exit_code_of(error) is Exit.REFUSED and not settings.as_json
        if refused and show_refusal(client, error, workflow, source, **beside):
            sys.exit(Exit.REFUSED)
        raise

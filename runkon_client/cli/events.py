"""`runkon events`: the log of one run, or of all runs of a namespace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from runkon_client.cli.documents import json_line
from runkon_client.cli.exits import explain
from runkon_client.cli.naming import find_run_id
from runkon_client.cli.pairs import read_pairs
from runkon_client.cli.session import ServerCommand, Settings, require_server
from runkon_client.cli.telling import printable, tell
from runkon_client.values import EventKind, StepCompleted, StepFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runkon_client import SyncRunHandle
    from runkon_client.values import NamespaceEvent, RunEvent

_SEQUENCE_MAX: Final = 2**63 - 1
_KINDS: Final = tuple(each.value for each in EventKind if each is not EventKind.UNKNOWN)


@click.command(cls=ServerCommand, epilog=explain())
@click.argument("run", required=False, default="")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; a run until it ends.")
@click.option(
    "--since",
    default="",
    metavar="PLACE",
    help="Only what comes after: a sequence of RUN; without RUN, a cursor that --json prints.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    type=click.Choice(_KINDS),
    help=f"Only these; repeat it. A kind is one of {', '.join(_KINDS)}.",
)
@click.option("--workflow", default="", metavar="NAME", help="Without RUN: runs of this workflow.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=read_pairs,
    help="Without RUN: runs that have this label; repeat it for more.",
)
@click.pass_obj
def events(
    settings: Settings,
    *,
    run: str,
    since: str,
    kinds: tuple[str, ...],
    workflow: str,
    labels: dict[str, str],
    follow: bool,
) -> None:
    """Print events: those of RUN (an id or a key), or of all runs in the order of their commits."""
    wanted = [EventKind(kind) for kind in kinds]
    if run and (workflow or labels):
        raise click.UsageError("--workflow and --label are for the events of all runs")
    after_seq = _sequence(since) if run else 0
    with settings.connect() as client:
        require_server(client)
        if run:
            handle = client.run(find_run_id(client, run))
            for event in _events_of(handle, after_seq, wanted, follow=follow):
                click.echo(json_line(event) if settings.as_json else _line(event))
            return
        stream = client.events(
            since, workflow_name=workflow, kinds=wanted, labels=labels, follow=follow
        )
        with stream:
            for each in stream:
                click.echo(json_line(each) if settings.as_json else _line_of(each))


def _line_of(each: NamespaceEvent) -> str:
    return f"{_line(each.event)}  ({printable(each.workflow_name)} {each.event.run_id})"


def _sequence(since: str) -> int:
    if not since:
        return 0
    if not re.fullmatch(r"[0-9]{1,19}", since) or int(since) > _SEQUENCE_MAX:
        raise click.BadParameter("of a run it is a sequence", param_hint="--since")
    return int(since)


def _events_of(
    handle: SyncRunHandle, after_seq: int, kinds: Sequence[EventKind], *, follow: bool
) -> Iterator[RunEvent]:
    """What is there now, page by page; or everything until the run ends."""
    if follow:
        with handle.events(after_seq, kinds=kinds) as stream:
            yield from stream
        return
    while True:
        page = handle.list_events(after_seq, kinds=kinds, page_size=500)
        yield from page.events
        after_seq = page.examined_seq
        if after_seq >= page.head_seq:
            return


def _line(event: RunEvent) -> str:
    """One event for people."""
    words = tell(event) or _named(event)
    return f"{event.at.astimezone():%H:%M:%S} {event.seq:>5}  {words}"


def _named(event: RunEvent) -> str:
    """An event that has no words of its own, by its kind."""
    kind = event.kind.value.replace("_", " ")
    if isinstance(event, StepCompleted | StepFailed):
        return f"{kind}: {printable(event.step.step_name)}"
    return kind

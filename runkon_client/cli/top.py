"""`runkon top`: what is going on now, drawn anew every few seconds."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.numbers import Seconds
from runkon_client.cli.session import ServerCommand, Settings, columns, print_document
from runkon_client.cli.telling import between

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from runkon_client import SyncClient
    from runkon_client.values import ConnectedWorker, Run

_ACTIVE: Final = ("running", "waiting", "pending", "cancelling", "needs_resume")
_LIVE: Final = " OR ".join(f"status = {status}" for status in _ACTIVE)
_CLEAR: Final = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw."""

    at: datetime
    counts: dict[str, int]
    """Runs that have not ended, by status; exact up to 100,000 each."""
    runs: tuple[Run, ...]
    """The newest of them."""
    workers: tuple[ConnectedWorker, ...]


@click.command(cls=ServerCommand, epilog=explain())
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 500))
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=Seconds(0.5, 3600),
    metavar="SECONDS",
)
@click.option("--once", is_flag=True, help="Look once and leave; so does --json.")
@click.pass_obj
def top(settings: Settings, limit: int, interval: float, *, once: bool) -> None:
    """Show the runs that have not ended, and the workers, until Ctrl-C.

    Without a terminal it is printed once.
    """
    with settings.connect() as client:
        if settings.as_json:
            print_document(look(client, limit))
            return
        if not sys.stdout.isatty() or once:
            click.echo("\n".join(sight_lines(look(client, limit))))
            return
        _draw(client, limit, interval)


def _draw(client: SyncClient, limit: int, interval_s: float) -> NoReturn:
    """Look and draw until Ctrl-C, or until no server answers."""
    before: Sight | None = None
    try:
        while True:
            sight = look(client, limit)
            lines = fitting(sight_lines(sight, before), shutil.get_terminal_size())
            click.echo(_CLEAR + "\n".join(lines), nl=False)
            before = sight
            time.sleep(interval_s)
    finally:
        if before is not None:
            click.echo()  # drawing leaves the last line open: ending it would scroll the first away


def fitting(lines: Sequence[str], screen: os.terminal_size) -> list[str]:
    """As much of the lines as a screen shows without scrolling or folding them."""
    shown = [line[: screen.columns] for line in lines[: screen.lines]]
    if len(shown) < len(lines):
        below = len(lines) - len(shown) + 1
        shown[-1] = f"and {below} more: make the window higher"[: screen.columns]
    return shown


def look(client: SyncClient, limit: int) -> Sight:
    """Ask the server once."""
    return Sight(
        at=datetime.now(UTC),
        counts={each: client.count_runs(f"status = {each}").count for each in _ACTIVE},
        runs=tuple(itertools.islice(client.list_runs(_LIVE, page_size=limit), limit)),
        workers=tuple(client.workers()),
    )


def sight_lines(sight: Sight, before: Sight | None = None) -> list[str]:
    """A look as text; with the one before it also says what has changed."""
    counts = "  ".join(_count(sight, before, status) for status in _ACTIVE)
    replicas = sorted({worker.replica for worker in sight.workers})
    room = sum(worker.concurrency for worker in sight.workers)
    workers = f"workers {len(sight.workers)} for {room} tasks at a time"
    if replicas:
        workers += f", at replicas {', '.join(replicas)}"
    rows = [
        (
            run.id,
            run.workflow_name,
            run.status,
            between(run.started_at, sight.at),
            "" if run.current_step is None else run.current_step.step_name,
        )
        for run in sight.runs
    ]
    header = ("RUN", "WORKFLOW", "STATUS", "FOR", "AT")
    return [counts, workers, "", *columns([header, *rows])]


def _count(sight: Sight, before: Sight | None, status: str) -> str:
    number = sight.counts[status]
    if before is None or number == before.counts[status]:
        return f"{status} {number}"
    seconds = max((sight.at - before.at).total_seconds(), 1e-3)
    return f"{status} {number} ({(number - before.counts[status]) / seconds:+.1f}/s)"

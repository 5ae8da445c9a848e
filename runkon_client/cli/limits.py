"""`runkon limits`: set, list, clear."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.session import ServerGroup, Settings, print_document, print_table
from runkon_client.cli.telling import printable, span

if TYPE_CHECKING:
    from runkon_client.values import ActionLimit


@click.group(cls=ServerGroup)
def limits() -> None:
    """Limit actions, while everything runs.

    All replicas keep a limit together, within two seconds of its change. Tasks beyond it wait in
    the queue, where they use up no attempt. For administrators: on the machine of a replica.
    """


@limits.command("set", epilog=explain())
@click.argument("action")
@click.option(
    "--concurrency",
    type=click.IntRange(0, 1_000_000),
    help="Tasks with workers at once; 0 stops it.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Tasks handed out per second; a burst is at most one second's worth.",
)
@click.pass_obj
def set_limit(settings: Settings, action: str, concurrency: int | None, rate: float | None) -> None:
    """Limit ACTION, instead of what was set for it."""
    if concurrency is None and rate is None:
        raise click.UsageError("say --concurrency, --rate, or both")
    with settings.connect() as client:
        limit = client.admin.set_limit(action, concurrency=concurrency, rate_per_s=rate)
    if settings.as_json:
        print_document(limit)
    else:
        told = "cleared again by somebody else" if limit is None else _told(limit)
        click.echo(printable(f"{action}: {told}"))


@limits.command("list", epilog=explain())
@click.pass_obj
def list_limits(settings: Settings) -> None:
    """List the limited actions of the namespace, with what is in use now."""
    with settings.connect() as client:
        found = list(client.admin.limits())
    if settings.as_json:
        print_document(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("ACTION", "LIMIT", "RUNNING", "QUEUED", "NEXT"),
        (
            (each.action, _told(each), str(each.running), str(each.queued), _next(each, now))
            for each in found
        ),
        empty="no action is limited; `runkon limits set ACTION --concurrency N` limits one",
    )


@limits.command("clear", epilog=explain())
@click.argument("action")
@click.pass_obj
def clear_limit(settings: Settings, action: str) -> None:
    """Let ACTION run without limits."""
    with settings.connect() as client:
        cleared = client.admin.clear_limit(action)
    if settings.as_json:
        print_document({"action": action, "cleared": cleared})
    else:
        was = "" if cleared else ", as before"
        click.echo(printable(f"{action}: no limit{was}"))


def _told(limit: ActionLimit) -> str:
    words = []
    if limit.concurrency is not None:
        words.append(f"{limit.concurrency} at once")
    if limit.rate_per_s is not None:
        words.append(f"{limit.rate_per_s:g} per second")
    return ", ".join(words)


def _next(limit: ActionLimit, now: datetime) -> str:
    """When the rate lets the next task out."""
    if limit.next_task_at is None:
        return ""
    return "now" if limit.next_task_at <= now else f"in {span(limit.next_task_at - now)}"

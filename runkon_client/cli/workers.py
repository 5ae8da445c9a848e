"""`runkon workers`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.session import ServerCommand, Settings, print_document, print_table
from runkon_client.cli.telling import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client.values import ConnectedWorker


@click.command(cls=ServerCommand, epilog=explain())
@click.pass_obj
def workers(settings: Settings) -> None:
    """List the workers that are connected, to any replica, with what they serve.

    What the server does itself is not listed: the actions `echo` and `sleep`, the item providers
    `list` and `workflow_runs`.
    """
    with settings.connect() as client:
        found = list(client.workers())
    if settings.as_json:
        print_document(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("WORKER", "AT A TIME", "CONNECTED", "SEEN", "REPLICA", "CLIENT", "QUEUES", "SERVES"),
        (
            (
                each.id,
                "polls" if each.polls else str(each.concurrency),
                span(now - each.connected_at),
                f"{span(now - each.last_seen_at)} ago",
                each.replica,
                each.client,
                ", ".join(each.queues),
                ", ".join(_offers(each)),
            )
            for each in found
        ),
        empty="no workers are connected; `runkon worker MODULE` starts one",
    )


def _offers(worker: ConnectedWorker) -> Iterator[str]:
    """Actions by their names, all else with its kind."""
    yield from worker.actions
    yield from (f"items {name}" for name in worker.item_providers)
    yield from (f"gate {name}" for name in worker.gate_types)
    if worker.scripts:
        yield "scripts"

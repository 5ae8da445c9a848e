"""`runkon replicas`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from runkon_client.cli.exits import explain
from runkon_client.cli.session import ServerCommand, Settings, print_document, print_table
from runkon_client.cli.telling import span

if TYPE_CHECKING:
    from runkon_client.values import Replica


@click.command(cls=ServerCommand, epilog=explain())
@click.pass_obj
def replicas(settings: Settings) -> None:
    """List the servers of the database, newest first, with the runs and workers of each.

    One that died stays on the list for a day. For administrators: on the machine of a replica.
    """
    with settings.connect() as client:
        found = list(client.admin.replicas())
    if settings.as_json:
        print_document(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("REPLICA", "STATE", "UP", "SEEN", "RUNS", "WORKERS", "VERSION"),
        (
            (
                each.id,
                _state(each),
                span(now - each.started_at),
                f"{span(now - each.last_seen_at)} ago",
                str(each.runs_owned),
                str(each.workers),
                each.version,
            )
            for each in found
        ),
        empty="no replica has told of itself yet",
    )


def _state(replica: Replica) -> str:
    if not replica.is_live:
        return "gone"
    return "draining" if replica.is_draining else "live"

"""Telling the other replicas where to look, beside the transactions that made it worth a look.

A transaction that notifies commits under a lock of the whole database, and keeps it while its
commit is written to disk. Here it commits alone and does not wait for the disk: a hint may be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.store.database import connect_unflushed
from runkon_server.store.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "CHANNEL",
    "PAYLOAD_BYTES_MAX",
    "SEND",
    "SEND_BEHIND",
    "open_hints",
    "send_hints",
    "send_last_hints",
]

CHANNEL: Final = "runkon"
PAYLOAD_BYTES_MAX: Final = 7_900
"""Of one notification; PostgreSQL takes less than 8,000."""

SEND: Final = f"SELECT pg_notify('{CHANNEL}', u.payload) FROM unnest($1::text[]) AS u(payload)"

# Its commit does not wait for the disk, on whatever session.
SEND_BEHIND: Final = f"""
SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', u.payload)
FROM unnest($1::text[]) AS u(payload)"""


async def open_hints(dsn: str, lease_ttl_s: float) -> Pipeline:
    """A session for nothing but hints."""
    return Pipeline(await connect_unflushed(dsn, lease_ttl_s))


async def send_hints(pipeline: Pipeline, payloads: Sequence[str]) -> None:
    """Notify all who listen, in one round trip.

    Raises:
        psycopg.Error: perhaps nobody was told.
    """
    await pipeline.run([(SEND, (payloads,))])


async def send_last_hints(conn: AsyncConnection, payloads: Sequence[str]) -> None:
    """The same on any connection, for a replica that stops."""
    statement = SEND.replace("$1", "%(payloads)s")
    await conn.exec_driver_sql(statement, {"payloads": list(payloads)})

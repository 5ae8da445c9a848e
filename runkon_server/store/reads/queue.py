"""Reading how much waits: work for workers, notifications for those who listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_WAITING_MAX: Final = 100
_LONGEST: Final = text("""
    SELECT namespace, queue, action, count(*) AS depth,
           extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age_s
      FROM tasks
     WHERE state = 'queued'
     GROUP BY namespace, queue, action
     ORDER BY depth DESC, namespace, queue, action
     LIMIT :waiting_max
""")


class Waiting(NamedTuple):
    """Tasks of one action and queue that nobody has taken yet."""

    namespace: str
    queue: str
    action: str
    depth: int
    age_s: float
    """Since the oldest of them was queued, by the database's clock."""


async def longest_waiting(conn: AsyncConnection) -> list[Waiting]:
    """What waits, the most of it first, at most a hundred."""
    found = await conn.execute(_LONGEST, {"waiting_max": _WAITING_MAX})
    return [Waiting(*row) for row in found]


async def notifications_ratio(conn: AsyncConnection) -> float:
    """How full the server's queue of notifications is, from 0 to 1.

    Whoever asks lets PostgreSQL drop what all who listen have read. A queue that was full stays so
    until then.
    """
    ratio: float = (await conn.execute(text("SELECT pg_notification_queue_usage()"))).scalar_one()
    return ratio

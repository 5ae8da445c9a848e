"""Reading how much work waits for workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_QUEUES_MAX: Final = 100
_LONGEST: Final = text("""
    SELECT namespace, action, count(*) AS depth,
           extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS age_s
      FROM tasks
     WHERE state = 'queued'
     GROUP BY namespace, action
     ORDER BY depth DESC, namespace, action
     LIMIT :queues_max
""")


class Queue(NamedTuple):
    """Tasks of one action that nobody has taken yet."""

    namespace: str
    action: str
    depth: int
    age_s: float
    """Since the oldest of them was queued, by the database's clock."""


async def longest_queues(conn: AsyncConnection) -> list[Queue]:
    """The queues that are not empty, the longest first, at most a hundred."""
    found = await conn.execute(_LONGEST, {"queues_max": _QUEUES_MAX})
    return [Queue(*row) for row in found]

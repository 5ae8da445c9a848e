"""Up to where retention has removed events from the feed of a namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["expired_below", "raise_floors"]

_RAISE = text("""
INSERT INTO feed_floors (namespace, xid)
SELECT r.namespace, max(e.xid) FROM workflow_runs r JOIN run_events e ON e.run_id = r.id
WHERE r.id = ANY (:run_ids) GROUP BY r.namespace
ON CONFLICT (namespace) DO UPDATE SET xid = greatest(feed_floors.xid, excluded.xid)""")


async def raise_floors(conn: AsyncConnection, run_ids: Sequence[str]) -> None:
    """Note that the events of these runs are about to be removed for their age.

    A feed that stands below them would silently lack them; it is told to begin again. Call it in
    the transaction that removes them, before it does. A run that somebody deletes by name needs no
    floor: whoever deletes it wants it gone.
    """
    await conn.execute(_RAISE, {"run_ids": list(run_ids)})


async def expired_below(conn: AsyncConnection, namespace: str) -> int:
    """The transaction id up to which retention has removed events; 0 if it has removed none."""
    found = await conn.execute(
        text("SELECT xid::text FROM feed_floors WHERE namespace = :namespace"),
        {"namespace": namespace},
    )
    return int(found.scalar_one_or_none() or 0)

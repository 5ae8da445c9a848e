"""Reading what event streams need: how far runs are, and the next events, as cheaply as can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.store.database import fetch
from runkon_server.store.reads.events import EventRow
from runkon_server.store.tables import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_EVENTS: Final = f"""
SELECT {", ".join(EventRow._fields[1:])} FROM run_events
WHERE run_id = %(run_id)s AND seq > %(after_seq)s ORDER BY seq LIMIT %(limit)s"""
_HEADS: Final = select(runs.c.id, runs.c.last_seq).where(
    runs.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_()
)


async def events_above(
    conn: AsyncConnection, run_id: str, after_seq: int, *, limit: int
) -> list[EventRow]:
    """The next events of a run above `after_seq`, in order, without gaps.

    Args:
        run_id: of a run that the caller has found in its namespace.
        limit: most events. An event is at most 64 KiB, so this bounds the bytes as well.
    """
    parameters = {"run_id": run_id, "after_seq": after_seq, "limit": limit}
    return [EventRow(run_id, *row) for row in await fetch(conn, _EVENTS, parameters)]


async def last_seqs(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, int]:
    """The newest sequence of each run; one that does not exist is left out."""
    return {row.id: row.last_seq for row in await conn.execute(_HEADS, {"ids": list(run_ids)})}

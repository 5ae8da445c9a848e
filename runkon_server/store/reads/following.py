"""Reading what event streams need: how far runs are, and the next events, as cheaply as can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.store.database import fetch
from runkon_server.store.quick_reads import Quick
from runkon_server.store.reads.events import EventRow

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.quick_reads import QuickReads

_EVENTS: Final = f"""
SELECT {", ".join(EventRow._fields[1:])} FROM run_events
WHERE run_id = %(run_id)s AND seq > %(after_seq)s ORDER BY seq LIMIT %(limit)s"""
_PAGE: Final = Quick(_EVENTS)
_TAILS: Final = Quick(f"""
SELECT u.after_seq, {", ".join(f"e.{name}" for name in EventRow._fields)}
FROM unnest(%(run_ids)s::text[], %(after)s::bigint[]) AS u(run_id, after_seq)
CROSS JOIN LATERAL (
    SELECT {", ".join(EventRow._fields)} FROM run_events
    WHERE run_id = u.run_id AND seq > u.after_seq ORDER BY seq LIMIT %(limit)s) AS e
ORDER BY e.run_id, u.after_seq, e.seq""")
_LAST_SEQS: Final = Quick("SELECT id, last_seq FROM workflow_runs WHERE id = ANY (%(ids)s::text[])")


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


async def page_above(
    reads: QuickReads, run_id: str, after_seq: int, *, limit: int
) -> list[EventRow]:
    """The same as `events_above`, for streams."""
    rows = await reads.fetch(_PAGE, run_id=run_id, after_seq=after_seq, limit=limit)
    return [EventRow(run_id, *row) for row in rows]


async def tails_above(
    reads: QuickReads, places: Collection[tuple[str, int]], *, limit: int
) -> dict[tuple[str, int], list[EventRow]]:
    """The next events of many runs, each above a sequence; runs without any are left out.

    Args:
        places: runs that the caller has found in their namespaces, each with a sequence. One run
            may be there with several.
        limit: most events of each.
    """
    rows = await reads.fetch(
        _TAILS,
        run_ids=[run_id for run_id, _ in places],
        after=[seq for _, seq in places],
        limit=limit,
    )
    found: dict[tuple[str, int], list[EventRow]] = {}
    for after_seq, *columns in rows:
        row = EventRow(*columns)
        found.setdefault((row.run_id, after_seq), []).append(row)
    return found


async def last_seqs(reads: QuickReads, run_ids: Collection[str]) -> dict[str, int]:
    """The newest sequence of each run; one that does not exist is left out."""
    return dict(await reads.fetch(_LAST_SEQS, ids=list(run_ids)))

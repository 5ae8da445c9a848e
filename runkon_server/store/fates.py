"""What became of a transaction whose COMMIT was never answered.

The old backend may still be committing, and a plain read would see the rows as they were before. So
the runs of the batch are locked first, which waits for it; rows that it only just made cannot be
locked, but the status of its transaction says that it is in progress.

An id stands for one transaction only as long as the server keeps its past: after a crash, ids whose
transactions left nothing in the log are given out again, and a promoted standby goes on from an
earlier one. So "committed" is believed only together with a row that nobody else can have written.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import psycopg

from runkon_server.store.timelines import TIMELINE

if TYPE_CHECKING:
    from runkon_server.store.locking import Locked


class Fate(Enum):
    """Of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    OPEN = "open"
    """Its backend has not noticed yet; ask again."""
    UNKNOWN = "unknown"
    """Nobody can say any more."""


_LOCK: Final = """
SELECT id FROM workflow_runs WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"""
_STATUS: Final = f"SELECT pg_xact_status(%s::xid8), {TIMELINE}"
_WITNESS: Final = "SELECT at = %s AND xid = %s::xid8 FROM run_events WHERE run_id = %s AND seq = %s"


async def fate_of(
    conn: psycopg.AsyncConnection[Any], locked: Locked, witness: tuple[str, int] | None
) -> Fate:
    """Ask what became of a batch's transaction; waits for its locks up to `lock_timeout`.

    Args:
        conn: another session, in autocommit mode.
        locked: the first half of the batch.
        witness: run id and number of an event that the batch has appended; None: it has none, and
            a commit cannot be proved.

    Raises:
        psycopg.Error: the database does not answer, or knows no such id yet.
    """
    try:
        async with conn.transaction(force_rollback=True):
            await conn.execute(_LOCK, (list(locked.runs),))
            return await _judge(conn, locked, witness)
    except psycopg.errors.LockNotAvailable:
        return Fate.OPEN


async def _judge(
    conn: psycopg.AsyncConnection[Any], locked: Locked, witness: tuple[str, int] | None
) -> Fate:
    found = await (await conn.execute(_STATUS.encode(), (locked.xid,))).fetchone()
    assert found is not None
    status, timeline = found
    if timeline != locked.timeline or status is None:
        return Fate.UNKNOWN
    if status == "in progress":
        return Fate.OPEN
    if status == "aborted":
        return Fate.ABORTED
    if witness is None:
        return Fate.UNKNOWN
    row = await (await conn.execute(_WITNESS, (locked.now, locked.xid, *witness))).fetchone()
    return Fate.COMMITTED if row is not None and row[0] else Fate.ABORTED

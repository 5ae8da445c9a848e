"""Which history a database server writes: what a fail-over changes, and what has to follow then.

A standby that is promoted without the last transactions of its primary goes on from an earlier
state. Its rows may then name owners and generations that are right by number and wrong by content:
a replica that has decided on rows that are gone must not go on as if they were there. So the fence
of a run is the pair of timeline and generation (ADR-0017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

# Exact from the moment of the promotion on. `pg_control_checkpoint()` tells the old timeline until
# the next checkpoint is complete, which may take minutes. There is none on a standby.
TIMELINE: Final = """
CASE WHEN pg_is_in_recovery() THEN 0
     ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END"""

_HISTORY = f"""
SELECT system_identifier::text, {TIMELINE},
       (SELECT value FROM settings WHERE name = 'history')
FROM pg_control_system()"""

_FIRST = "INSERT INTO settings (name, value) VALUES ('history', %s) ON CONFLICT DO NOTHING"

# Whoever turns the page first does it for all. Every run that was owned is anybody's now.
_TURN = """
WITH turned AS (
    UPDATE settings SET value = %(now)s WHERE name = 'history' AND value = %(was)s RETURNING name
), owned AS (
    SELECT id FROM workflow_runs WHERE owner_token IS NOT NULL AND EXISTS (SELECT FROM turned)
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE workflow_runs r SET generation = r.generation + 1, owner_token = NULL, lease_until = NULL,
    ready_at = clock_timestamp()
FROM owned WHERE r.id = owned.id"""

_TIMELINE_SHIFT: Final = 40


@dataclass(frozen=True, slots=True)
class History:
    """What a session's server writes. Two servers with the same value have one past."""

    system: str
    """Identifies the cluster: made by `initdb`, shared by its standbys."""
    timeline: int
    """From 1, +1 with every promotion; never changes while a server is a primary."""

    def __str__(self) -> str:
        return f"{self.system}/{self.timeline}"


def outer_fence(timeline: int, generation: int) -> int:
    """The pair as one number for the world outside: it rises with both, timeline first.

    On the first timeline, where nothing ever failed over, it is the generation itself.
    """
    return (max(0, timeline - 1) << _TIMELINE_SHIFT) + generation


async def enter_history(conn: psycopg.AsyncConnection[Any]) -> tuple[History, int]:
    """The history of a session's server; if it is new to the database, every owner is cleared.

    Args:
        conn: in autocommit mode, of a server that takes writes.

    Returns:
        The history, and how many runs lost their owner by it.
    """
    row = await (await conn.execute(_HISTORY)).fetchone()
    assert row is not None
    system, timeline, known = row
    history = History(system, timeline)
    if known is None:
        await conn.execute(_FIRST, (str(history),))
    elif known != str(history):
        cleared = await conn.execute(_TURN.encode(), {"now": str(history), "was": known})
        return history, cleared.rowcount
    return history, 0

"""Reading the events of a whole namespace in the order of their commits.

A run's own sequence is in the order of its commits, because its row is locked. Between runs there
is none, so the order is that of transaction ids: only events below the oldest transaction that was
open are read, for above it an older one may still appear.

Source: https://www.postgresql.org/docs/current/functions-info.html, `pg_snapshot_xmin`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = [
    "START",
    "FeedPage",
    "FeedPlace",
    "FeedQuery",
    "FeedRow",
    "Horizon",
    "events_of_namespace",
    "read_horizon",
    "system_identifier",
]

SPAN: Final = 5_000
"""Most events that one page looks at, however few of them are wanted."""


class FeedPlace(NamedTuple):
    """A place among all events of a database cluster."""

    xid: int
    """Transaction id, with its epoch: 64 bits, never used twice in a cluster."""
    run_id: str
    seq: int


START: Final = FeedPlace(0, "", 0)
"""Before all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedQuery:
    """Which events of a namespace; what is None or empty does not matter."""

    namespace: str
    workflow_name: str | None = None
    kinds: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    """Pairs in order of their keys."""


class FeedRow(NamedTuple):
    """One event as it is stored; `payload` is JSON text."""

    xid: int
    run_id: str
    seq: int
    epoch: int
    kind: str
    at: datetime
    generation: int
    payload: str
    workflow_name: str

    @property
    def place(self) -> FeedPlace:
        """Where it stands."""
        return FeedPlace(self.xid, self.run_id, self.seq)


class FeedPage(NamedTuple):
    """Events in order; every one up to `examined` was looked at."""

    rows: list[FeedRow]
    examined: FeedPlace
    more: bool
    """Whether there may be more below the horizon already."""


class Horizon(NamedTuple):
    """How far the feed may be read at one moment."""

    xid: int
    """Every transaction below is over."""
    held_s: float | None
    """For how long the oldest event at or above it has been held back; None if there is none."""
    next_xid: int
    """The first transaction id that is not given out yet."""


_HORIZON: Final = text("""
SELECT h.xmin::text, h.xmax::text, extract(epoch FROM clock_timestamp() - (
    SELECT e.at FROM run_events e WHERE e.xid >= h.xmin ORDER BY e.xid LIMIT 1))::float8
FROM (SELECT pg_snapshot_xmin(s) AS xmin, pg_snapshot_xmax(s) AS xmax
      FROM pg_current_snapshot() AS s) h""")

# The span is cut before anything is joined, so that a page costs the same however rare the events
# are that it is asked for; its last event comes along in any case and says how far it went.
#
# The index has the transaction only: the order within one is sorted out here, which costs little,
# and an index of one number, of which many are alike, is a tenth of the size.
_PAGE: Final = """
WITH span AS MATERIALIZED (
    SELECT e.xid, e.run_id, e.seq, e.epoch, e.kind, e.at, e.generation, e.payload
    FROM run_events e
    WHERE e.xid >= CAST(:xid AS xid8) AND e.xid < CAST(:below AS xid8)
      AND (e.xid > CAST(:xid AS xid8) OR (e.run_id, e.seq) > (:run_id, CAST(:seq AS bigint)))
    ORDER BY e.xid, e.run_id, e.seq
    LIMIT :span
), numbered AS (
    SELECT s.*, row_number() OVER (ORDER BY s.xid, s.run_id, s.seq) AS n, count(*) OVER () AS total
    FROM span s
)
SELECT s.xid::text, s.run_id, s.seq, s.epoch, s.kind, s.at, s.generation,
    CASE WHEN r.id IS NOT NULL THEN s.payload END, r.workflow_name, s.n, s.total
FROM numbered s LEFT JOIN LATERAL (
    SELECT r.id, r.workflow_name FROM workflow_runs r {details}
    WHERE r.id = s.run_id AND r.namespace = :namespace {conditions}
    OFFSET 0
) r ON true
WHERE r.id IS NOT NULL OR s.n = s.total
ORDER BY s.n
LIMIT :most"""

_CONDITIONS: Final = {
    "workflow_name": "AND r.workflow_name = :workflow_name",
    "kinds": "AND s.kind = ANY (:kinds)",
    "labels": "AND d.labels @> :labels",
}


def _page(conditions: tuple[str, ...]) -> TextClause:
    statement = text(
        _PAGE.format(
            details="JOIN run_details d ON d.run_id = r.id" if "labels" in conditions else "",
            conditions=" ".join(_CONDITIONS[name] for name in conditions),
        )
    )
    types: dict[str, Any] = {"kinds": ARRAY(TEXT), "labels": JSONB}
    typed = (bindparam(name, type_=types[name]) for name in conditions if name in types)
    return statement.bindparams(*typed)


async def read_horizon(conn: AsyncConnection) -> Horizon:
    """How far the feed may be read now."""
    xmin, xmax, held_s = (await conn.execute(_HORIZON)).one()
    return Horizon(int(xmin), held_s, int(xmax))


async def events_of_namespace(
    conn: AsyncConnection,
    query: FeedQuery,
    *,
    after: FeedPlace,
    below: int,
    limit: int,
    span: int = SPAN,
) -> FeedPage:
    """The next events above a place.

    Args:
        below: a transaction id that was a horizon before this statement began.
        limit: most events in the page.
        span: most events that are looked at.
    """
    conditions = tuple(name for name in _CONDITIONS if getattr(query, name))
    parameters: dict[str, Any] = {
        "xid": str(after.xid),
        "run_id": after.run_id,
        "seq": after.seq,
        "below": str(below),
        "span": span,
        "most": limit + 1,
        "namespace": query.namespace,
    }
    if query.workflow_name:
        parameters["workflow_name"] = query.workflow_name
    if query.kinds:
        parameters["kinds"] = sorted(query.kinds)
    if query.labels:
        parameters["labels"] = dict(query.labels)
    found = (await conn.execute(_page(conditions), parameters)).all()
    if not found:
        return FeedPage([], after, more=False)
    more = len(found) > limit or found[-1].total == span
    shown = found[:limit]
    rows = [FeedRow(int(row[0]), *row[1:9]) for row in shown if row[7] is not None]
    last = shown[-1]
    return FeedPage(rows, FeedPlace(int(last[0]), last[1], last[2]), more)


async def system_identifier(conn: AsyncConnection) -> int:
    """What tells this database cluster from all others, its restored copies not."""
    found = await conn.execute(text("SELECT system_identifier FROM pg_control_system()"))
    identifier: int = found.scalar_one()
    return identifier

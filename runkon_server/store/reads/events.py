"""Reading the log of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.tables import run_events

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

SPAN: Final = 5_000
"""Most sequence numbers that one page looks at, however few of the kinds wanted are among them."""


class EventRow(NamedTuple):
    """One event as it is stored; `payload` is JSON text."""

    run_id: str
    seq: int
    epoch: int
    kind: str
    at: datetime
    generation: int
    payload: str


def _event_list(*conditions: ColumnElement[bool]) -> Select[Any]:
    statement = select(*(run_events.c[name] for name in EventRow._fields)).where(
        run_events.c.run_id == bindparam("run_id"),
        run_events.c.seq > bindparam("after_seq"),
        run_events.c.seq <= bindparam("upto"),
        *conditions,
    )
    weight = weight_of([run_events.c.payload])
    return paged(statement, order=[run_events.c.seq], weight=weight)


_EVENTS: Final = _event_list()
_EVENTS_OF_KINDS: Final = _event_list(
    run_events.c.kind == bindparam("kinds", type_=ARRAY(TEXT)).any_()
)


class EventPage(NamedTuple):
    """Events in order; every one up to `examined_seq` was looked at."""

    events: list[EventRow]
    examined_seq: int


async def list_events(
    conn: AsyncConnection,
    *,
    run_id: str,
    after_seq: int,
    head_seq: int,
    limit: int,
    kinds: Collection[str] = (),
    budget: int = PAGE_BYTES,
) -> EventPage:
    """A page of the run's events above `after_seq` and up to `head_seq`.

    Args:
        run_id: of a run that the caller has found in its namespace.
        head_seq: from `run_head`; later events are left for the next look.
        kinds: only these; empty means all.
    """
    upto = min(head_seq, after_seq + SPAN)
    statement = _EVENTS_OF_KINDS if kinds else _EVENTS
    parameters = {"run_id": run_id, "after_seq": after_seq, "upto": upto, "kinds": list(kinds)}
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    events = [EventRow(*row[: len(EventRow._fields)]) for row in page.rows]
    return EventPage(events, events[-1].seq if page.more else max(upto, after_seq))

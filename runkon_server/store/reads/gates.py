"""Reading gates and their votes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import DateTime, Interval, Text, bindparam, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.errors import GateNotFoundError
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import GateRow, Page, VoteRow
from runkon_server.store.tables import gate_votes, gates, run_details, runs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime, timedelta

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.reads.paging import Weight

_GATE: Final = tuple(each.name for each in fields(GateRow) if each.name != "votes")
_VOTE: Final = tuple(each.name for each in fields(VoteRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateQuery:
    """Which gates of a namespace; what is None does not matter."""

    namespace: str
    run_id: str | None = None
    gate_type: str | None = None
    workflow_name: str | None = None
    state: str | None = None
    min_age: timedelta | None = None


class GateCursor(NamedTuple):
    """The place of a gate in a list."""

    is_closed: bool
    opened_at: datetime
    id: str


def cursor_of(gate: GateRow) -> GateCursor:
    """Where the page behind this gate begins."""
    assert gate.opened_at is not None
    return GateCursor(gate.state != "pending", gate.opened_at, gate.id)


async def gate_by_id(conn: AsyncConnection, *, namespace: str, gate_id: str) -> GateRow:
    """One gate with its votes.

    Raises:
        GateNotFoundError: the namespace has no such gate.
    """
    found = await conn.execute(_GATE_BY_ID, {"namespace": namespace, "id": gate_id})
    row = found.one_or_none()
    if row is None:
        raise GateNotFoundError(gate_id)
    return (await _with_votes(conn, [row]))[0]


async def gates_by_id(
    conn: AsyncConnection, *, namespace: str, gate_ids: Collection[str]
) -> dict[str, GateRow]:
    """Gates with their votes, by id; those that the namespace does not have are left out."""
    found = await conn.execute(_GATES_BY_ID, {"namespace": namespace, "ids": list(gate_ids)})
    return {gate.id: gate for gate in await _with_votes(conn, found.all())}


async def list_gates(
    conn: AsyncConnection,
    query: GateQuery,
    *,
    limit: int,
    after: GateCursor | None = None,
    budget: int = PAGE_BYTES,
) -> Page[GateRow]:
    """Gates with their votes: pending ones first, each group oldest first.

    A gate that is resolved between two pages may be met twice, never missed.
    """
    rows: list[Row[Any]] = []
    weight = 0
    for is_closed in (False, True):
        if (after is not None and after.is_closed > is_closed) or (
            query.state is not None and (query.state != "pending") is not is_closed
        ):
            continue
        goes_on = after is not None and after.is_closed is is_closed
        page = await fetch_page(
            conn,
            _one_group(_conditions(query), is_closed=is_closed, goes_on=goes_on),
            {**asdict(query), **(after._asdict() if goes_on and after is not None else {})},
            limit=limit - len(rows),
            budget=budget - weight,
        )
        rows += page.rows
        if page.more:
            return Page(await _with_votes(conn, rows), more=True)
        weight += sum(row.page_weight for row in page.rows)
        if rows and not is_closed and (len(rows) >= limit or weight >= budget):
            # Whether closed ones follow is for the next page to find out.
            return Page(await _with_votes(conn, rows), more=query.state is None)
    return Page(await _with_votes(conn, rows), more=False)


def _select_gates() -> Select[Any]:
    columns = {**run_details.c, **runs.c, **gates.c}
    return select(*(columns[name] for name in _GATE)).select_from(
        gates.join(runs, runs.c.id == gates.c.run_id).join(
            run_details, run_details.c.run_id == gates.c.run_id
        )
    )


_GATE_BY_ID: Final = _select_gates().where(
    gates.c.namespace == bindparam("namespace"), gates.c.id == bindparam("id")
)
_GATES_BY_ID: Final = _select_gates().where(
    gates.c.namespace == bindparam("namespace"),
    gates.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_(),
)
_VOTES: Final = (
    select(gate_votes.c.gate_id, *(gate_votes.c[name] for name in _VOTE))
    .where(
        gate_votes.c.run_id == bindparam("run_ids", type_=ARRAY(TEXT)).any_(),
        gate_votes.c.gate_id == bindparam("gate_ids", type_=ARRAY(TEXT)).any_(),
    )
    .order_by(gate_votes.c.gate_id, gate_votes.c.n)
)


def _conditions(query: GateQuery) -> tuple[str, ...]:
    """Which fields of a query matter."""
    optional = ("run_id", "gate_type", "workflow_name", "state", "min_age")
    return tuple(name for name in optional if getattr(query, name) is not None)


@cache
def _one_group(conditions: tuple[str, ...], *, is_closed: bool, goes_on: bool) -> Select[Any]:
    statement = _select_gates().where(gates.c.namespace == bindparam("namespace"))
    if is_closed:
        statement = statement.where(gates.c.state != "pending")
    else:
        # Written out, so that the planner sees that the index of pending gates fits.
        statement = statement.where(gates.c.state == literal_column("'pending'"))
    for name in conditions:
        statement = statement.where(_CONDITIONS[name])
    if goes_on:
        place = tuple_(
            bindparam("opened_at", type_=DateTime(timezone=True)), bindparam("id", type_=Text)
        )
        statement = statement.where(tuple_(gates.c.opened_at, gates.c.id) > place)
    return paged(statement, order=[gates.c.opened_at, gates.c.id], weight=_weight())


_CONDITIONS: Final = {
    "run_id": gates.c.run_id == bindparam("run_id"),
    "gate_type": gates.c.gate_type == bindparam("gate_type"),
    "workflow_name": runs.c.workflow_name == bindparam("workflow_name"),
    "state": gates.c.state == bindparam("state"),
    "min_age": gates.c.opened_at <= func.clock_timestamp() - bindparam("min_age", type_=Interval),
}


def _weight() -> Weight:
    votes = (
        select(func.coalesce(func.sum(func.octet_length(gate_votes.c.feedback)), 0))
        .where(gate_votes.c.run_id == gates.c.run_id, gate_votes.c.gate_id == gates.c.id)
        .correlate(gates)
        .scalar_subquery()
    )
    texts = weight_of([gates.c.prompt, gates.c.feedback], [gates.c.options, run_details.c.labels])
    return texts + votes


async def _with_votes(conn: AsyncConnection, rows: Iterable[Row[Any]]) -> list[GateRow]:
    found = [GateRow(**dict(zip(_GATE, row, strict=False))) for row in rows]
    votes: dict[str, list[VoteRow]] = defaultdict(list)
    if found:
        wanted = {
            "run_ids": list({gate.run_id for gate in found}),
            "gate_ids": [gate.id for gate in found],
        }
        for gate_id, *vote in await conn.execute(_VOTES, wanted):
            votes[gate_id].append(VoteRow(**dict(zip(_VOTE, vote, strict=True))))
    return [_voted(gate, votes[gate.id]) for gate in found]


def _voted(gate: GateRow, votes: list[VoteRow]) -> GateRow:
    return replace(gate, votes=votes) if votes else gate

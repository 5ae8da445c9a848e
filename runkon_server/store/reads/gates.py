"""Reading gates and their votes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, literal, select, tuple_

from runkon_server.errors import GateNotFoundError
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, weight_of
from runkon_server.store.rows import GateRow, Page, VoteRow
from runkon_server.store.tables import gate_votes, gates, run_details, runs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.reads.paging import Weight

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
    statement = _select_gates().where(gates.c.namespace == namespace, gates.c.id == gate_id)
    row = (await conn.execute(statement)).mappings().one_or_none()
    if row is None:
        raise GateNotFoundError(gate_id)
    return (await _with_votes(conn, [row]))[0]


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
    rows: list[RowMapping] = []
    weight = 0
    for is_closed in (False, True):
        if (after is not None and after.is_closed > is_closed) or (
            query.state is not None and (query.state != "pending") is not is_closed
        ):
            continue
        same_group = after if after is not None and after.is_closed is is_closed else None
        page = await fetch_page(
            conn,
            _one_group(query, is_closed=is_closed, after=same_group),
            order=[gates.c.opened_at, gates.c.id],
            weight=_weight(),
            limit=limit - len(rows),
            budget=budget - weight,
        )
        rows += page.rows
        if page.more:
            return Page(await _with_votes(conn, rows), more=True)
        weight += sum(row["page_weight"] for row in page.rows)
        if rows and not is_closed and (len(rows) >= limit or weight >= budget):
            # Whether closed ones follow is for the next page to find out.
            return Page(await _with_votes(conn, rows), more=query.state is None)
    return Page(await _with_votes(conn, rows), more=False)


def _select_gates() -> Select[Any]:
    names = {each.name for each in fields(GateRow)}
    return select(
        *(column for column in gates.c if column.name in names),
        runs.c.workflow_name,
        run_details.c.workflow_title,
        run_details.c.labels,
    ).select_from(
        gates.join(runs, runs.c.id == gates.c.run_id).join(
            run_details, run_details.c.run_id == gates.c.run_id
        )
    )


def _one_group(query: GateQuery, *, is_closed: bool, after: GateCursor | None) -> Select[Any]:
    statement = _select_gates().where(gates.c.namespace == query.namespace)
    if query.state is not None:
        statement = statement.where(gates.c.state == query.state)
    elif is_closed:
        statement = statement.where(gates.c.state != "pending")
    else:
        # Written out, so that the planner sees that the index of pending gates fits.
        statement = statement.where(gates.c.state == literal("pending", literal_execute=True))
    for column, wanted in (
        (gates.c.run_id, query.run_id),
        (gates.c.gate_type, query.gate_type),
        (runs.c.workflow_name, query.workflow_name),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if query.min_age is not None:
        statement = statement.where(gates.c.opened_at <= func.clock_timestamp() - query.min_age)
    if after is not None:
        place = tuple_(literal(after.opened_at), literal(after.id))
        statement = statement.where(tuple_(gates.c.opened_at, gates.c.id) > place)
    return statement


def _weight() -> Weight:
    votes = (
        select(func.coalesce(func.sum(func.octet_length(gate_votes.c.feedback)), 0))
        .where(gate_votes.c.run_id == gates.c.run_id, gate_votes.c.gate_id == gates.c.id)
        .correlate(gates)
        .scalar_subquery()
    )
    texts = weight_of([gates.c.prompt, gates.c.feedback], [gates.c.options, run_details.c.labels])
    return texts + votes


async def _with_votes(conn: AsyncConnection, rows: Iterable[RowMapping]) -> list[GateRow]:
    names = [each.name for each in fields(GateRow) if each.name != "votes"]
    found = [GateRow(**{name: row[name] for name in names}) for row in rows]
    votes: dict[str, list[VoteRow]] = defaultdict(list)
    if found:
        statement = (
            select(gate_votes)
            .where(
                gate_votes.c.run_id.in_({gate.run_id for gate in found}),
                gate_votes.c.gate_id.in_([gate.id for gate in found]),
            )
            .order_by(gate_votes.c.gate_id, gate_votes.c.n)
        )
        for row in (await conn.execute(statement)).mappings():
            votes[row["gate_id"]].append(VoteRow(**{name: row[name] for name in _VOTE}))
    return [_voted(gate, votes[gate.id]) for gate in found]


def _voted(gate: GateRow, votes: list[VoteRow]) -> GateRow:
    return replace(gate, votes=votes) if votes else gate

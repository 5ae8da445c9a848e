"""Finding runs by a filter, with bounded effort whatever the filter and however many runs.

A call walks along one index in the order of creation, over at most so many runs, and checks each
against the rest of the filter. Where the walk was too short to fill a page, the caller goes on from
where it ended: a page may be short, even empty, and yet not the last (ADR-0016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, lateral, literal, literal_column, select, true, union_all

from runkon_server.core.filter_narrowing import narrow
from runkon_server.core.filters import EVERYTHING, is_relative
from runkon_server.store.reads.conditions import condition
from runkon_server.store.tables import run_details, run_labels, runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.filter_narrowing import Narrowing
    from runkon_server.core.filters import Filter

EXAMINED_MAX: Final = 2_500
"""Runs that a page looks at."""
COUNTED_MAX: Final = 100_000
"""Runs that a count looks at."""
_BRANCHES_MAX: Final = 32
"""Pairs of workflow and status that are walked along side by side."""


class FoundIds(NamedTuple):
    """Ids of runs in their order, and the last run that was looked at if others may follow it."""

    ids: list[str]
    examined: str | None


class Counted(NamedTuple):
    """How many runs were found, and whether all were looked at."""

    number: int
    is_exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs of a namespace, from where on, in which order."""

    namespace: str
    wanted: Filter = EVERYTHING
    after: str | None = None
    newest_first: bool = True


class _Walk(NamedTuple):
    """A way through the runs: ids from an index, one SELECT per stretch of it."""

    stretches: Sequence[Select[Any]]
    is_decisive: bool
    """Whether status and workflow need not be checked again."""


async def find_ids(
    conn: AsyncConnection, query: RunQuery, *, limit: int, examine: int = EXAMINED_MAX
) -> FoundIds:
    """Ids of runs that meet the filter, at most `limit`, after looking at `examine` at most."""
    narrowing = narrow(query.wanted)
    if narrowing.is_impossible:
        return FoundIds([], None)
    walk = await _shortest(conn, query, narrowing, examine)
    met = await _met(conn, query, narrowing, walk, examine)
    ids = list((await conn.execute(met.limit(limit))).scalars())
    if len(ids) == limit:
        return FoundIds(ids, ids[-1])
    # Of ids in the order of text the last one is the extreme one.
    ends = _merged(query, walk, examine).subquery("ends")
    last = func.min(ends.c.id) if query.newest_first else func.max(ends.c.id)
    number, end = (await conn.execute(select(func.count(), last).select_from(ends))).one()
    return FoundIds(ids, end if number == examine else None)


async def count_runs(
    conn: AsyncConnection, query: RunQuery, *, examine: int = COUNTED_MAX
) -> Counted:
    """How many runs meet the filter, after looking at `examine` at most, the newest."""
    narrowing = narrow(query.wanted)
    if narrowing.is_impossible:
        return Counted(0, is_exact=True)
    walk = await _shortest(conn, query, narrowing, examine)
    met = (await _met(conn, query, narrowing, walk, examine)).subquery("met")
    number: int = (await conn.execute(select(func.count()).select_from(met))).scalar_one()
    if number == examine:
        return Counted(number, is_exact=False)
    if walk.is_decisive and not narrowing.rest:
        return Counted(number, is_exact=True)
    ends = _merged(query, walk, examine).subquery("ends")
    looked_at = (await conn.execute(select(func.count()).select_from(ends))).scalar_one()
    return Counted(number, looked_at < examine)


async def _shortest(
    conn: AsyncConnection, query: RunQuery, narrowing: Narrowing, examine: int
) -> _Walk:
    """The walk with the fewest runs, as far as that can be told by looking at `examine` of each."""
    walks = _walks(query, narrowing)
    if len(walks) == 1:
        return walks[0]
    lengths = [
        select(func.count()).select_from(_merged(query, walk, examine).subquery()).scalar_subquery()
        for walk in walks
    ]
    found = (await conn.execute(select(*lengths))).one()
    return min(zip(found, walks, strict=True), key=lambda pair: pair[0])[1]


def _walks(query: RunQuery, narrowing: Narrowing) -> list[_Walk]:
    """Every index that leads to all runs in question, the most promising one first."""
    namespace = runs.c.namespace == query.namespace
    walks = []
    workflows, statuses = narrowing.workflows, sorted(narrowing.statuses)
    if workflows is not None and len(workflows) * len(statuses) <= _BRANCHES_MAX:
        ids = [
            select(runs.c.id).where(
                namespace, runs.c.workflow_name == workflow, runs.c.status == status
            )
            for workflow in sorted(workflows)
            for status in statuses
        ]
        walks.append(_Walk(ids, is_decisive=True))
    elif not narrowing.is_any_status:
        ids = [select(runs.c.id).where(namespace, runs.c.status == each) for each in statuses]
        walks.append(_Walk(ids, is_decisive=workflows is None))
    for label in narrowing.labels:
        labelled = select(run_labels.c.run_id.label("id")).where(
            run_labels.c.namespace == query.namespace,
            run_labels.c.key == label.key,
            run_labels.c.value == label.value,
        )
        walks.append(_Walk([labelled], is_decisive=False))
    if narrowing.parent is not None:
        below = select(runs.c.id).where(runs.c.parent_workflow_run_id == narrowing.parent)
        walks.append(_Walk([below], is_decisive=False))
    return walks or [_Walk([select(runs.c.id).where(namespace)], is_decisive=True)]


def _merged(query: RunQuery, walk: _Walk, examine: int) -> Select[Any]:
    """The first ids of all stretches together, in order."""
    parts = [_first(query, stretch, examine) for stretch in walk.stretches]
    if len(parts) == 1:
        return parts[0]
    merged = union_all(*(select(part.subquery().c.id) for part in parts)).subquery("merged")
    return select(merged.c.id).order_by(_order(query, merged.c.id)).limit(examine)


def _first(query: RunQuery, stretch: Select[Any], examine: int) -> Select[Any]:
    id_column = stretch.selected_columns[0]
    if query.after is not None:
        stretch = stretch.where(
            id_column < query.after if query.newest_first else id_column > query.after
        )
    return stretch.order_by(_order(query, id_column)).limit(examine)


def _order(query: RunQuery, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return column.desc() if query.newest_first else column.asc()


async def _met(
    conn: AsyncConnection, query: RunQuery, narrowing: Narrowing, walk: _Walk, examine: int
) -> Select[Any]:
    """The ids along a walk of those runs that meet the filter."""
    examined = _merged(query, walk, examine).subquery("examined")
    terms = narrowing.rest if walk.is_decisive else (query.wanted,)
    if not terms:
        return select(examined.c.id).order_by(_order(query, examined.c.id))
    now = await _now(conn) if is_relative(query.wanted) else None
    # OFFSET 0 keeps the planner from joining whole tables to the few runs that are looked at.
    checked = lateral(
        select(literal(1).label("one"))
        .select_from(_with_details())
        .where(runs.c.id == examined.c.id, runs.c.namespace == query.namespace)
        .where(condition(terms, now))
        .offset(literal_column("0"))
    )
    joined = examined.join(checked, true())
    return select(examined.c.id).select_from(joined).order_by(_order(query, examined.c.id))


def _with_details() -> FromClause:
    return runs.join(run_details, run_details.c.run_id == runs.c.id)


async def _now(conn: AsyncConnection) -> datetime:
    now: datetime = (await conn.execute(select(func.clock_timestamp()))).scalar_one()
    return now

"""The ways to the runs that a filter describes, as statements.

Making a statement costs more than running it, and a list asks the same again for every page. So
those of the last filters are kept, and all that differs between their pages are parameters:
`namespace`, `after` (where the page before ended), and `limit`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    Integer,
    Text,
    bindparam,
    func,
    lateral,
    literal_column,
    select,
    true,
    union_all,
)

from runkon_server.core.filter_narrowing import narrow
from runkon_server.core.filters import All
from runkon_server.store.reads.conditions import Sources, condition, needed
from runkon_server.store.tables import run_details, run_labels, runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, FromClause, Select, Table
    from sqlalchemy.sql.selectable import LateralFromClause

    from runkon_server.core.filters import Filter

PROBED: Final = 500
"""Runs of every index that are looked at to choose one."""
_BRANCHES_MAX: Final = 32
"""Pairs of workflow and status that are walked along side by side."""
_KEPT: Final = 128
"""Filters whose statements are kept; those of a long one take some 100 KB."""
_NAMESPACE: Final = bindparam("namespace", type_=Text)
_AFTER: Final = bindparam("after", type_=Text)


class Walk(NamedTuple):
    """The statements of one way through the runs."""

    met: Select[Any]
    """The ids of those that meet the filter, in order, at most `limit`."""
    number: Select[Any]
    """How many meet it."""
    end: Select[Any]
    """The last run that was looked at; no row if there was no more to look at."""
    is_decisive: bool
    """Whether all runs on it meet the filter."""


class Walks(NamedTuple):
    """The ways that lead to every run of a filter; none if no run can meet it."""

    walks: tuple[Walk, ...]
    probe: Select[Any] | None
    """For every walk, how many of its first runs there are, and which is the last of them; None
    where there is no choice."""


class _Index(NamedTuple):
    """Runs in the order of creation: one SELECT of ids per stretch of an index."""

    stretches: Sequence[Select[Any]]
    unchecked: tuple[Filter, ...]
    """What runs there may still fail; nothing: all of them meet the filter."""
    is_of_runs: bool = True
    """Whether it is one of `workflow_runs`, any column of which can be taken on the way."""


class _Order(NamedTuple):
    """In which order, and whether from the first run on or after another."""

    newest_first: bool
    goes_on: bool

    def by(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return column.desc() if self.newest_first else column.asc()

    def extreme(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """The last one of several."""
        return func.min(column) if self.newest_first else func.max(column)

    def __call__(self, stretch: Select[Any]) -> Select[Any]:
        """The ids of a stretch, which come first in it."""
        run_id = stretch.selected_columns[0]
        if self.goes_on:
            stretch = stretch.where(run_id < _AFTER if self.newest_first else run_id > _AFTER)
        return stretch.order_by(self.by(run_id))


@lru_cache(_KEPT)
def plan_walks(wanted: Filter, *, newest_first: bool, goes_on: bool, examine: int) -> Walks:
    """The ways to the runs that meet a filter.

    Args:
        goes_on: whether `after` is given.
        examine: how many runs a walk looks at.
    """
    order = _Order(newest_first, goes_on)
    indexes = list(_indexes(wanted))
    probe = _probe(order, indexes) if len(indexes) > 1 else None
    return Walks(tuple(_walk(order, index, examine) for index in indexes), probe)


def _indexes(wanted: Filter) -> Iterator[_Index]:
    """Every index that leads to all runs in question."""
    narrowing = narrow(wanted)
    if narrowing.is_impossible:
        return
    in_namespace = select(runs.c.id).where(runs.c.namespace == _NAMESPACE)
    workflows, statuses = narrowing.workflows, sorted(narrowing.statuses)
    # Of a filter that names no workflow, its statuses decide all that is not in the rest.
    unchecked = narrowing.rest if workflows is None else (wanted,)
    is_narrow = False
    if workflows is not None and len(workflows) * len(statuses) <= _BRANCHES_MAX:
        pairs = ((workflow, status) for workflow in sorted(workflows) for status in statuses)
        is_narrow = True
        yield _Index(
            [in_namespace.where(runs.c.workflow_name == w, runs.c.status == s) for w, s in pairs],
            narrowing.rest,
        )
    elif not narrowing.is_any_status:
        is_narrow = True
        yield _Index([in_namespace.where(runs.c.status == each) for each in statuses], unchecked)
    for label in narrowing.labels:
        is_narrow = True
        labelled = select(run_labels.c.run_id.label("id")).where(
            run_labels.c.namespace == _NAMESPACE,
            run_labels.c.key == label.key,
            run_labels.c.value == label.value,
        )
        yield _Index([labelled], _without(wanted, label), is_of_runs=False)
    if narrowing.parent is not None:
        is_narrow = True
        below = in_namespace.where(runs.c.parent_workflow_run_id == narrowing.parent)
        yield _Index([below], (wanted,))
    if not is_narrow:
        yield _Index([in_namespace], unchecked)


def _without(wanted: Filter, term: Filter) -> tuple[Filter, ...]:
    """The other terms of a filter that demands this one."""
    if isinstance(wanted, All):
        return tuple(each for each in wanted.terms if each != term)
    return () if wanted == term else (wanted,)


def _probe(order: _Order, indexes: Sequence[_Index]) -> Select[Any]:
    probes = []
    for index in indexes:
        first = _merged(order, index.stretches, PROBED).limit(_number(PROBED)).subquery()
        probes.append(select(func.count(), order.extreme(first.c.id)).subquery())
    joined: FromClause = probes[0]
    for probe in probes[1:]:
        joined = joined.join(probe, true())
    return select(*(column for probe in probes for column in probe.c)).select_from(joined)


def _walk(order: _Order, index: _Index, examine: int) -> Walk:
    met = _met(order, index, examine)
    counted = met.subquery()
    end = _merged(order, index.stretches, examine).limit(_number(1)).offset(_number(examine - 1))
    return Walk(
        met=met.order_by(order.by(met.selected_columns[0])).limit(bindparam("limit")),
        number=select(func.count()).select_from(counted),
        end=end,
        is_decisive=not index.unchecked,
    )


def _met(order: _Order, index: _Index, examine: int) -> Select[Any]:
    """The ids of the runs on an index that meet the filter."""
    wants = needed(index.unchecked)
    stretches = index.stretches
    if index.is_of_runs:
        carried = [runs.c[name] for name in wants.runs]
        stretches = [each.add_columns(*carried) for each in stretches]
    examined = _merged(order, stretches, examine).limit(_number(examine)).subquery("examined")
    sources = Sources(examined.c.id, dict(examined.c.items()), {})
    source: FromClause = examined
    if wants.runs and not index.is_of_runs:
        run = _looked_up(runs, runs.c.id, examined.c.id, wants.runs)
        source = source.join(run, true())
        sources = sources._replace(runs=dict(run.c.items()))
    if wants.details:
        details = _looked_up(run_details, run_details.c.run_id, examined.c.id, wants.details)
        source = source.join(details, true())
        sources = sources._replace(details=dict(details.c.items()))
    met = select(examined.c.id).select_from(source)
    return met.where(condition(index.unchecked, sources)) if index.unchecked else met


def _merged(order: _Order, stretches: Sequence[Select[Any]], examine: int) -> Select[Any]:
    """The ids of all stretches together, in order; the caller sets a limit of at most `examine`."""
    parts = [order(stretch) for stretch in stretches]
    if len(parts) == 1:
        return parts[0]
    firsts = [part.limit(_number(examine)).subquery() for part in parts]
    merged = union_all(*(select(*first.c) for first in firsts)).subquery("merged")
    return select(*merged.c).order_by(order.by(merged.c.id))


def _looked_up(
    table: Table, key: ColumnElement[str], run_id: ColumnElement[str], columns: Sequence[str]
) -> LateralFromClause:
    """Columns of the one row of another table.

    OFFSET 0 keeps the planner from joining the whole table to the few runs that are looked at.
    """
    row = select(*(table.c[name] for name in columns)).where(key == run_id)
    return lateral(row.offset(_number(0)))


def _number(number: int) -> ColumnElement[int]:
    """A bound that the planner sees even where it plans once for all parameters."""
    return literal_column(str(number), Integer)

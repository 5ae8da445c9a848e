"""Filters as SQL. Every value is a bound parameter."""

from __future__ import annotations

from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, exists, func, or_, true

from runkon_server.core import filters
from runkon_server.core.filters import All, Comparison, IsSet, LabelIs, Not, Relative
from runkon_server.store.tables import run_details, run_labels, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement

    from runkon_server.core.filters import Filter

_OPERATORS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "=": eq,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "status": runs.c.status,
    "workflow": runs.c.workflow_name,
    "workflow_version": run_details.c.workflow_version,
    "key": run_details.c.key,
    "trigger": run_details.c.trigger,
    "started_by": run_details.c.started_by,
    "parent_run_id": runs.c.parent_run_id,
    "parent_workflow_run_id": runs.c.parent_workflow_run_id,
    "root_run_id": func.coalesce(run_details.c.root_run_id, runs.c.id),
    "priority": runs.c.priority,
    "epoch": runs.c.epoch,
    "depth": run_details.c.depth,
    "dry_run": runs.c.dry_run,
    "dismissed": runs.c.dismissed,
    "create_time": runs.c.created_at,
    "start_time": runs.c.started_at,
    "end_time": runs.c.ended_at,
}
"""By the field's name; empty texts mean that there is none."""


def condition(terms: Iterable[Filter], now: datetime | None) -> ColumnElement[bool]:
    """Whether all of the terms hold, for a SELECT from `workflow_runs` and `run_details`.

    Args:
        now: the database's clock; needed only if a term is relative to it.
    """
    return and_(true(), *(_clause(term, now) for term in terms))


def _clause(term: Filter, now: datetime | None) -> ColumnElement[bool]:
    match term:
        case Comparison(field, "!=", value):
            return _clause(Comparison(field, "=", value), now).is_not(true())
        case Comparison(field, operator, value):
            wanted = _instant(value, now) if isinstance(value, Relative) else value
            return _OPERATORS[operator](_COLUMNS[field], wanted)
        case IsSet(field):
            return _is_set(_COLUMNS[field])
        case LabelIs(key, value):
            return _labelled(key, value)
        case Not(inner):
            return _clause(inner, now).is_not(true())
        case All(terms):
            return and_(true(), *(_clause(each, now) for each in terms))
        case filters.Any(terms):
            return or_(*(_clause(each, now) for each in terms))


def _instant(value: Relative, now: datetime | None) -> datetime:
    assert now is not None
    return now + value.offset


def _is_set(column: ColumnElement[Any]) -> ColumnElement[bool]:
    if column.type.python_type is str:
        return func.coalesce(column, "") != ""
    return column.is_not(None)


def _labelled(key: str, value: str | None) -> ColumnElement[bool]:
    if value is None:
        known: ColumnElement[bool] = run_details.c.labels.has_key(key)
        return known
    return exists().where(
        run_labels.c.namespace == runs.c.namespace,
        run_labels.c.key == key,
        run_labels.c.value == value,
        run_labels.c.run_id == runs.c.id,
    )

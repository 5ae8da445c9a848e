"""Filters as SQL. Every value is a bound parameter.

What a condition compares is taken from `Sources`: whoever finds runs knows which columns it has at
hand, and reads a second table only for those that it lacks.
"""

from __future__ import annotations

from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, and_, func, literal, or_, true

from runkon_server.core import filters
from runkon_server.core.filters import All, Comparison, IsSet, LabelIs, Not, Relative, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import ColumnElement

    from runkon_server.core.filters import Filter, Value

_OPERATORS: Final[dict[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "=": eq,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
_OF_RUNS: Final = {
    "status": "status",
    "workflow": "workflow_name",
    "parent_run_id": "parent_run_id",
    "parent_workflow_run_id": "parent_workflow_run_id",
    "priority": "priority",
    "epoch": "epoch",
    "dry_run": "dry_run",
    "dismissed": "dismissed",
    "create_time": "created_at",
    "start_time": "started_at",
    "end_time": "ended_at",
}
"""Columns of `workflow_runs` by the field's name; empty texts mean that there is none."""
_OF_DETAILS: Final = {
    "workflow_version": "workflow_version",
    "key": "key",
    "trigger": "trigger",
    "started_by": "started_by",
    "root_run_id": "root_run_id",
    "depth": "depth",
}
"""Columns of `run_details`, likewise."""


class Needed(NamedTuple):
    """The columns that terms look at, in alphabetical order."""

    runs: tuple[str, ...]
    details: tuple[str, ...]


class Sources(NamedTuple):
    """Where a run's values are found, in a SELECT that has it."""

    run_id: ColumnElement[str]
    runs: Mapping[str, ColumnElement[Any]]
    """Columns of `workflow_runs` by their names, at least those that are needed."""
    details: Mapping[str, ColumnElement[Any]]
    """Those of `run_details`."""


def needed(terms: Iterable[Filter]) -> Needed:
    """Which columns `condition` will want from its sources."""
    of_runs, of_details = set(), set()
    for leaf in (leaf for term in terms for leaf in leaves(term)):
        if isinstance(leaf, LabelIs):
            of_details.add("labels")
        elif leaf.field in _OF_RUNS:
            of_runs.add(_OF_RUNS[leaf.field])
        else:
            of_details.add(_OF_DETAILS[leaf.field])
    return Needed(tuple(sorted(of_runs)), tuple(sorted(of_details)))


def condition(terms: Iterable[Filter], sources: Sources) -> ColumnElement[bool]:
    """Whether all of the terms hold; `now` is when the transaction began, by the database."""
    return and_(true(), *(_clause(term, sources) for term in terms))


def _clause(term: Filter, sources: Sources) -> ColumnElement[bool]:
    match term:
        case Comparison(field, "!=", value):
            return _clause(Comparison(field, "=", value), sources).is_not(true())
        case Comparison(field, operator, value):
            return _OPERATORS[operator](_column(field, sources), _bound(value))
        case IsSet(field):
            return _is_set(_column(field, sources))
        case LabelIs(key, value):
            return _labelled(key, value, sources)
        case Not(inner):
            return _clause(inner, sources).is_not(true())
        case All(terms):
            return and_(true(), *(_clause(each, sources) for each in terms))
        case filters.Any(terms):
            return or_(*(_clause(each, sources) for each in terms))


def _bound(value: Value) -> object:
    match value:
        case Relative(offset):
            return func.now() + offset
        case bool():
            return value
        case int():
            # Of 64 bits whatever the column has: PostgreSQL refuses a value that its type lacks.
            return literal(value, BigInteger())
        case _:
            return value


def _column(field: str, sources: Sources) -> ColumnElement[Any]:
    if field in _OF_RUNS:
        return sources.runs[_OF_RUNS[field]]
    column = sources.details[_OF_DETAILS[field]]
    return func.coalesce(column, sources.run_id) if field == "root_run_id" else column


def _is_set(column: ColumnElement[Any]) -> ColumnElement[bool]:
    if column.type.python_type is str:
        return func.coalesce(column, "") != ""
    return column.is_not(None)


def _labelled(key: str, value: str | None, sources: Sources) -> ColumnElement[bool]:
    # The row of details has all labels of a run; their own table, one look for each of them.
    labels = sources.details["labels"]
    found: ColumnElement[bool]
    found = labels.has_key(key) if value is None else labels[key].astext == value
    return found

"""Conditions on runs, as lists take them: what a parsed filter is made of, and its fields.

A condition is true or false of every run, never unknown: comparing a value that a run does not have
is false, and `!=` is the opposite of `=`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
STATUSES: Final = (
    "pending",
    "running",
    "waiting",
    "cancelling",
    "completed",
    "failed",
    "cancelled",
    "needs_resume",
)


class Kind(StrEnum):
    """What a field holds."""

    STATUS = "a status"
    TEXT = "a text"
    NUMBER = "a whole number"
    FLAG = "true or false"
    INSTANT = "a time"


FIELDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "status": Kind.STATUS,
        "workflow": Kind.TEXT,
        "workflow_version": Kind.NUMBER,
        "key": Kind.TEXT,
        "trigger": Kind.TEXT,
        "started_by": Kind.TEXT,
        "parent_run_id": Kind.TEXT,
        "parent_workflow_run_id": Kind.TEXT,
        "root_run_id": Kind.TEXT,
        "priority": Kind.NUMBER,
        "epoch": Kind.NUMBER,
        "depth": Kind.NUMBER,
        "dry_run": Kind.FLAG,
        "dismissed": Kind.FLAG,
        "create_time": Kind.INSTANT,
        "start_time": Kind.INSTANT,
        "end_time": Kind.INSTANT,
    }
)
"""Every field by its name; labels are `labels.KEY` besides."""
LABELS: Final = "labels"


@dataclass(frozen=True, slots=True)
class Relative:
    """An instant that is so far from the database's present."""

    offset: timedelta


Value: TypeAlias = "str | int | bool | datetime | Relative"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against a value; only numbers and instants have an order."""

    field: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class IsSet:
    """Whether the run has a value there at all."""

    field: str


@dataclass(frozen=True, slots=True)
class LabelIs:
    """A label with exactly this value; None: any value."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    term: Filter


@dataclass(frozen=True, slots=True)
class All:
    """Every one of the terms; none is no condition."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of the terms."""

    terms: tuple[Filter, ...]


Leaf: TypeAlias = Comparison | IsSet | LabelIs
Filter: TypeAlias = Leaf | Not | All | Any
EVERYTHING: Final = All(())


def leaves(term: Filter) -> Iterator[Leaf]:
    """Every comparison in it."""
    match term:
        case Not(inner):
            yield from leaves(inner)
        case All(terms) | Any(terms):
            for each in terms:
                yield from leaves(each)
        case leaf:
            yield leaf


def is_relative(term: Filter) -> bool:
    """Whether its meaning changes with time."""
    return any(
        isinstance(leaf, Comparison) and isinstance(leaf.value, Relative) for leaf in leaves(term)
    )

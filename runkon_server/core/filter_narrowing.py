"""What a filter says about the few fields that runs can be looked up by.

Whoever looks for runs walks along one of them and checks the rest of the filter run by run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runkon_server.core.filters import (
    STATUSES,
    All,
    Any,
    Comparison,
    Filter,
    IsSet,
    LabelIs,
    Not,
    leaves,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERY_STATUS: Final = frozenset(STATUSES)


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What every run that meets the filter has; None, or nothing, where that cannot be said."""

    statuses: frozenset[str] = _EVERY_STATUS
    workflows: frozenset[str] | None = None
    labels: tuple[LabelIs, ...] = ()
    """Each with a value."""
    parent: str | None = None
    """The run above."""
    rest: tuple[Filter, ...] = field(default=())
    """What status and workflow alone do not decide."""

    @property
    def is_impossible(self) -> bool:
        """Whether no run can meet the filter."""
        return not self.statuses or self.workflows == frozenset()

    @property
    def is_any_status(self) -> bool:
        """Whether the filter says nothing about the status."""
        return self.statuses == _EVERY_STATUS


def narrow(wanted: Filter) -> Narrowing:
    """Look at what must hold in any case."""
    statuses, workflows, parent = _EVERY_STATUS, None, None
    labels: list[LabelIs] = []
    rest: list[Filter] = []
    for term in _conjuncts(wanted):
        names = {_name(leaf) for leaf in leaves(term)}
        if names == {"status"}:
            statuses &= {each for each in STATUSES if _holds(term, each)}
            continue
        among = _among(term) if names == {"workflow"} else None
        if among is not None:
            workflows = among if workflows is None else workflows & among
            continue
        rest.append(term)
        match term:
            case LabelIs(value=str()):
                labels.append(term)
            case Comparison("parent_workflow_run_id", "=", str() as run_id):
                parent = run_id
            case _:
                pass
    return Narrowing(statuses, workflows, tuple(labels), parent, tuple(rest))


def _conjuncts(term: Filter) -> Iterator[Filter]:
    if isinstance(term, All):
        for each in term.terms:
            yield from _conjuncts(each)
    else:
        yield term


def _name(leaf: Comparison | IsSet | LabelIs) -> str:
    return "labels" if isinstance(leaf, LabelIs) else leaf.field


def _holds(term: Filter, status: str) -> bool:
    """Whether a term about nothing but the status holds for this one."""
    match term:
        case Not(inner):
            return not _holds(inner, status)
        case All(terms):
            return all(_holds(each, status) for each in terms)
        case Any(terms):
            return any(_holds(each, status) for each in terms)
        case Comparison(operator=operator, value=value):
            return (value == status) is (operator == "=")
        case _:
            return True  # every run has a status


def _among(term: Filter) -> frozenset[str] | None:
    """The names that a term about nothing but the workflow allows; None: all but some."""
    match term:
        case Comparison(operator="=", value=str() as name):
            return frozenset({name})
        case Any(terms):
            found = [_among(each) for each in terms]
            known = [each for each in found if each is not None]
            return frozenset().union(*known) if len(known) == len(found) else None
        case _:
            return None

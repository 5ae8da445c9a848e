"""The items of a foreach and what waits for what: fixed when they have been collected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runkon_server.core.facts import Dependency, Item

PAIRS_MAX: Final = 100_000
"""Pairs of items of which one waits for the other; a name that many share stands for them all."""
_NAMES_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Fan:
    """Items by ordinal, with the ordinals that each waits for and that wait for it, ascending."""

    items: tuple[Item, ...]
    blockers: tuple[tuple[int, ...], ...]
    dependents: tuple[tuple[int, ...], ...]


class CycleError(ValueError):
    """Items wait for one another in a circle; the message names them."""


class TangleError(ValueError):
    """More items wait for one another than can be kept; the message says how many may."""


def fan_of(items: Iterable[Item], blockers: Sequence[tuple[int, ...]]) -> Fan:
    """A fan from its items and what each waits for."""
    known = tuple(items)
    dependents: list[list[int]] = [[] for _ in known]
    for ordinal, waits_for in enumerate(blockers):
        for blocker in waits_for:
            dependents[blocker].append(ordinal)
    return Fan(known, tuple(blockers), tuple(map(tuple, dependents)))


def collect(
    items: Iterable[Item], dependencies: Iterable[Dependency], *, breaks_cycles: bool
) -> tuple[Fan, str | None]:
    """A fan from what a provider found, and what people should be warned of.

    The same item twice counts once. A blocker that is not among the items is satisfied.

    Args:
        items: in the provider's order.
        dependencies: who waits for whom, by `item_id`.
        breaks_cycles: drop what closes a circle, instead of refusing it.

    Raises:
        CycleError: there is a circle and it must not be broken.
        TangleError: there are more than `PAIRS_MAX` pairs.
    """
    by_identity: dict[tuple[str, str], Item] = {}
    for item in items:
        by_identity.setdefault((item.item_type, item.item_id), item)
    known = tuple(by_identity.values())
    by_id: dict[str, list[int]] = {}
    for ordinal, item in enumerate(known):
        by_id.setdefault(item.item_id, []).append(ordinal)
    waits_for: list[set[int]] = [set() for _ in known]
    unknown: dict[str, None] = {}
    pairs = 0
    for blocker, dependent in dependencies:
        if blocker not in by_id:
            unknown[blocker] = None
        blockers, dependents = by_id.get(blocker, ()), by_id.get(dependent, ())
        pairs += len(blockers) * len(dependents)
        if pairs > PAIRS_MAX:
            raise TangleError(f"items wait for one another in more than {PAIRS_MAX} pairs")
        for ordinal in dependents:
            waits_for[ordinal].update(blockers)
    warnings = []
    if unknown:
        warnings.append(f"blockers that are no items count as done: {_listed(unknown)}")
    broken = _break_cycles(known, waits_for, breaks_cycles=breaks_cycles)
    if broken:
        warnings.append(f"items wait for one another in a circle: {_listed(broken)}")
    fan = fan_of(known, [tuple(sorted(each)) for each in waits_for])
    return fan, "; ".join(warnings) or None


def _break_cycles(
    items: Sequence[Item], waits_for: list[set[int]], *, breaks_cycles: bool
) -> list[str]:
    """Drop what closes each circle, at its lowest ordinal; the circles, as texts."""
    open_blockers = [set(each) for each in waits_for]
    dependents: list[list[int]] = [[] for _ in items]
    for ordinal, each in enumerate(waits_for):
        for blocker in each:
            dependents[blocker].append(ordinal)
    free = [ordinal for ordinal, each in enumerate(open_blockers) if not each]
    is_done = [False] * len(items)
    found: list[str] = []
    path: dict[int, None] = {}
    lowest = 0
    while True:
        while free:
            ordinal = free.pop()
            is_done[ordinal] = True
            for dependent in dependents[ordinal]:
                open_blockers[dependent].discard(ordinal)
                if not open_blockers[dependent] and not is_done[dependent]:
                    free.append(dependent)
        while lowest < len(items) and is_done[lowest]:
            lowest += 1
        if lowest == len(items):
            return found
        while path and is_done[next(reversed(path))]:
            path.popitem()
        circle = _cut_circle(path, lowest, open_blockers)
        text = _shown([items[ordinal].item_id for ordinal in circle])
        if not breaks_cycles:
            raise CycleError(text)
        found.append(text)
        first = min(circle)
        closing = open_blockers[first] & set(circle)
        waits_for[first] -= closing
        open_blockers[first] -= closing
        if not open_blockers[first]:
            free.append(first)


def _cut_circle(path: dict[int, None], lowest: int, open_blockers: Sequence[set[int]]) -> list[int]:
    """Follow a path to a circle, which every item that is left leads to, and cut that off.

    What remains of the path leads to the next one: of two neighbours the later is done first.
    """
    at = min(open_blockers[next(reversed(path))]) if path else lowest
    while at not in path:
        path[at] = None
        at = min(open_blockers[at])
    circle = [path.popitem()[0]]
    while circle[-1] != at:
        circle.append(path.popitem()[0])
    return circle[::-1]


def _shown(circle: Sequence[str]) -> str:
    text = " → ".join(circle[:_NAMES_SHOWN])
    if len(circle) > _NAMES_SHOWN:
        return f"{text} → … ({len(circle)} items)"
    return f"{text} → {circle[0]}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    shown = ", ".join(every[:_NAMES_SHOWN])
    return shown if len(every) <= _NAMES_SHOWN else f"{shown} and {len(every) - _NAMES_SHOWN} more"

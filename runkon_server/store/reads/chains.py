"""Reading where a run is, down through the child runs that it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.store.tables import items, runs, steps

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

DEPTH_MAX: Final = 5
"""Runs below a root."""
_OPEN: Final = ("running", "waiting")


class Chain(NamedTuple):
    """The innermost step of a run that has not ended."""

    run_id: str
    """The run that the step belongs to."""
    step_id: str
    step_name: str
    iteration: int
    workflow_names: tuple[str, ...]
    """From the run that was asked for down to the one that the step belongs to."""


class _Place(NamedTuple):
    run_id: str
    workflow_name: str
    step_id: str
    step_name: str
    iteration: int
    child_run_id: str | None


# A step that called a workflow names its child itself; a `foreach` does so by its items, of which
# the first that runs stands for all.
_ITEM_CHILD: Final = (
    select(items.c.child_run_id)
    .where(
        items.c.workflow_run_id == steps.c.workflow_run_id,
        items.c.step_run_id == steps.c.id,
        items.c.status == "running",
    )
    .order_by(items.c.ordinal)
    .limit(1)
    .correlate(steps)
    .scalar_subquery()
)
_PLACES: Final = (
    select(
        runs.c.id,
        runs.c.workflow_name,
        steps.c.id,
        steps.c.step_name,
        steps.c.iteration,
        func.coalesce(steps.c.child_run_id, _ITEM_CHILD),
    )
    .join(steps, steps.c.workflow_run_id == runs.c.id)
    .where(
        runs.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_(),
        runs.c.ended_at.is_(None),
        steps.c.status.in_(_OPEN),
        steps.c.superseded_epoch.is_(None),
    )
    .order_by(runs.c.id, steps.c.at)
)


async def chains(conn: AsyncConnection, run_ids: Collection[str]) -> dict[str, Chain]:
    """Where each of these runs is; one without an open step is left out.

    One statement per level of children, however many runs are asked for. The levels are read one
    after the other, so a run that moves on meanwhile may be shown as it was a moment before.
    """
    found: dict[str, Chain] = {}
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {run_id: (run_id, ()) for run_id in run_ids}
    for _ in range(DEPTH_MAX + 1):
        if not wanted:
            break
        below: dict[str, tuple[str, tuple[str, ...]]] = {}
        for place in await _first_places(conn, list(wanted)):
            asked, names = wanted[place.run_id]
            names = (*names, place.workflow_name)
            found[asked] = Chain(
                place.run_id, place.step_id, place.step_name, place.iteration, names
            )
            if place.child_run_id is not None:
                below[place.child_run_id] = (asked, names)
        wanted = below
    return found


async def _first_places(conn: AsyncConnection, run_ids: list[str]) -> list[_Place]:
    """The first open step of each run in program order."""
    first: dict[str, _Place] = {}
    for row in await conn.execute(_PLACES, {"ids": run_ids}):
        place = _Place(*row)
        first.setdefault(place.run_id, place)
    return list(first.values())

"""From rows to state: the walk over the program once more, over steps that exist already."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, cast

from runkon_server.core.ids import BODY
from runkon_server.core.model import Carried, Frame, Memo, RunState, Setup, ended
from runkon_server.core.scratch import InconsistentRowsError, Scratch
from runkon_server.core.summary import counted
from runkon_server.core.variables import fixed_variables, reserved_names
from runkon_server.core.walk import settle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.model import RunStatus
    from runkon_server.core.plan import Plan
    from runkon_server.core.records import ItemRecord, RunRecord, RunRows, StepRecord

_CARRIED_ROLES = frozenset({"workflow", "foreach"})
TERMINAL = frozenset({"completed", "failed", "cancelled"})


def restore(plan: Plan, rows: RunRows) -> RunState:
    """The state of a run, from its rows alone; one without steps has not been started.

    The row's status is believed only where it is terminal: whoever records a cancel changes it
    before the cancel is applied. Timers are not read: which are open follows from the steps.

    Raises:
        InconsistentRowsError: the rows do not go together.
    """
    run = rows.run
    setup = setup_of(plan, run)
    if run.status in TERMINAL:
        return ended(setup, cast("RunStatus", run.status))
    standing = [record for record in rows.steps if record.superseded_epoch is None]
    metrics = dict(run.metrics)
    if not standing:
        return RunState(setup, "pending", metrics=metrics)
    state = RunState(
        setup,
        "running",
        frame=Frame(plan.body, BODY, (), 0, None),
        position=1 + max(record.position for record in rows.steps),
        counts=counted(standing),
        metrics=metrics,
    )
    places = by_place(standing)
    state.carry = _carry(rows, places)
    state = _walk(Scratch(state, places, rows.items), run)
    if state.phase != run.phase:
        raise InconsistentRowsError(f"run {run.run_id}: its {run.phase} section has no open step")
    lost = [at for at, (first, *_) in places.items() if first.epoch == run.epoch]
    if lost:
        raise InconsistentRowsError(f"run {run.run_id}: no way leads to {min(lost)}")
    if places and state.phase == "body":
        state.memo = memo_of(places)
    return state


def memo_of(places: dict[str, list[StepRecord]]) -> Memo | None:
    """What a resumed run has ahead of it; None: nothing."""
    groups = tuple(tuple(places[at]) for at in sorted(places))
    return Memo(groups) if groups else None


def carried(rows: RunRows, epoch: int) -> dict[str, Carried]:
    """By place: the failed children that the epoch, a normal resume, started again or will."""
    items: dict[str, list[ItemRecord]] = {}
    for item in rows.items:
        items.setdefault(item.step_run_id, []).append(item)
    found: dict[str, Carried] = {}
    for step in rows.steps:
        if step.superseded_epoch == epoch and step.fatal and step.role in _CARRIED_ROLES:
            own = sorted(items.get(step.id, ()), key=attrgetter("ordinal"))
            found[step.at] = Carried(step, tuple(own))
    return found


def _carry(rows: RunRows, places: dict[str, list[StepRecord]]) -> dict[str, Carried]:
    if rows.run.resume_mode != "normal":
        return {}
    return {at: each for at, each in carried(rows, rows.run.epoch).items() if at not in places}


def _walk(tx: Scratch, run: RunRecord) -> RunState:
    """Find the open step. A cancel that came after the body must not stop the walk in the body."""
    state = tx.state
    if run.body_outcome in (None, "cancelled"):
        state.cancel = run.cancel_reason
    settle(tx)
    state = tx.state
    state.cancel = run.cancel_reason
    if state.cancel is not None:
        state.status = "cancelling"
    return state


def setup_of(plan: Plan, run: RunRecord) -> Setup:
    """What stays the same in the epoch that the run's row names."""
    return Setup(
        plan=plan,
        run_id=run.run_id,
        workflow_name=run.workflow_name,
        epoch=run.epoch,
        dry_run=run.dry_run,
        fail_fast=run.fail_fast,
        grace_s=run.grace_s,
        inputs=run.inputs,
        variables=fixed_variables(run),
        reserved=reserved_names(plan, run),
        depth=run.depth,
        root_run_id=run.root_run_id or run.run_id,
    )


def by_place(records: Iterable[StepRecord]) -> dict[str, list[StepRecord]]:
    """Rows by place, in the order of their attempts."""
    places: dict[str, list[StepRecord]] = {}
    for record in records:
        found = places.get(record.at)
        if found is None:
            places[record.at] = [record]
        else:
            found.append(record)
    for found in places.values():
        if len(found) > 1:
            found.sort(key=_attempt)
    return places


def _attempt(record: StepRecord) -> int:
    return record.retry_count

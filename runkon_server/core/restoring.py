"""From rows to state: the walk over the program once more, over steps that exist already."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runkon_server.core.ids import BODY
from runkon_server.core.model import Frame, RunState, Setup, ended
from runkon_server.core.scratch import InconsistentRowsError, Scratch
from runkon_server.core.summary import counted
from runkon_server.core.variables import fixed_variables, reserved_names
from runkon_server.core.walk import settle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.model import RunStatus
    from runkon_server.core.plan import Plan
    from runkon_server.core.records import RunRecord, RunRows, StepRecord

_TERMINAL = frozenset({"completed", "failed", "cancelled"})


def restore(plan: Plan, rows: RunRows) -> RunState:
    """The state of a run, from its rows alone; one without steps has not been started.

    The row's status is believed only where it is terminal: whoever records a cancel changes it
    before the cancel is applied. Timers are not read: which are open follows from the steps.

    Raises:
        InconsistentRowsError: the rows do not go together.
    """
    run = rows.run
    setup = _setup(plan, run)
    if run.status in _TERMINAL:
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
    places = _by_place(standing)
    state = _walk(Scratch(state, places), run)
    if state.phase != run.phase:
        raise InconsistentRowsError(f"run {run.run_id}: its {run.phase} section has no open step")
    if places:
        raise InconsistentRowsError(f"run {run.run_id}: no way leads to {min(places)}")
    return state


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


def _setup(plan: Plan, run: RunRecord) -> Setup:
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
    )


def _by_place(records: Iterable[StepRecord]) -> dict[str, list[StepRecord]]:
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

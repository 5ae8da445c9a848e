"""Taking a finished run up again: what may be asked, and why it may be refused."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from runkon_server.core.decision import RunEnded
from runkon_server.core.ids import ALWAYS, BODY, on_fail_at
from runkon_server.core.model import Frame, RunState
from runkon_server.core.restoring import TERMINAL, by_place, carried, memo_of, setup_of
from runkon_server.core.scratch import Scratch
from runkon_server.core.summary import counted
from runkon_server.core.walk import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.core.decision import Decision
    from runkon_server.core.plan import Plan
    from runkon_server.core.records import RunRecord, RunRows, StepRecord

_QUALITY_GATE = "quality_gate"


class ResumeMode(StrEnum):
    """What a resume repeats."""

    NORMAL = "normal"
    """The steps whose failure failed the run, and the always section."""
    FROM_STEP = "from_step"
    """The same, and every step from one on."""
    RESTART = "restart"
    """Everything."""


class ResumeRefusal(StrEnum):
    """Why a run cannot be resumed as asked."""

    LIVE = "live"
    """It has not ended."""
    CANCELLED = "cancelled"
    """Which is final."""
    COMPLETED = "completed"
    """Only a restart takes a completed run up again."""
    NOTHING_TO_REPEAT = "nothing_to_repeat"
    """No step failed it but a loop's limit or a quality gate, which would fail it again."""
    UNKNOWN_STEP = "unknown_step"
    """The run has no such step."""
    SUPERSEDED_STEP = "superseded_step"
    """An earlier resume replaced the step."""


class ResumeRefusedError(ValueError):
    """A run cannot be resumed as asked; the message says which mode would do, if any does."""

    def __init__(self, refusal: ResumeRefusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


def resume(plan: Plan, rows: RunRows, mode: ResumeMode, step_id: str | None = None) -> Decision:
    """Open a new epoch of a finished run: supersede what is to be repeated, and go on.

    Rows are never reset: those that are repeated are marked, and the walk takes over the others
    where it comes to them. The inputs, the definition, `dry_run` and the depth stay as they are.

    Args:
        plan: of the definition that is pinned for the run.
        rows: all of the run.
        mode: what is repeated.
        step_id: with `FROM_STEP`, any row of the step from which on everything is repeated.

    Returns:
        A decision like that on a fact. Its `run` has the new `epoch` and `resume_mode`.

    Raises:
        ResumeRefusedError: the run cannot be resumed as asked; nothing is changed.
    """
    run = rows.run
    standing = [record for record in rows.steps if record.superseded_epoch is None]
    _refuse_by_status(run, mode)
    repeated = _repeated(rows, standing, mode, step_id)
    epoch = run.epoch + 1
    kept = [record for record in standing if record.id not in repeated]
    setup = setup_of(plan, replace(run, epoch=epoch))
    state = RunState(
        setup,
        "running",
        frame=Frame(plan.body, BODY, (), 0, None),
        position=1 + max((record.position for record in rows.steps), default=-1),
        counts=counted(standing),
        metrics=dict(run.metrics),
        memo=memo_of(by_place(kept)),
    )
    tx = Scratch(state)
    tx.run |= _columns(epoch, mode)
    tx.set_status("running")
    payload = {"workflow_name": run.workflow_name, "mode": mode.value}
    tx.event("run_resumed", payload if step_id is None else {**payload, "from_step_id": step_id})
    tx.supersede(record for record in standing if record.id in repeated)
    if mode is ResumeMode.NORMAL:
        marked = tuple(
            replace(record, superseded_epoch=epoch) if record.id in repeated else record
            for record in rows.steps
        )
        state.carry = carried(replace(rows, steps=marked), epoch)
    settle(tx)
    if tx.state.phase == "done":
        tx.order(RunEnded(status=tx.state.status))
    return tx.decision()


def _columns(epoch: int, mode: ResumeMode) -> dict[str, object]:
    """What an epoch begins with; None empties a column."""
    return {
        "epoch": epoch,
        "resume_mode": mode.value,
        "phase": "body",
        "body_outcome": None,
        "body_error": None,
        "error": None,
        "result_summary": None,
        "cancel_reason": None,
        "force": False,
        "blocked_on": None,
    }


def _refuse_by_status(run: RunRecord, mode: ResumeMode) -> None:
    if run.status not in TERMINAL:
        raise ResumeRefusedError(
            ResumeRefusal.LIVE, f"the run is {run.status}: only a run that has ended is resumed"
        )
    if run.status == "cancelled":
        raise ResumeRefusedError(
            ResumeRefusal.CANCELLED, "the run was cancelled, which is final: start a new one"
        )
    if run.status == "completed" and mode is not ResumeMode.RESTART:
        raise ResumeRefusedError(
            ResumeRefusal.COMPLETED, "the run completed: only mode RESTART repeats it"
        )


def _repeated(
    rows: RunRows, standing: Sequence[StepRecord], mode: ResumeMode, step_id: str | None
) -> set[str]:
    """Ids of the standing rows that the epoch supersedes at once."""
    if mode is ResumeMode.RESTART:
        return {record.id for record in standing}
    culprits = [record for record in standing if record.fatal]
    places = {record.at for record in culprits}
    places |= {on_fail_at(at) for at in places}
    repeated = {
        record.id for record in standing if record.at in places or record.at.startswith(ALWAYS)
    }
    if mode is ResumeMode.FROM_STEP:
        first = _place_of(rows, step_id)
        return repeated | {record.id for record in standing if record.at >= first}
    if all(record.gate_type == _QUALITY_GATE for record in culprits):
        raise ResumeRefusedError(
            ResumeRefusal.NOTHING_TO_REPEAT,
            f"no step failed the run ({rows.run.body_error or 'it has no error'}), so it would"
            " fail again: use mode FROM_STEP with the step that should do better, or RESTART",
        )
    return repeated


def _place_of(rows: RunRows, step_id: str | None) -> str:
    for record in rows.steps:
        if record.id != step_id:
            continue
        if record.superseded_epoch is not None:
            raise ResumeRefusedError(
                ResumeRefusal.SUPERSEDED_STEP,
                f"step {step_id} was replaced when the run was resumed in epoch"
                f" {record.superseded_epoch}: name the step that replaced it",
            )
        return record.at
    raise ResumeRefusedError(ResumeRefusal.UNKNOWN_STEP, f"the run has no step {step_id}")

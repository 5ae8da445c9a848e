"""Runs told as the client's typed events: a short way to write the history of a run.

`Story` numbers the events, lets a second pass between one and the next, and fills in the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runkon_client.values import (
    Event,
    Gate,
    GateOption,
    GateResolved,
    GateState,
    GateWaiting,
    Metrics,
    Run,
    RunFinished,
    RunStarted,
    RunStatus,
    Step,
    StepGate,
    StepRole,
    StepStatus,
)

if TYPE_CHECKING:
    from runkon_client.values import StepEvent

_E = TypeVar("_E", bound=Event)
_S = TypeVar("_S", bound="StepEvent")

RUN_ID: Final = "01JD0000000000000000000000"
BEGAN_AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)


def step(path: str, name: str, status: StepStatus = StepStatus.RUNNING, **changes: Any) -> Step:
    """A step's row."""
    attempt = changes.get("retry_count", 0)
    values: dict[str, Any] = {
        "id": f"{path}/{changes.get('iterations', ())}/{attempt}",
        "run_id": RUN_ID,
        "step_name": name,
        "role": StepRole.ACTOR,
        "status": status,
        "can_commit": False,
        "condition_expr": "",
        "condition_met": None,
        "child_run_id": "",
        "position": 0,
        "iteration": 0,
        "iterations": (),
        "path": path,
        "retry_count": 0,
        "parallel_group_id": "",
        "started_at": BEGAN_AT,
        "ended_at": BEGAN_AT + SECOND if status.is_terminal else None,
        "result_text": "",
        "context": "",
        "markers": (),
        "structured_output": "",
        "output_file": "",
        "step_error": "",
        "error_code": "",
        "gate": None,
        "fan_out": None,
        "metrics": None,
        "epoch": 1,
        "superseded_epoch": 0,
        "blocked_on": None,
    }
    return Step(**(values | changes))


def step_gate(**changes: Any) -> StepGate:
    """The gate's part of a step's row."""
    values: dict[str, Any] = {
        "gate_id": "gate-1",
        "type": "human_review",
        "prompt": "",
        "timeout": timedelta(hours=1),
        "approved_by": "",
        "approved_at": None,
        "feedback": "",
        "options": (),
        "selections": (),
    }
    return StepGate(**(values | changes))


def gate(name: str = "code-review", **changes: Any) -> Gate:
    """A gate that waits."""
    values: dict[str, Any] = {
        "id": f"gate-of-{name}",
        "namespace": "default",
        "run_id": RUN_ID,
        "step_id": "",
        "name": name,
        "type": "human_review",
        "iteration": 0,
        "prompt": "Ship it?",
        "options": (GateOption(key="merge", label="Merge it"),),
        "approvers": 1,
        "exclude_starter": False,
        "votes": (),
        "state": GateState.PENDING,
        "opened_at": BEGAN_AT,
        "deadline_at": None,
        "resolved_at": None,
        "resolved_by": "",
        "on_behalf_of": "",
        "feedback": "",
        "selections": (),
        "workflow_name": "w",
        "display_name": "w",
        "labels": {},
        "min_approvals": 0,
        "approval_mode": None,
    }
    return Gate(**(values | changes))


def run(status: RunStatus = RunStatus.RUNNING, **changes: Any) -> Run:
    """A run."""
    values: dict[str, Any] = {
        "id": RUN_ID,
        "namespace": "default",
        "key": "",
        "workflow_name": "w",
        "workflow_version": 1,
        "content_hash": "",
        "workflow_title": "",
        "display_name": "w",
        "status": status,
        "dry_run": False,
        "trigger": "",
        "started_by": "ada",
        "parent_run_id": "",
        "parent_workflow_run_id": "",
        "created_at": BEGAN_AT,
        "started_at": BEGAN_AT,
        "ended_at": BEGAN_AT + SECOND if status.is_terminal else None,
        "total_duration": SECOND if status.is_terminal else None,
        "scheduled_at": None,
        "result_summary": "",
        "error": "",
        "cancel_reason": "",
        "inputs": {},
        "iteration": 0,
        "blocked_on": None,
        "current_step": None,
        "dismissed": False,
        "labels": {},
        "priority": 0,
        "fail_fast": True,
        "metrics": None,
        "epoch": 1,
        "last_seq": 0,
        "definition_snapshot": "",
        "root_run_id": RUN_ID,
        "depth": 0,
        "parent_step_id": "",
        "fan_out_item_id": "",
    }
    return Run(**(values | changes))


def metrics() -> Metrics:
    """Sums of a run that cost something."""
    return Metrics(
        cost_usd=0.5,
        num_turns=3,
        duration=timedelta(seconds=2),
        input_tokens=10,
        output_tokens=20,
        cache_read_input_tokens=0,
        cache_creation_input_tokens=0,
    )


class Story:
    """Makes events in order; `now` is when the newest one happened."""

    def __init__(self) -> None:
        self.seq = 0

    @property
    def now(self) -> datetime:
        """The time of the newest event."""
        return BEGAN_AT + self.seq * SECOND

    def event(self, kind: type[_E], **payload: Any) -> _E:
        """The next event."""
        self.seq += 1
        return kind(seq=self.seq, run_id=RUN_ID, at=self.now, generation=1, epoch=1, **payload)

    def step(self, kind: type[_S], row: Step, **payload: Any) -> _S:
        """The next event, about a step's row."""
        return self.event(kind, step=row, truncated=False, **payload)

    def started(self) -> RunStarted:
        """The first event of a run."""
        return self.event(
            RunStarted,
            workflow_name="w",
            workflow_version=1,
            display_name="A workflow",
            dry_run=False,
            trigger="",
            started_by="ada",
        )

    def finished(self, status: RunStatus, error: str = "") -> RunFinished:
        """The last event of a run."""
        return self.event(
            RunFinished, status=status, error=error, result_summary="", truncated=False
        )

    def gate_waiting(self, waiting: Gate, path: str) -> GateWaiting:
        """A gate opens."""
        row = step(path, waiting.name, StepStatus.WAITING, role=StepRole.GATE, gate=step_gate())
        return self.step(GateWaiting, row, gate=waiting)

    def gate_resolved(self, resolved: Gate, path: str) -> GateResolved:
        """A gate closes, the way its state says."""
        is_good = resolved.state is GateState.APPROVED
        row = step(
            path,
            resolved.name,
            StepStatus.COMPLETED if is_good else StepStatus.FAILED,
            role=StepRole.GATE,
            gate=step_gate(
                approved_by=resolved.resolved_by,
                feedback=resolved.feedback,
                selections=resolved.selections,
            ),
        )
        return self.step(GateResolved, row, gate=resolved)

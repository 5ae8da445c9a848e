"""Steps: one leaf of the definition at one place of one loop pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from runkon_client.values.runs import BlockedOn, GateOption, Metrics


class StepStatus(StrEnum):
    """State of a step's row; `UNKNOWN` is one that only a newer server knows."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"

    @property
    def is_terminal(self) -> bool:
        """Whether the row changes no more."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset(
    {StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.TIMED_OUT}
)


class StepRole(StrEnum):
    """What kind of work a step's row records."""

    UNKNOWN = "unknown"
    ACTOR = "actor"
    WORKFLOW = "workflow"
    SCRIPT = "script"
    FOREACH = "foreach"
    GATE = "gate"
    REVIEWER = "reviewer"


class FanOutItemStatus(StrEnum):
    """State of one item of a `foreach`."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGate:
    """The gate's part of a step's row; `gate_id` is empty for one decided without opening."""

    gate_id: str
    type: str
    prompt: str
    timeout: timedelta | None
    approved_by: str
    approved_at: datetime | None
    feedback: str
    options: tuple[GateOption, ...]
    selections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutCounts:
    """Counters of a `foreach`."""

    total: int
    completed: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutItem:
    """One item of a `foreach` and its child run.

    `position` is its place in the provider's order, from 0; `blockers` are the positions of those
    that it waits for; `structured_output` is JSON text. `blocked_on` is the gate that its child
    run waits for, without options and its prompt cut; both are left out in events.
    """

    id: str
    step_run_id: str
    item_type: str
    item_id: str
    item_ref: str
    child_run_id: str
    status: FanOutItemStatus
    dispatched_at: datetime | None
    completed_at: datetime | None
    context: Mapping[str, str]
    position: int
    blockers: tuple[int, ...]
    structured_output: str
    run_id: str
    error: str
    blocked_on: BlockedOn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of a run's steps; `call` and `call workflow` have one row per attempt.

    `path` and `iterations` (passes of all enclosing loops, outermost first, from 0) identify the
    step; `structured_output` is JSON text; `superseded_epoch` is 0 while the row stands;
    `blocked_on` is as in `FanOutItem`.
    """

    id: str
    run_id: str
    step_name: str
    role: StepRole
    status: StepStatus
    can_commit: bool
    condition_expr: str
    condition_met: bool | None
    child_run_id: str
    position: int
    iteration: int
    iterations: tuple[int, ...]
    path: str
    retry_count: int
    parallel_group_id: str
    started_at: datetime | None
    ended_at: datetime | None
    result_text: str
    context: str
    markers: tuple[str, ...]
    structured_output: str
    output_file: str
    step_error: str
    error_code: str
    gate: StepGate | None
    fan_out: FanOutCounts | None
    metrics: Metrics | None
    epoch: int
    superseded_epoch: int
    blocked_on: BlockedOn | None

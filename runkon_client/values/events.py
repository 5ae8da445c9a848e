"""Events of a run: one class per kind, so that `match` over `RunEvent` can be exhaustive.

Texts in events are cut to keep an event below 64 KiB; `truncated` says so, and `steps()`, `get()`
and `gate()` have them whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from runkon_client.values.gates import Gate, GateVote
    from runkon_client.values.runs import BlockedOn, Metrics, RunStatus
    from runkon_client.values.steps import FanOutCounts, FanOutItem, Step
    from runkon_client.values.workflows import Diagnostic


class EventKind(StrEnum):
    """Names an event's class, for filters; `UNKNOWN` is refused in a filter."""

    UNKNOWN = "unknown"
    RUN_STARTED = "run_started"
    RUN_RESUMED = "run_resumed"
    RUN_WAITING = "run_waiting"
    RUN_UNBLOCKED = "run_unblocked"
    RUN_CANCEL_REQUESTED = "run_cancel_requested"
    RUN_FINISHED = "run_finished"
    STEP_STARTED = "step_started"
    STEP_RETRYING = "step_retrying"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_SKIPPED = "step_skipped"
    STEP_TIMED_OUT = "step_timed_out"
    STEP_PROGRESS = "step_progress"
    GATE_WAITING = "gate_waiting"
    GATE_VOTED = "gate_voted"
    GATE_RESOLVED = "gate_resolved"
    FAN_OUT_ITEMS_COLLECTED = "fan_out_items_collected"
    FAN_OUT_ITEM_STARTED = "fan_out_item_started"
    FAN_OUT_ITEM_COMPLETED = "fan_out_item_completed"
    CHILD_RUN_STARTED = "child_run_started"
    CHILD_RUN_FINISHED = "child_run_finished"
    METRICS_UPDATED = "metrics_updated"
    DEFINITION_WARNING = "definition_warning"
    ALWAYS_STARTED = "always_started"


class ResumeMode(StrEnum):
    """How a finished run was taken up again."""

    UNKNOWN = "unknown"
    NORMAL = "normal"
    FROM_STEP = "from_step"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: `seq` counts 1, 2, 3 … per run without gaps, over all epochs."""

    kind: ClassVar[EventKind] = EventKind.UNKNOWN

    seq: int
    run_id: str
    at: datetime
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """A kind that only a newer server knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """First event of every run: from pending to running."""

    kind: ClassVar[EventKind] = EventKind.RUN_STARTED
    workflow_name: str
    workflow_version: int
    display_name: str
    dry_run: bool
    trigger: str
    started_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed(Event):
    """A new epoch: from a terminal status to running."""

    kind: ClassVar[EventKind] = EventKind.RUN_RESUMED
    workflow_name: str
    mode: ResumeMode
    from_step_id: str
    resumed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWaiting(Event):
    """The run stands at a gate."""

    kind: ClassVar[EventKind] = EventKind.RUN_WAITING
    blocked_on: BlockedOn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUnblocked(Event):
    """From waiting back to running."""

    kind: ClassVar[EventKind] = EventKind.RUN_UNBLOCKED


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCancelRequested(Event):
    """Someone asked for the run's end."""

    kind: ClassVar[EventKind] = EventKind.RUN_CANCEL_REQUESTED
    reason: str
    force: bool
    requested_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """Last event of an epoch."""

    kind: ClassVar[EventKind] = EventKind.RUN_FINISHED
    status: RunStatus
    error: str
    result_summary: str
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Event):
    """What events about a step's row have: the row as it stands after the change."""

    step: Step
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(StepEvent):
    """A step, or one attempt at it, began."""

    kind: ClassVar[EventKind] = EventKind.STEP_STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetrying(StepEvent):
    """An attempt ended badly; `attempt` (from 1) follows after `delay`."""

    kind: ClassVar[EventKind] = EventKind.STEP_RETRYING
    attempt: int
    delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted(StepEvent):
    """A step ended well."""

    kind: ClassVar[EventKind] = EventKind.STEP_COMPLETED


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(StepEvent):
    """A step, or one attempt at it, ended badly."""

    kind: ClassVar[EventKind] = EventKind.STEP_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped(StepEvent):
    """A step was not executed, because its condition was not met."""

    kind: ClassVar[EventKind] = EventKind.STEP_SKIPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimedOut(StepEvent):
    """A step's deadline ended it."""

    kind: ClassVar[EventKind] = EventKind.STEP_TIMED_OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress(Event):
    """What a worker said with a heartbeat."""

    kind: ClassVar[EventKind] = EventKind.STEP_PROGRESS
    step_id: str
    step_name: str
    iteration: int
    progress: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWaiting(StepEvent):
    """A gate opened."""

    kind: ClassVar[EventKind] = EventKind.GATE_WAITING
    gate: Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVoted(Event):
    """One principal's vote was counted."""

    kind: ClassVar[EventKind] = EventKind.GATE_VOTED
    gate_id: str
    gate_name: str
    vote: GateVote
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResolved(StepEvent):
    """A gate was closed, by votes, by its deadline or by the end of its run."""

    kind: ClassVar[EventKind] = EventKind.GATE_RESOLVED
    gate: Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutItemsCollected(StepEvent):
    """A `foreach` has all its items; none is dispatched yet."""

    kind: ClassVar[EventKind] = EventKind.FAN_OUT_ITEMS_COLLECTED
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutItemStarted(Event):
    """An item is running."""

    kind: ClassVar[EventKind] = EventKind.FAN_OUT_ITEM_STARTED
    item: FanOutItem
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOutItemCompleted(Event):
    """An item is completed, failed or skipped; `counts` are the step's after the change."""

    kind: ClassVar[EventKind] = EventKind.FAN_OUT_ITEM_COMPLETED
    item: FanOutItem
    truncated: bool
    counts: FanOutCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRunStarted(Event):
    """A step started a run of its own; that run has its own events."""

    kind: ClassVar[EventKind] = EventKind.CHILD_RUN_STARTED
    step_id: str
    child_run_id: str
    workflow_name: str
    fan_out_item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRunFinished(Event):
    """A child run ended, and this run took note of it."""

    kind: ClassVar[EventKind] = EventKind.CHILD_RUN_FINISHED
    step_id: str
    child_run_id: str
    status: RunStatus
    error: str
    fan_out_item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsUpdated(Event):
    """Sums over the run, its children and its earlier epochs; once per epoch."""

    kind: ClassVar[EventKind] = EventKind.METRICS_UPDATED
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionWarning(Event):
    """The definition holds something worth a warning; it runs all the same."""

    kind: ClassVar[EventKind] = EventKind.DEFINITION_WARNING
    diagnostic: Diagnostic


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysStarted(Event):
    """The body is over, as `workflow_status` says, and the `always` section begins."""

    kind: ClassVar[EventKind] = EventKind.ALWAYS_STARTED
    workflow_status: RunStatus


RunEvent: TypeAlias = (
    RunStarted
    | RunResumed
    | RunWaiting
    | RunUnblocked
    | RunCancelRequested
    | RunFinished
    | StepStarted
    | StepRetrying
    | StepCompleted
    | StepFailed
    | StepSkipped
    | StepTimedOut
    | StepProgress
    | GateWaiting
    | GateVoted
    | GateResolved
    | FanOutItemsCollected
    | FanOutItemStarted
    | FanOutItemCompleted
    | ChildRunStarted
    | ChildRunFinished
    | MetricsUpdated
    | DefinitionWarning
    | AlwaysStarted
    | UnknownEvent
)
"""Every event; `case UnknownEvent()` is what a newer server may send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceEvent:
    """One event of one run of a namespace; `run_id` and `seq` of the event together name it."""

    event: RunEvent
    workflow_name: str
    cursor: str
    """The place of this event: whoever stores it goes on with the next one."""

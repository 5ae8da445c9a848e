"""Why a run is not moving."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from datetime import datetime

    from runkon_client.values.admin import ActionLimit
    from runkon_client.values.gates import Gate
    from runkon_client.values.runs import RunStatus, StepSummary


class BlockerKind(StrEnum):
    """What a run waits for; UNKNOWN is a kind of a newer server."""

    UNKNOWN = "unknown"
    START_DELAY = "start_delay"
    GATE = "gate"
    QUEUED_TASK = "queued_task"
    LEASED_TASK = "leased_task"
    RETRY_DELAY = "retry_delay"
    CHILD_RUN = "child_run"
    LOST_OWNER = "lost_owner"
    NOT_TAKEN = "not_taken"
    UNAPPLIED_FACTS = "unapplied_facts"
    GRACE = "grace"
    DEFINITION = "definition"
    NEEDS_RESUME = "needs_resume"
    TIMER = "timer"
    LIMITED = "limited"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingTask:
    """A task that has not been reported yet."""

    task_id: str
    action: str
    """Of a script its name, of items their provider, of a gate its type."""
    attempt: int
    delivery: int
    queue_position: int
    """From 1; 0 if it is not queued."""
    workers: int
    """Workers that are connected and would be given it."""
    last_worker_at: datetime | None
    worker_id: str
    """Empty if it is queued."""
    queue: str = ""
    """What a worker has to serve, `default` if its run names none; empty: not told."""
    limit: ActionLimit | None = None
    """What was set for its action; None if it is not limited, not queued, or no action."""
    earliest_at: datetime | None = None
    """When the limit's rate lets it out at the earliest; None if no rate holds it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingOwner:
    """The replica that a run belongs to."""

    replica: str
    is_alive: bool
    lease_ends_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that a run waits for."""

    kind: BlockerKind
    text: str
    remedy: str
    """What would move the run; empty if time alone will."""
    needs_action: bool
    """Whether the run stays where it is until somebody does something."""
    step_id: str
    step_name: str
    since: datetime | None
    until: datetime | None
    details: Details
    """What belongs to the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why one run is not moving, as of one moment; children are explained inside its blockers."""

    run_id: str
    workflow_name: str
    status: RunStatus
    current_step: StepSummary | None
    headline: str
    blockers: tuple[Blocker, ...]
    """Whatever takes somebody's action first."""
    blockers_left_out: int
    at: datetime | None


Details: TypeAlias = "Gate | BlockingTask | BlockingOwner | Explanation | None"

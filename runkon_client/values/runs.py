"""Runs: where they are, what they came to, what they wait for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from runkon_client.values.steps import Step


class RunStatus(StrEnum):
    """State of a run; `UNKNOWN` is one that only a newer server knows."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    NEEDS_RESUME = "needs_resume"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended; only a resume leaves such a status again."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class ConflictPolicy(StrEnum):
    """What `start_run` does when a live run already holds the key."""

    FAIL = "fail"
    USE_EXISTING = "use_existing"
    CANCEL_EXISTING = "cancel_existing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Sums of what workers report."""

    cost_usd: float
    num_turns: int
    duration: timedelta
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOption:
    """One thing that may be selected when a gate is resolved; `label` is for people."""

    key: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanApproval:
    """The run waits for a person to approve or reject."""

    gate_id: str
    run_id: str
    gate_name: str
    prompt: str
    options: tuple[GateOption, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanReview:
    """The run waits for a person to look at something and say what is to change."""

    gate_id: str
    run_id: str
    gate_name: str
    prompt: str
    options: tuple[GateOption, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrApproval:
    """The run waits for approvals of a pull request."""

    gate_id: str
    run_id: str
    gate_name: str
    approvals_needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrChecks:
    """The run waits for the checks of a pull request."""

    gate_id: str
    run_id: str
    gate_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomGate:
    """The run waits for a worker that resolves gates of this type, or for a person."""

    gate_id: str
    run_id: str
    gate_name: str
    type: str
    prompt: str
    options: tuple[GateOption, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownBlocker:
    """The run waits at a gate of a kind that only a newer server knows."""

    gate_id: str
    run_id: str


BlockedOn: TypeAlias = (
    HumanApproval | HumanReview | PrApproval | PrChecks | CustomGate | UnknownBlocker
)
"""What a waiting run waits for; `run_id` may be a descendant of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """Where a run is now: `workflow_chain` names the workflows from root to innermost child.

    The step belongs to the innermost child, the run `run_id`.
    """

    step_name: str
    iteration: int
    workflow_chain: tuple[str, ...]
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of one version of a workflow; empty text means "not given".

    `definition_snapshot` is JSON, and empty unless the full view was asked for. Of a root,
    `root_run_id` is its own id and `depth` 0.
    """

    id: str
    namespace: str
    key: str
    workflow_name: str
    workflow_version: int
    content_hash: str
    workflow_title: str
    display_name: str
    status: RunStatus
    dry_run: bool
    trigger: str
    started_by: str
    parent_run_id: str
    parent_workflow_run_id: str
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    total_duration: timedelta | None
    scheduled_at: datetime | None
    result_summary: str
    error: str
    cancel_reason: str
    inputs: Mapping[str, str]
    iteration: int
    blocked_on: BlockedOn | None
    current_step: StepSummary | None
    dismissed: bool
    labels: Mapping[str, str]
    priority: int
    fail_fast: bool
    metrics: Metrics | None
    epoch: int
    last_seq: int
    definition_snapshot: str
    root_run_id: str
    depth: int
    parent_step_id: str
    fan_out_item_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run and its standing steps as of one sequence; long texts are cut as in events."""

    seq: int
    run: Run
    steps: tuple[Step, ...]

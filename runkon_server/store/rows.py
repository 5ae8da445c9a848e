"""Rows as reads give them, for everyone above the store. `None` is SQL's NULL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """Rows in order, and whether there are more behind the last one."""

    rows: Sequence[_Row]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run with its details."""

    id: str
    namespace: str
    workflow_name: str
    status: str
    content_hash: str
    created_at: datetime | None
    """None: it was not created, only thought out."""
    key: str | None = None
    workflow_version: int | None = None
    """None: started from an inline source."""
    workflow_title: str | None = None
    phase: str = "body"
    dry_run: bool = False
    fail_fast: bool = True
    dismissed: bool = False
    force: bool = False
    trigger: str = ""
    started_by: str = ""
    parent_run_id: str | None = None
    parent_workflow_run_id: str | None = None
    priority: int = 0
    iteration: int = 0
    epoch: int = 1
    last_seq: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    scheduled_at: datetime | None = None
    body_outcome: str | None = None
    body_error: str | None = None
    resume_mode: str | None = None
    cancel_reason: str | None = None
    error: str | None = None
    result_summary: str | None = None
    """Of an ended run: how many of its steps ended how."""
    blocked_on: dict[str, Any] | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    current_step: tuple[str, int] | None = None
    """Name and innermost loop pass of the step where the run is; None before the first one."""
    root_run_id: str | None = None
    """The run at the top of the tree; None: this one."""
    depth: int = 0
    """Runs above this one."""
    parent_step_id: str | None = None
    fan_out_item_id: str | None = None
    identity: str | None = None
    """That of the call that started it: what its own calls use unless they name one."""
    grace_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHead:
    """How far the events of a run go."""

    run_id: str
    last_seq: int
    """0 while there is none."""
    oldest_seq: int
    """Of the oldest event that is kept; `last_seq + 1` if none is."""
    status: str
    epoch: int
    purged_at: datetime | None = None
    """When the run was removed, if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One row of `workflow_run_steps`, by its column names."""

    workflow_run_id: str
    id: str
    at: str = ""
    path: str = ""
    step_name: str = ""
    step_key: str = ""
    role: str = "actor"
    can_commit: bool = False
    condition_expr: str | None = None
    condition_met: bool | None = None
    status: str
    child_run_id: str | None = None
    position: int = 0
    iteration: int = 0
    iterations: Sequence[int] = ()
    epoch: int = 1
    superseded_epoch: int | None = None
    retry_count: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    result_text: str | None = None
    context_out: str | None = None
    markers_out: Sequence[str] | None = None
    structured_output: str | None = None
    output_file: str | None = None
    step_error: str | None = None
    error_code: str | None = None
    retryable: bool | None = None
    fatal: bool | None = None
    metrics: dict[str, Any] | None = None
    parallel_group_id: str | None = None
    gate_type: str | None = None
    gate_prompt: str | None = None
    gate_timeout: str | None = None
    """Seconds, as decimal text."""
    gate_options: Sequence[Sequence[str]] | None = None
    """Pairs of key and label."""
    gate_approved_by: str | None = None
    gate_approved_at: datetime | None = None
    gate_feedback: str | None = None
    gate_selections: Sequence[str] | None = None
    child_epoch: int | None = None
    child_end: str | None = None
    """How the child ended in that epoch."""
    blocked_on: dict[str, Any] | None = None
    """The gate that the child waits for; empty once it waits no longer."""
    fan_out_total: int | None = None
    """Of a `foreach`, as are the next three; None before its items were collected."""
    fan_out_completed: int | None = None
    fan_out_failed: int | None = None
    fan_out_skipped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """One row of `workflow_run_step_fan_out_items`, by its column names."""

    workflow_run_id: str
    step_run_id: str
    id: str
    """The step's id and the ordinal."""
    ordinal: int
    """Place in the provider's order, from 0."""
    item_type: str
    item_id: str
    item_ref: str = ""
    context: dict[str, str] = field(default_factory=dict)
    blockers: Sequence[int] = ()
    """Ordinals of the items that have to end before this one starts."""
    status: str = "pending"
    child_run_id: str | None = None
    child_epoch: int | None = None
    child_end: str | None = None
    structured_output: str | None = None
    error: str | None = None
    blocked_on: dict[str, Any] | None = None
    dispatched_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRow:
    """What one principal said at a gate."""

    principal: str
    decision: str
    """`approve` or `reject`."""
    feedback: str | None = None
    selections: Sequence[str] | None = None
    on_behalf_of: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """A gate, its votes in the order of their counting, and what is shown of its run."""

    run_id: str
    id: str
    namespace: str
    step_id: str
    name: str
    gate_type: str
    state: str
    opened_at: datetime | None = None
    iteration: int = 0
    prompt: str | None = None
    options: Sequence[Sequence[str]] | None = None
    """Pairs of key and label."""
    approvers: int = 1
    exclude_starter: bool = False
    deadline_at: datetime | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    on_behalf_of: str | None = None
    feedback: str | None = None
    selections: Sequence[str] | None = None
    workflow_name: str = ""
    workflow_title: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    min_approvals: int = 1
    approval_mode: str = "min_approvals"
    """`min_approvals` or `review_decision`."""
    votes: Sequence[VoteRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRow:
    """One version of a stored workflow."""

    namespace: str
    name: str
    version: int
    content_hash: str
    created_at: datetime
    created_by: str
    head: dict[str, Any]
    """The definition's snapshot without its steps."""
    source: str | None = None
    """This and what follows: None unless asked for."""
    output_schemas: dict[str, str] | None = None
    snippets: dict[str, str] | None = None
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """What an earlier call with the same request id was answered."""

    method: str
    digest: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker as the replica says that it is connected to."""

    namespace: str
    worker_id: str
    replica_token: str
    replica: str
    client: str
    queues: Sequence[str]
    actions: Sequence[str]
    item_providers: Sequence[str]
    gate_types: Sequence[str]
    scripts: bool
    concurrency: int
    polls: bool
    connected_at: datetime
    seen_at: datetime

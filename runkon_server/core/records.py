"""Rows as the core reads them back. The store fills these; no other module knows both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runkon_server.core.bubbling import ChildResults


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What `restore` needs of a run's row and details."""

    run_id: str
    workflow_name: str
    status: str
    inputs: dict[str, str]
    """With declared defaults filled in when the run was started."""
    epoch: int = 1
    phase: str = "body"
    dry_run: bool = False
    fail_fast: bool = True
    body_outcome: str | None = None
    body_error: str | None = None
    cancel_reason: str | None = None
    """Set by the decision that applied a cancel, never by its recorder."""
    force: bool = False
    grace_s: float = 300.0
    """How long a cancelled run waits for work in flight, and again for its always section."""
    resume_mode: str | None = None
    """How the present epoch was opened: `normal`, `from_step` or `restart`; None: the first."""
    metrics: dict[str, Any] = field(default_factory=dict)
    depth: int = 0
    """Runs above this one."""
    root_run_id: str | None = None
    """The run at the top of the tree; None: this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One row of `workflow_run_steps`, by the column names of the table.

    `at` is the sortable identity (`b.0003.0012.0001`); comparing it compares program order.
    """

    id: str
    at: str
    path: str
    step_name: str
    step_key: str
    role: str
    status: str
    position: int
    iteration: int = 0
    iterations: tuple[int, ...] = ()
    epoch: int = 1
    superseded_epoch: int | None = None
    retry_count: int = 0
    condition_expr: str | None = None
    condition_met: bool | None = None
    parallel_group_id: str | None = None
    child_run_id: str | None = None
    child_epoch: int | None = None
    child_end: str | None = None
    """How the child ended in that epoch; None while it runs, or if it is no longer awaited."""
    child_results: ChildResults | None = None
    """Of a child that completed; `StepWrite` has it as plain JSON."""
    blocked_on: dict[str, Any] | None = None
    """Of `call workflow` the gate that the child waits for, empty: none. Of a gate that workers
    look at `{"polls": N}`, the looks handed out, with a `note` during the pause after a look."""
    fan_out_total: int | None = None
    """None: the items are not collected yet."""
    fan_out_completed: int | None = None
    fan_out_failed: int | None = None
    fan_out_skipped: int | None = None
    result_text: str | None = None
    context_out: str | None = None
    markers_out: tuple[str, ...] | None = None
    structured_output: str | None = None
    output_file: str | None = None
    step_error: str | None = None
    error_code: str | None = None
    retryable: bool | None = None
    fatal: bool | None = None
    metrics: dict[str, Any] | None = None
    gate_type: str | None = None
    gate_prompt: str | None = None
    gate_timeout: str | None = None
    """Seconds, as decimal text (the column's type in the original)."""
    gate_options: tuple[tuple[str, str], ...] | None = None
    gate_approved_by: str | None = None
    gate_feedback: str | None = None
    gate_selections: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRecord:
    """One row of `workflow_run_step_fan_out_items`, by the column names of the table.

    The table also has `dispatched_at` and `completed_at`, which the core does not read.
    """

    id: str
    """The step's id and the ordinal."""
    step_run_id: str
    ordinal: int
    """Place in the provider's order, from 0."""
    item_type: str
    item_id: str
    item_ref: str = ""
    context: dict[str, str] = field(default_factory=dict)
    blockers: tuple[int, ...] = ()
    """Ordinals of the items that have to end before this one starts."""
    status: str = "pending"
    child_run_id: str | None = None
    child_epoch: int | None = None
    child_end: str | None = None
    """How the child ended in that epoch; None while it runs, or if it is no longer awaited."""
    structured_output: str | None = None
    error: str | None = None
    blocked_on: dict[str, Any] | None = None
    """The gate that the child waits for; empty once it waits no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRecord:
    """An open timer; its existence is the state (a delayed retry has no other trace)."""

    timer_id: str
    kind: str
    step_id: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRows:
    """All rows of one run that `restore` walks over."""

    run: RunRecord
    steps: tuple[StepRecord, ...] = ()
    """Every row, superseded ones too, in any order."""
    timers: tuple[TimerRecord, ...] = ()
    items: tuple[ItemRecord, ...] = ()
    """Of the standing foreach steps at least, in any order."""

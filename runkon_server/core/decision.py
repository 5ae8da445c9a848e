"""What `advance` gives back: the next state, rows to write, events to append, orders to carry out.

Rows and events carry no times and no sequence numbers: the store stamps both after it holds the
run's lock, one instant for everything that is committed together. The rules it stamps by:

* a step inserted as `running` or `waiting`, or updated to it from `pending`, gets `started_at`;
* a step that becomes completed, failed, skipped or timed_out gets `ended_at`;
* the run gets `started_at` with its first `running` or `waiting`, `ended_at` when terminal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.core.model import RunState


@dataclass(slots=True)
class StepWrite:
    """One step row: new (`insert`, with every column that is not null) or changed columns only.

    A column that has a value never becomes null again.

    `columns` uses the names of `records.StepRecord`. Mutable so that writes to one row made by
    successive facts fold into one.
    """

    step_id: str
    insert: bool
    columns: dict[str, Any]


@dataclass(slots=True)  # as `Dispatch`
class Event:
    """One public state change; `kind` is one of `events.KINDS`, `payload` plain JSON values."""

    kind: str
    payload: dict[str, Any]


# Not frozen, though nobody changes it: a frozen dataclass sets every field through a slot call, and
# a step makes several of these (measured: 14 % of a replica's time per step).
@dataclass(slots=True, kw_only=True)
class Dispatch:
    """Give one task to a worker."""

    task_id: str
    step_id: str
    step_name: str
    action: str
    iteration: int
    iterations: tuple[int, ...]
    """One counter per enclosing loop, outermost first."""
    attempt: int
    """0 for the first; the step's `retry_count`."""
    retries_remaining: int
    idempotency_key: str
    """`RUN/AT`: the same for every attempt and epoch."""
    inputs: Mapping[str, str]
    """The variable map, without `prior_contexts`."""
    prior_contexts: str | None
    """JSON array; None when over the inline limit: the worker fetches the steps instead."""
    retry_error: str | None = None
    gate_feedback: str | None = None
    identity: str | None = None
    max_turns: int | None = None
    plugin_dirs: tuple[str, ...] = ()
    timeout_s: float | None = None
    """The step's deadline, for the worker's information; the run's own timer enforces it."""
    dry_run: bool = False
    output_schema: str | None = None
    """Name that `output` uses."""
    snippets: tuple[str, ...] = ()
    """Names that `with` uses, in the order in which they apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """Tell the worker to stop. The task stays in flight until it is reported or given up."""

    task_id: str
    reason: str
    """`run_cancelled`, `timeout` or `fail_fast`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonTask:
    """Stop waiting for a task: late reports are stale from now on (a timeout, the end of grace)."""

    task_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Record a timer `delay_s` seconds after the commit, by the database's clock."""

    timer_id: str
    kind: str
    """`retry`, `deadline`, `grace` or `gate`."""
    delay_s: float
    step_id: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearTimer:
    """Remove a timer that is no longer wanted."""

    timer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGate:
    """Create the gate's row, state `pending`; its timer of kind `gate` is set beside it."""

    gate_id: str
    step_id: str
    name: str
    gate_type: str
    prompt: str | None
    options: tuple[tuple[str, str], ...] | None
    """Pairs of value and label; None: the gate offers no options."""
    approvers: int
    exclude_starter: bool
    timeout_s: float
    on_timeout: str
    iteration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseGate:
    """The gate is given up because its run was cancelled: pending becomes `cancelled`."""

    gate_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The run is terminal; every task, timer and gate of it is settled."""

    status: str


Order: TypeAlias = (
    Dispatch | CancelTask | AbandonTask | SetTimer | ClearTimer | OpenGate | CloseGate | RunEnded
)


@dataclass(slots=True)  # as `Dispatch`
class Decision:
    """The answer to one fact. `state` is the very same object when the fact changed nothing."""

    state: RunState
    run: dict[str, Any] = field(default_factory=dict)
    """Changed columns of the run's row, names of `records.RunRecord`."""
    steps: tuple[StepWrite, ...] = ()
    events: tuple[Event, ...] = ()
    orders: tuple[Order, ...] = ()

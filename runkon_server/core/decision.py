"""What `advance` gives back: the next state, rows to write, events to append, orders to carry out.

Rows and events carry no times and no sequence numbers: the store stamps both after it holds the
run's lock, one instant for everything that is committed together. The rules it stamps by:

* a step inserted as `running` or `waiting`, or updated to it from `pending`, gets `started_at`;
* a step that becomes completed, failed, skipped or timed_out gets `ended_at`;
* the run gets `started_at` with its first `running` or `waiting`, `ended_at` when terminal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.core.model import Options, RunState

TaskKind: TypeAlias = Literal["action", "script", "items", "gate"]
"""What is asked of a worker: to execute, to execute a script, to find items, to look at a gate."""


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


@dataclass(slots=True)
class ItemWrite:
    """One row of `workflow_run_step_fan_out_items`, by the rules of `StepWrite`.

    `columns` uses the names of `records.ItemRecord`. The store stamps `dispatched_at` when the
    status becomes running and `completed_at` when it becomes completed, failed or skipped; a row
    that is inserted as completed has been carried over from an earlier epoch, with both unset.
    """

    id: str
    step_run_id: str
    insert: bool
    columns: dict[str, Any]


@dataclass(slots=True)  # as `Dispatch`
class Event:
    """One public state change; `kind` is one of `events.KINDS`, `payload` plain JSON values."""

    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptWork:
    """A shell text without any value in it, and the environment that holds the values."""

    text: str
    environment: Mapping[str, str]
    """To be set beside the few variables that a worker takes from its own environment."""
    timeout_s: float | None = None
    """For the worker, which kills the script; the run's own timer gives it up some time later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsWork:
    """What a foreach asks an item provider for."""

    provider: str
    scope: Mapping[str, str] | None
    """None and empty differ: a provider may refuse any scope at all."""
    filter: Mapping[str, str]
    ordered: bool
    """Whether dependencies are asked for."""
    items_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWork:
    """The gate that a worker is to look at, once."""

    gate_id: str
    name: str
    gate_type: str
    prompt: str | None
    options: Options | None
    min_approvals: int
    approval_mode: str
    """`min_approvals` or `review_decision`."""


# Not frozen, though nobody changes it: a frozen dataclass sets every field through a slot call, and
# a step makes several of these (measured: 14 % of a replica's time per step).
@dataclass(slots=True, kw_only=True)
class Dispatch:
    """Give one task to a worker."""

    task_id: str
    step_id: str
    step_name: str
    action: str
    """The action; for other kinds the name of the script, the provider, or the gate's type."""
    iteration: int
    iterations: tuple[int, ...]
    """One counter per enclosing loop, outermost first."""
    attempt: int
    """0 for the first; the step's `retry_count`. Of a gate, the number of looks before."""
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
    kind: TaskKind = "action"
    work: ScriptWork | ItemsWork | GateWork | None = None
    """What the kind needs beyond the above; None for an action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """Tell the worker to stop. The task stays in flight until it is reported or given up."""

    task_id: str
    reason: str
    """`run_cancelled`, `timeout`, `fail_fast` or `gate_closed`."""


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
    """`retry`, `deadline`, `grace`, `gate` or `poll`."""
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
    min_approvals: int = 1
    """For `gates.judge`, as is the mode; without meaning to gates that people decide."""
    approval_mode: str = "min_approvals"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseGate:
    """The gate is given up, mostly because its run was cancelled: pending becomes `cancelled`."""

    gate_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartChild:
    """Create a child run in the transaction of the decision, and start it.

    Whoever carries it out finds the workflow (the newest version, pinned from then on), fills in
    its defaults and checks what it requires, the depth and the budgets of the tree. A refusal is
    answered with `ChildEnded`, epoch 1, after the commit. The child has the namespace, priority,
    labels, `dry_run`, `fail_fast` and `grace_s` of its parent.
    """

    child_run_id: str
    """Derived, and in the shape of a run's id; sorts into the parent's time."""
    step_id: str
    step_name: str
    workflow_name: str
    inputs: Mapping[str, str]
    """As the parent gives them, placeholders filled in; without the child's own defaults."""
    ordinal: int | None = None
    """Of the item that a foreach starts it for; None: `call workflow`."""
    item_id: str | None = None
    """The row of that item."""
    iteration: int = 0
    identity: str | None = None
    depth: int = 1
    """Runs above the child."""
    root_run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeChild:
    """Resume a child run that ended `failed` in the epoch before, mode normal.

    A refusal is answered with `ChildEnded` of the epoch named here, after the commit; `error_code`
    `RESUME_REFUSED` says that a new child may do better.
    """

    child_run_id: str
    child_epoch: int
    """The epoch that the resume opens."""
    step_id: str
    step_name: str
    workflow_name: str
    ordinal: int | None = None
    item_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelChild:
    """Ask a child run to stop, whether or not its end is still awaited."""

    child_run_id: str
    child_epoch: int
    reason: str
    force: bool = False
    """It is no longer awaited, so it should not linger either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The run is terminal; every task, timer and gate of it is settled."""

    status: str


Order: TypeAlias = (
    Dispatch
    | CancelTask
    | AbandonTask
    | SetTimer
    | ClearTimer
    | OpenGate
    | CloseGate
    | StartChild
    | ResumeChild
    | CancelChild
    | RunEnded
)


@dataclass(slots=True)  # as `Dispatch`
class Decision:
    """The answer to one fact. `state` is the very same object when the fact changed nothing."""

    state: RunState
    run: dict[str, Any] = field(default_factory=dict)
    """Changed columns of the run's row, names of `records.RunRecord`. None empties a column."""
    steps: tuple[StepWrite, ...] = ()
    events: tuple[Event, ...] = ()
    orders: tuple[Order, ...] = ()
    items: tuple[ItemWrite, ...] = ()

"""What a run is while it lives: where it stands, what is in flight, what later steps are told.

A `RunState` is never changed once `advance` or `restore` has returned it; a `Scratch` works on a
copy. It holds no history: its size follows the definition, whatever the age of the run. Equal
states behave alike, so a field that means nothing in a situation has its default there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from runkon_server.core.persistent import Vector

if TYPE_CHECKING:
    from runkon_server.core.fan import Fan
    from runkon_server.core.plan import (
        Block,
        CallNode,
        ChildNode,
        ForEachNode,
        GateNode,
        Loop,
        ParallelNode,
        Plan,
        Repeatable,
        ScriptNode,
    )
    from runkon_server.core.records import ItemRecord, StepRecord

RunStatus: TypeAlias = Literal[
    "pending", "running", "waiting", "cancelling", "completed", "failed", "cancelled"
]
Phase: TypeAlias = Literal["body", "always", "done"]
BodyOutcome: TypeAlias = Literal["completed", "failed", "cancelled"]
NO_OUTPUTS: Final[Vector[str | None]] = Vector()
Passes: TypeAlias = tuple[int, ...]
"""One counter per enclosing loop, outermost first."""
Options: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What stays the same as long as an epoch of the run lasts."""

    plan: Plan
    run_id: str
    workflow_name: str
    epoch: int
    dry_run: bool
    fail_fast: bool
    grace_s: float
    inputs: dict[str, str]
    depth: int
    """Runs above this one."""
    root_run_id: str
    """The run at the top of the tree; this one's own id if that is it."""
    variables: dict[str, str]
    """Those that every task is given with the same value."""
    reserved: frozenset[str]
    """Names that no step may export."""


class Frame(NamedTuple):
    """One container that is being walked; `parent` is the one around it."""

    node: Block | Loop
    at: str
    """Where its children are: in a loop, of this pass."""
    passes: Passes
    entered: int
    """Children entered so far."""
    parent: Frame | None
    starts: int = 0
    """The run's count of awaited steps when the pass began."""
    window: tuple[frozenset[str], ...] = ()
    """Markers of the loop's step after each of the last passes, for `stuck_after`."""


class Place(NamedTuple):
    """Where a step stands in the program, and its number in the order of rows."""

    at: str
    passes: Passes
    position: int


class Completion(NamedTuple):
    """What a completed step says to later ones."""

    context: str
    markers: tuple[str, ...]
    structured_output: str | None
    output_file: str | None


class CallOp(NamedTuple):
    """An attempt at a call that is running, or the pause after one that failed."""

    node: CallNode
    place: Place
    step_id: str
    attempt: int
    row: dict[str, Any]
    """The columns that the row was inserted with."""
    is_paused: bool = False
    error: str | None = None
    """Of the attempt before the pause."""


class ScriptOp(NamedTuple):
    """An attempt at a script that is running, or the pause after one; all share a row."""

    node: ScriptNode
    place: Place
    step_id: str
    attempt: int
    row: dict[str, Any]
    """The columns that the row was inserted with, but the number of the present attempt."""
    is_paused: bool = False
    error: str | None = None


class ChildOp(NamedTuple):
    """A child run whose end is awaited, or the pause after one that failed."""

    node: ChildNode
    place: Place
    step_id: str
    attempt: int
    row: dict[str, Any]
    is_paused: bool = False
    error: str | None = None
    child_run_id: str = ""
    child_epoch: int = 1
    blocked_on: dict[str, Any] | None = None
    """The gate that the child waits for."""


RepeatableOp: TypeAlias = CallOp | ScriptOp | ChildOp


class FanCounts(NamedTuple):
    """Items of a foreach by how they ended."""

    total: int
    completed: int
    failed: int
    skipped: int


class ForEachOp(NamedTuple):
    """A foreach whose items are being collected, or whose children run."""

    node: ForEachNode
    place: Place
    step_id: str
    row: dict[str, Any]
    """The columns that the row was inserted with."""
    fan: Fan | None = None
    """None: the items are being collected."""
    statuses: bytes = b""
    """One byte per item, see `items`."""
    running: dict[str, tuple[int, int]] = {}  # noqa: RUF012  replaced, never changed
    """Child runs that are awaited, with ordinal and epoch."""
    blocked: dict[str, dict[str, Any]] = {}  # noqa: RUF012  as above
    """The gates that children wait for, by child run."""
    outputs: Vector[str | None] = NO_OUTPUTS
    """Structured outputs of the children that completed, by ordinal."""
    resumable: dict[int, tuple[str, int]] = {}  # noqa: RUF012  as above
    """Items that have not started in this epoch, with the failed child of the one before."""
    warning: str | None = None
    """What the collection has to tell people."""
    is_over_budget: bool = False
    """A child exceeded a budget of the whole tree: nothing more may start."""


class OnFailOp(NamedTuple):
    """The agent that runs after the last attempt at a step."""

    node: Repeatable
    failed_step_id: str
    failure: str
    """Why the step counts as failed, whatever becomes of the agent."""
    step_id: str
    row: dict[str, Any]


BranchState: TypeAlias = Literal["running", "paused", "completed", "failed", "skipped"]


class Branch(NamedTuple):
    """One call of a parallel block."""

    state: BranchState
    attempt: int = 0
    error: str | None = None
    done: Completion | None = None
    was_stopped: bool = False
    """It failed because it was told to stop: not what the block failed of."""
    earlier_epoch: int | None = None
    """It failed in this epoch, which was tolerated then; None: whatever it is, it is of now."""


class ParallelOp(NamedTuple):
    """A parallel block of which at least one branch has not ended."""

    node: ParallelNode
    place: Place
    """Of the block; its position is that of the first branch."""
    branches: tuple[Branch, ...]


class GateOp(NamedTuple):
    """A gate that waits for its decision; `step_id` is the gate's id, too."""

    node: GateNode
    step_id: str
    row: dict[str, Any]
    options: Options | None
    looks: int = 0
    """Looks that workers were asked for."""
    is_paused: bool = False
    """Whether the next look is still to come."""


Leaf: TypeAlias = CallOp | ScriptOp | ChildOp | OnFailOp | ParallelOp | GateOp | ForEachOp


class Memory(NamedTuple):
    """What tasks are told about the steps before them."""

    prior_context: str = ""
    contexts: str | None = ""
    """All context entries, JSON objects joined by commas; None once they are too long to send."""
    prior_output: str | None = None
    prior_output_file: str | None = None
    exports: dict[str, str] = {}  # noqa: RUF012  replaced, never changed
    gate_feedback: str | None = None


NOTHING_TOLD: Final = Memory()


class Carried(NamedTuple):
    """A failed foreach or child run of the epoch before, whose finished part need not be redone."""

    record: StepRecord
    items: tuple[ItemRecord, ...] = ()
    """By ordinal."""


class Memo:
    """Steps of earlier epochs that stand and that the walk has not come to yet.

    Equal to another one if the same steps are still ahead.
    """

    __slots__ = ("groups", "index")

    def __init__(self, groups: tuple[tuple[StepRecord, ...], ...], index: int = 0) -> None:
        self.groups = groups
        """In program order; the attempts at one place are one group, in their order."""
        self.index = index
        """Of the first group ahead; there is one."""

    def __eq__(self, other: object) -> bool:
        """Whether the same is ahead."""
        if not isinstance(other, Memo):
            return NotImplemented
        return self.groups[self.index :] == other.groups[other.index :]

    __hash__ = None  # type: ignore[assignment] # equal by what is ahead, which changes


class Counts(NamedTuple):
    """Rows of steps by how they ended."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    timed_out: int = 0
    repeats: int = 0
    """Attempts after the first on the same row."""


NO_ROWS: Final = Counts()


@dataclass(slots=True)
class RunState:
    """One run between two facts."""

    setup: Setup
    status: RunStatus
    phase: Phase = "body"
    ok: bool = True
    """Whether no step of this section has failed."""
    error: str | None = None
    """The first failure of the body."""
    outcome: BodyOutcome | None = None
    """How the body ended; None before."""
    cancel: str | None = None
    """Why the run is being cancelled; None: it is not."""
    force: bool = False
    frame: Frame | None = None
    leaf: Leaf | None = None
    results: dict[str, frozenset[str]] = field(default_factory=dict)
    """Markers of watched step keys; a key without markers is left out."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Structured outputs that gates look at, by step key; empty: a result without one."""
    memory: Memory = NOTHING_TOLD
    position: int = 0
    starts: int = 0
    """Steps so far that something outside was awaited for."""
    counts: Counts = NO_ROWS
    metrics: dict[str, Any] = field(default_factory=dict)
    memo: Memo | None = None
    """What is left of earlier epochs; None in the first epoch, and after the body."""
    carry: dict[str, Carried] = field(default_factory=dict)
    """By place: what a normal resume takes over when the step starts again."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will ever happen in this epoch any more."""
        return self.phase == "done"


def copy_of(state: RunState) -> RunState:
    """A state to work on; its dictionaries are shared and must be replaced, not changed."""
    return RunState(
        state.setup,
        state.status,
        state.phase,
        state.ok,
        state.error,
        state.outcome,
        state.cancel,
        state.force,
        state.frame,
        state.leaf,
        state.results,
        state.outputs,
        state.memory,
        state.position,
        state.starts,
        state.counts,
        state.metrics,
        state.memo,
        state.carry,
    )


def ended(setup: Setup, status: RunStatus) -> RunState:
    """The one state of a run that is over."""
    return RunState(setup, status, phase="done")

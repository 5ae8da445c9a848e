"""The syntax tree of a workflow: frozen values in the shape that is readable in Python.

`snapshot.py` maps the tree to the stored JSON and back. Three rules hold throughout:

* Everything is immutable and hashable; maps are tuples of pairs in source order (`Pairs`).
* `span` says where a node was written. It takes no part in comparisons, and is `NOWHERE` on
  nodes that came from a snapshot.
* The tree is already resolved: defaults are filled in, and every gate has its own `name`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from runkon_server.dsl.source import NOWHERE, Span

if TYPE_CHECKING:
    from runkon_server.dsl.durations import Duration

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A map from text to text, in source order, keys unique. `dict(pairs)` for look-ups."""


class Trigger(StrEnum):
    """What is meant to start the workflow; only `manual` ever does so by itself."""

    MANUAL = "manual"
    PR = "pr"
    SCHEDULED = "scheduled"


class InputType(StrEnum):
    """How an input is declared; its value is text in either case."""

    STRING = "string"
    BOOLEAN = "boolean"


class AgentKind(StrEnum):
    """Whether a call names an action or gives a path."""

    NAME = "name"
    PATH = "path"


class Policy(StrEnum):
    """What follows when a loop limit, a gate's deadline or a quality gate's threshold is missed."""

    FAIL = "fail"
    CONTINUE = "continue"


class ApprovalMode(StrEnum):
    """What a `pr_approval` gate looks at: a count, or the forge's own verdict."""

    MIN_APPROVALS = "min_approvals"
    REVIEW_DECISION = "review_decision"


class OnCycle(StrEnum):
    """What follows when the items of a foreach depend on each other in a circle."""

    FAIL = "fail"
    WARN = "warn"


class OnChildFail(StrEnum):
    """What a foreach does after one of its children failed."""

    HALT = "halt"
    CONTINUE = "continue"
    SKIP_DEPENDENTS = "skip_dependents"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRef:
    """What a call asks for: an action's name, or a path relative to the repository root."""

    kind: AgentKind
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueOnFail:
    """`on_fail = continue`: an exhausted step counts as skipped and the run goes on."""


OnFail: TypeAlias = ContinueOnFail | AgentRef
"""An `AgentRef` runs once after the last attempt; the step still counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMarker:
    """True when the newest result stored under step key `step` carries `marker`."""

    step: str
    marker: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoolInput:
    """True when the run input `name` is the text `true`, in any ASCII case."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Condition: TypeAlias = StepMarker | BoolInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One task for a worker."""

    agent: AgentRef
    retries: int = 0
    """Attempts after the first."""
    on_fail: OnFail | None = None
    output: str | None = None
    with_: tuple[str, ...] = ()
    as_identity: str | None = None
    plugin_dirs: tuple[str, ...] = ()
    timeout: Duration | None = None
    """Per attempt."""
    max_turns: int | None = None
    retry_delay: Duration | None = None
    """Before the first retry; doubles with each further one. None: retry at once."""
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWorkflow:
    """A run of another workflow, as one step of this one."""

    workflow: str
    inputs: Pairs = ()
    retries: int = 0
    on_fail: OnFail | None = None
    as_identity: str | None = None
    retry_delay: Duration | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class If:
    """Runs its body when the condition holds."""

    condition: Condition
    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unless:
    """Runs its body when the condition does not hold."""

    condition: Condition
    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class While:
    """Tests `condition` before each pass."""

    condition: StepMarker
    max_iterations: int
    stuck_after: int | None = None
    """Give up when the condition step's marker set was the same in this many passes."""
    on_max_iter: Policy = Policy.FAIL
    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoWhile:
    """Tests `condition` after each pass; the first pass always runs."""

    condition: StepMarker
    max_iterations: int
    stuck_after: int | None = None
    on_max_iter: Policy = Policy.FAIL
    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Do:
    """Runs its body once; calls inside take `output` and `with_` from it, outermost first."""

    output: str | None = None
    with_: tuple[str, ...] = ()
    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelCall:
    """One branch of a `parallel` block. None means that the branch does not set the option."""

    agent: AgentRef
    output: str | None = None
    with_: tuple[str, ...] | None = None
    retries: int | None = None
    condition: StepMarker | None = None
    retry_delay: Duration | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Calls that run at the same time; their results apply in declaration order."""

    calls: tuple[ParallelCall, ...]
    """At least one."""
    fail_fast: bool = True
    min_success: int | None = None
    """None: all calls."""
    output: str | None = None
    with_: tuple[str, ...] = ()
    name: str | None = None
    """Step key of the merged result; None: the block as a whole cannot be referred to."""
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepField:
    """Gate options taken at run time: a JSON object of texts in a step's structured output."""

    step: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A gate of any type but `quality_gate`."""

    name: str
    """As written, else the type, else `type-2`, `type-3`, …: unique unless written twice."""
    gate_type: str
    prompt: str | None = None
    min_approvals: int = 1
    """Approvals a pull request needs; a quorum of people is `approvers`."""
    approval_mode: ApprovalMode = ApprovalMode.MIN_APPROVALS
    timeout_s: int = 86_400
    on_timeout: Policy = Policy.FAIL
    as_identity: str | None = None
    options: Pairs | StepField | None = None
    approvers: int = 1
    """Distinct principals that have to approve."""
    exclude_starter: bool = False
    """Whether the principal who started the run is barred from deciding."""
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityGate:
    """Passes if the numeric `confidence` in the source step's output reaches `threshold`."""

    name: str
    source: str
    """A step key."""
    threshold: int
    """0…100."""
    on_fail: Policy = Policy.FAIL
    as_identity: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Always:
    """A *nested* always block: an inline sequence without any "finally" meaning."""

    body: tuple[Node, ...]
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A shell command, run by a worker that allows it."""

    name: str
    run: str
    """Shell text or a path, before substitution."""
    env: Pairs = ()
    timeout_s: int | None = None
    retries: int = 0
    on_fail: OnFail | None = None
    as_identity: str | None = None
    retry_delay: Duration | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForEach:
    """One child run per item that a provider finds."""

    name: str
    over: str
    """Name of the item provider."""
    scope: Pairs | None = None
    """None and empty differ: a provider may refuse any scope at all."""
    filter: Pairs = ()
    ordered: bool = False
    on_cycle: OnCycle = OnCycle.FAIL
    max_parallel: int
    workflow: str
    inputs: Pairs = ()
    on_child_fail: OnChildFail = OnChildFail.CONTINUE
    span: Span = field(default=NOWHERE, compare=False, repr=False)


Container: TypeAlias = If | Unless | While | DoWhile | Do | Always
"""The nodes that have a `body`."""

Node: TypeAlias = (
    Call
    | CallWorkflow
    | If
    | Unless
    | While
    | DoWhile
    | Do
    | Parallel
    | Gate
    | QualityGate
    | Always
    | Script
    | ForEach
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One declared input of a workflow; its value is always text."""

    name: str
    required: bool = True
    default: str | None = None
    description: str | None = None
    input_type: InputType = InputType.STRING
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A whole workflow."""

    name: str
    title: str | None = None
    description: str = ""
    trigger: Trigger = Trigger.MANUAL
    targets: tuple[str, ...] = ()
    group: str | None = None
    inputs: tuple[Input, ...] = ()
    body: tuple[Node, ...] = ()
    always: tuple[Node, ...] = ()
    """Runs after the body, however that ended."""
    source_path: str = ""
    """The label the text was parsed under."""
    span: Span = field(default=NOWHERE, compare=False, repr=False)

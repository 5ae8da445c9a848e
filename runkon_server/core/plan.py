"""A definition made ready to run: settings resolved, paths and keys worked out, once per version.

Nodes are compared by identity: two states of one run hold nodes of one and the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from runkon_server.core.outputs_schema import Schema
    from runkon_server.dsl.ast import Condition, ForEach, Gate, Pairs, QualityGate, StepMarker
    from runkon_server.dsl.shell import ShellText


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CallNode:
    """One call, one branch of a parallel block, or one on_fail agent."""

    path: str
    """Section and child numbers: `body.3.1`."""
    name: str
    """The agent as written; the name of its action."""
    key: str
    columns: dict[str, Any]
    """Those of its rows that are the same for every row."""
    retries: int = 0
    retry_delay_s: float | None = None
    timeout_s: float | None = None
    identity: str | None = None
    max_turns: int | None = None
    plugin_dirs: tuple[str, ...] = ()
    output_schema: str | None = None
    schema: Schema | None = None
    """The one that `output_schema` names; None beside a name: it is not stored."""
    snippets: tuple[str, ...] = ()
    """Outermost block first, the call's own last."""
    on_fail: CallNode | None = None
    tolerated: bool = False
    """`on_fail = continue`."""
    condition: StepMarker | None = None
    """Of a branch."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScriptNode:
    """A shell text for workers that execute scripts. All attempts share one row."""

    path: str
    name: str
    key: str
    columns: dict[str, Any]
    command: ShellText
    environment: Pairs
    """Before substitution."""
    retries: int = 0
    retry_delay_s: float | None = None
    timeout_s: float | None = None
    identity: str | None = None
    on_fail: CallNode | None = None
    tolerated: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ChildNode:
    """`call workflow`: a run of another workflow as one step. Every attempt has a row."""

    path: str
    name: str
    """`workflow:NAME`, as rows show it."""
    key: str
    workflow: str
    columns: dict[str, Any]
    inputs: Pairs
    """Before substitution."""
    retries: int = 0
    retry_delay_s: float | None = None
    identity: str | None = None
    on_fail: CallNode | None = None
    tolerated: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ForEachNode:
    """A child run per item that a provider finds; one row, and one per item."""

    path: str
    name: str
    """`foreach:NAME`, which is also the key."""
    key: str
    columns: dict[str, Any]
    each: ForEach


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Block:
    """A sequence that is walked once: a section, `do`, nested `always`, `if`, `unless`."""

    path: str
    children: tuple[PlanNode, ...]
    condition: Condition | None = None
    wanted: bool = True
    """The value of the condition that opens the block."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Loop:
    """A sequence that is walked once per pass."""

    path: str
    children: tuple[PlanNode, ...]
    condition: StepMarker
    tests_first: bool
    """`while`; otherwise `do … while`."""
    max_iterations: int
    stuck_after: int | None
    fails_at_max: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ParallelNode:
    """Calls that run at the same time."""

    path: str
    branches: tuple[CallNode, ...]
    fail_fast: bool
    min_success: int
    """At most the number of branches."""
    name: str | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GateNode:
    """A gate that is decided from outside."""

    path: str
    gate: Gate
    columns: dict[str, Any]
    is_polled: bool = False
    """Whether workers are asked to look at it; people decide the others."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QualityGateNode:
    """A gate that a number in a step's output decides at once."""

    path: str
    gate: QualityGate
    columns: dict[str, Any]


Repeatable: TypeAlias = CallNode | ScriptNode | ChildNode
"""Steps that have attempts, and may have an on_fail agent."""

PlanNode: TypeAlias = (
    CallNode
    | ScriptNode
    | ChildNode
    | ForEachNode
    | Block
    | Loop
    | ParallelNode
    | GateNode
    | QualityGateNode
)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """All that runs of one version of a workflow share."""

    name: str
    display_name: str
    body: Block
    always: Block
    watched: frozenset[str]
    """Step keys that some condition looks at; the markers of others need not be kept."""
    option_sources: frozenset[str]
    """Step keys that some gate takes its options, or its verdict, from."""
    declared: frozenset[str]
    """Names of inputs; no step may export one."""

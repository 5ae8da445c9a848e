"""Questions about a syntax tree that others ask: keys, names, counts, collections of references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from runkon_server.dsl.ast import (
    AgentKind,
    AgentRef,
    Always,
    Call,
    CallWorkflow,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Parallel,
    ParallelCall,
    QualityGate,
    Script,
    Unless,
    While,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.dsl.ast import Definition, Node

CONTAINERS = (If, Unless, While, DoWhile, Do, Always)
"""The classes of nodes that have a `body`, for `isinstance`."""

KeyedNode: TypeAlias = Call | ParallelCall | CallWorkflow | Script | Gate | QualityGate | ForEach
"""The nodes that have a step of their own."""


def display_name(definition: Definition) -> str:
    """The title, or the name when there is none."""
    return definition.title or definition.name


def agent_key(agent: AgentRef) -> str:
    """The step key of a call: its name, or the last path component without its last extension.

    `ops/scan.md` gives `scan`, `.x` gives `.x`, `a.tar.gz` gives `a.tar`.
    """
    if agent.kind is AgentKind.NAME:
        return agent.value
    component = agent.value.rstrip("/").rpartition("/")[2]
    if component in {"", ".", ".."}:
        return agent.value
    stem, dot, _ = component.rpartition(".")
    return stem if dot and stem else component


def step_key(node: KeyedNode) -> str:
    """The one key under which a step is recorded, its result stored and its markers found.

    A gate's key is its name; gates produce nothing that conditions could refer to.
    """
    match node:
        case Call() | ParallelCall():
            return agent_key(node.agent)
        case CallWorkflow():
            return node.workflow
        case Script() | Gate() | QualityGate():
            return node.name
        case ForEach():
            return f"foreach:{node.name}"


def walk(nodes: Sequence[Node]) -> list[Node]:
    """Every node of a list and of the bodies below it, in source order, containers first."""
    found: list[Node] = []
    waiting = [*reversed(nodes)]  # no recursion, and no generator: a check walks a dozen times
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, CONTAINERS):
            waiting += reversed(node.body)
    return found


def all_nodes(definition: Definition) -> Sequence[Node]:
    """Every node of the body, then of the always block."""
    known, nodes = _LAST_WALKED[0]
    if known is not definition:
        nodes = tuple(walk([*definition.body, *definition.always]))
        _LAST_WALKED[0] = (definition, nodes)
    return nodes


# A check asks a dozen times about one definition. Definitions never change, so what was found for
# the last one still holds; one exchange of the pair, so threads do not meet halves of it.
_LAST_WALKED: Final[list[tuple[Definition | None, tuple[Node, ...]]]] = [(None, ())]


def total_nodes(definition: Definition) -> int:
    """How many nodes there are; a parallel block counts one more for each of its calls."""
    return sum(
        1 + (len(node.calls) if isinstance(node, Parallel) else 0) for node in all_nodes(definition)
    )


def top_level_steps(definition: Definition) -> int:
    """How many nodes stand directly in the body and the always block."""
    return len(definition.body) + len(definition.always)


def max_iterations(definition: Definition, step: str) -> int | None:
    """The limit of the first loop whose condition looks at `step`; None without such a loop."""
    for node in all_nodes(definition):
        if isinstance(node, While | DoWhile) and node.condition.step == step:
            return node.max_iterations
    return None


def agent_refs(definition: Definition) -> tuple[AgentRef, ...]:
    """Every agent a run may call, on_fail agents included; names before paths, then by text."""
    found: set[AgentRef] = set()
    for node in all_nodes(definition):
        if isinstance(node, Call):
            found.add(node.agent)
        elif isinstance(node, Parallel):
            found.update(call.agent for call in node.calls)
        if isinstance(node, Call | CallWorkflow | Script) and isinstance(node.on_fail, AgentRef):
            found.add(node.on_fail)
    return tuple(sorted(found, key=lambda ref: (ref.kind, ref.value)))


def snippet_refs(definition: Definition) -> tuple[str, ...]:
    """Every prompt snippet named by a `with`, sorted."""
    found: set[str] = set()
    for node in all_nodes(definition):
        if isinstance(node, Call | Do | Parallel):
            found.update(node.with_)
        if isinstance(node, Parallel):
            found.update(snippet for call in node.calls for snippet in call.with_ or ())
    return tuple(sorted(found))


def schema_refs(definition: Definition) -> tuple[str, ...]:
    """Every output schema named by an `output`, sorted."""
    found: set[str | None] = set()
    for node in all_nodes(definition):
        if isinstance(node, Call | Do | Parallel):
            found.add(node.output)
        if isinstance(node, Parallel):
            found.update(call.output for call in node.calls)
    return tuple(sorted(ref for ref in found if ref is not None))


def identities(definition: Definition) -> tuple[str, ...]:
    """Every identity a step asks to run as, sorted."""
    found = {
        node.as_identity
        for node in all_nodes(definition)
        if isinstance(node, Call | CallWorkflow | Gate | QualityGate | Script)
    }
    return tuple(sorted(identity for identity in found if identity is not None))


def plugin_dirs(definition: Definition) -> tuple[str, ...]:
    """Every extra plugin directory of a call, sorted."""
    return tuple(
        sorted(
            {
                path
                for node in all_nodes(definition)
                if isinstance(node, Call)
                for path in node.plugin_dirs
            }
        )
    )


def workflow_refs(definition: Definition) -> tuple[str, ...]:
    """Every workflow this one may start, in source order, with repetitions."""
    return tuple(
        node.workflow for node in all_nodes(definition) if isinstance(node, CallWorkflow | ForEach)
    )

"""Whether somebody is there to do what a workflow asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import (
    AgentRef,
    Call,
    CallWorkflow,
    Definition,
    Gate,
    Parallel,
    Script,
)
from runkon_server.dsl.diagnostics import diagnostic, did_you_mean
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Node
    from runkon_server.dsl.checking.world import Library, World
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Span


def check_serving(definition: Definition, world: World, library: Library) -> Iterator[Diagnostic]:
    """Report actions, gates and scripts that nobody serves, in the workflow and in all it calls.

    What is found in a called workflow is reported where it is called, with its name in front,
    unless that is checked by itself; so are its own calls of workflows that cannot be loaded.
    All this is the check before a run: without a word about who serves what, nothing is done.
    """
    if world.actions is None and world.gate_types is None and world.executes_scripts is not False:
        return
    yield from _Service(world, library).check(definition, None, "")


class _Service:
    def __init__(self, world: World, library: Library) -> None:
        self._world = world
        self._library = library
        self._visited = set(world.members)

    def check(self, definition: Definition, span: Span | None, prefix: str) -> Iterator[Diagnostic]:
        """Check one workflow; findings go to `span`, or where they are if it is None."""
        self._visited.add(definition.name)
        for node in all_nodes(definition):
            yield from self._node(node, span, prefix)

    def _node(self, node: Node, span: Span | None, prefix: str) -> Iterator[Diagnostic]:
        at = span or node.span
        match node:
            case Call():
                yield from self._agent(node.agent, at, codes.UNSERVED_ACTION, prefix)
            case Parallel():
                for call in node.calls:
                    place = span or call.span
                    yield from self._agent(call.agent, place, codes.UNSERVED_BRANCH, prefix)
            case Gate():
                yield from self._gate(node, at, prefix)
            case CallWorkflow():
                yield from self._child(node.workflow, at, prefix)
            case Script() if self._world.executes_scripts is False:
                message = f"{prefix}no worker executes scripts such as `{node.name}`"
                yield diagnostic(codes.UNSERVED_SCRIPT, at, message)
            case _:
                pass
        if isinstance(node, Call | CallWorkflow | Script) and isinstance(node.on_fail, AgentRef):
            yield from self._agent(node.on_fail, at, codes.UNSERVED_ON_FAIL, prefix)

    def _child(self, name: str, span: Span, prefix: str) -> Iterator[Diagnostic]:
        if name in self._visited:
            return
        self._visited.add(name)
        child = self._library.find(name)
        if isinstance(child, Definition):
            yield from self.check(child, span, f"{prefix}in `{name}`: ")
        elif child is not None and prefix:  # without one, `check_children` says so
            message = f"{prefix}the workflow `{name}` cannot be loaded: {child}"
            yield diagnostic(codes.UNKNOWN_WORKFLOW, span, message)

    def _agent(self, agent: AgentRef, span: Span, code: Code, prefix: str) -> Iterator[Diagnostic]:
        actions = self._world.actions
        if actions is not None and agent.value not in actions:
            message = f"{prefix}no worker serves `{agent.value}`"
            yield diagnostic(code, span, message, hint=did_you_mean(agent.value, actions))

    def _gate(self, gate: Gate, span: Span, prefix: str) -> Iterator[Diagnostic]:
        known = self._world.gate_types
        if known is not None and gate.gate_type not in known:
            message = f"{prefix}nobody resolves gates of type `{gate.gate_type}`"
            hint = did_you_mean(gate.gate_type, known)
            yield diagnostic(codes.UNSERVED_GATE, span, message, hint=hint)

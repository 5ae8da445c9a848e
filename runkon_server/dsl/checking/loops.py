"""Loops that cannot end well, and what stands behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Always, CallWorkflow, Definition, Do, DoWhile, While
from runkon_server.dsl.checking.steps import produced_keys
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import CONTAINERS, all_nodes, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Node
    from runkon_server.dsl.checking.world import Library
    from runkon_server.dsl.diagnostics import Diagnostic


def check_loops(definition: Definition, library: Library) -> Iterator[Diagnostic]:
    """Warn about loops whose condition stays as it is, and about steps that are never reached."""
    produced = {key for node in all_nodes(definition) for key in produced_keys(node)}
    for node in all_nodes(definition):
        if not isinstance(node, While | DoWhile) or node.condition.step not in produced:
            continue
        if not _can_change(node, library):
            condition = f"{node.condition.step}.{node.condition.marker}"
            yield diagnostic(
                codes.UNCHANGING_LOOP,
                node.condition.span,
                f"nothing in this loop changes `{condition}`, so it runs until its limit",
                hint=f"put a step `{node.condition.step}` into the loop",
            )
    yield from _unreached(definition.body)
    yield from _unreached(definition.always)


def _can_change(loop: While | DoWhile, library: Library) -> bool:
    """Whether a step in the body, or in a workflow it calls, is the one the condition looks at."""
    for node in walk(loop.body):
        if loop.condition.step in produced_keys(node):
            return True
        if isinstance(node, CallWorkflow):
            child = library.find(node.workflow)
            if not isinstance(child, Definition):
                return True
            if any(loop.condition.step in produced_keys(each) for each in walk(child.body)):
                return True
    return False


def _unreached(nodes: tuple[Node, ...]) -> Iterator[Diagnostic]:
    failing: Node | None = None
    for node in nodes:
        if failing is not None:
            message = f"this is never reached: the run always ends on line {failing.span.line}"
            yield diagnostic(codes.NEVER_REACHED, node.span, message)
            return
        if isinstance(node, CONTAINERS):
            yield from _unreached(node.body)
        failing = node if _always_fails(node) else None


def _always_fails(node: Node) -> bool:
    """Whether a node, once entered, surely ends the run.

    The markers of one pass are always the same as themselves, so `stuck_after = 1` fires after
    the first; and a `do` loop has a first.
    """
    if isinstance(node, DoWhile) and node.stuck_after == 1:
        return True
    return isinstance(node, Do | DoWhile | Always) and any(map(_always_fails, node.body))

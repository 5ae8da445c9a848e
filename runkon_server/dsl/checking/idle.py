"""Options that change nothing where they stand, because what they need is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import (
    Call,
    CallWorkflow,
    Do,
    DoWhile,
    ForEach,
    OnCycle,
    Parallel,
    ParallelCall,
    Script,
    While,
)
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import all_nodes, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.diagnostics import Diagnostic


def check_idle(definition: Definition) -> Iterator[Diagnostic]:
    """Warn about each option that could be left out without a difference to any run."""
    for node in _with_branches(definition):
        for option, reason, hint in _idle_options(node):
            message = f"`{option}` has no effect here: {reason}"
            yield diagnostic(codes.IDLE_OPTION, node.span, message, hint=hint)


def _with_branches(definition: Definition) -> Iterator[Node | ParallelCall]:
    for node in all_nodes(definition):
        yield node
        if isinstance(node, Parallel):
            yield from node.calls


def _idle_options(node: Node | ParallelCall) -> Iterator[tuple[str, str, str]]:
    """Each idle option with the reason and what may have been meant."""
    match node:
        case Call() | CallWorkflow() | Script() | ParallelCall():
            if node.retry_delay is not None and not node.retries:
                yield "retry_delay", "there are no retries", "add `retries = 1`, or more"
        case While() | DoWhile():
            stuck_after = node.stuck_after or 0
            if stuck_after > node.max_iterations > 0:
                reason = f"the loop ends after {node.max_iterations} passes"
                yield "stuck_after", reason, "it has to be below `max_iterations`"
        case ForEach(on_cycle=OnCycle.WARN, ordered=False):
            reason = "without an order there are no circles"
            yield "on_cycle", reason, "add `ordered = true`"
        case Do():
            if not any(isinstance(inner, Call | Parallel) for inner in walk(node.body)):
                hint = "it is for the calls inside the block"
                if node.output is not None:
                    yield "output", "nothing inside takes it", hint
                if node.with_:
                    yield "with", "nothing inside takes it", hint
        case _:
            pass

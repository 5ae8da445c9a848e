"""What the language knows and this version of the server does not run yet.

Every construct that arrives in the engine leaves this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.ast import (
    Call,
    CallWorkflow,
    Do,
    ForEach,
    Gate,
    Parallel,
    ParallelCall,
    QualityGate,
    Script,
)
from runkon_server.dsl.codes import UNSUPPORTED
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.diagnostics import Diagnostic

_SERVED_GATES: Final = frozenset({"human_approval", "human_review"})


def refuse_unsupported(definition: Definition) -> tuple[Diagnostic, ...]:
    """One error for each node that a run could not execute."""
    return tuple(
        diagnostic(UNSUPPORTED, node.span, f"{what} are not served by this version yet")
        for node in _with_branches(definition)
        if (what := _unsupported(node)) is not None
    )


def _with_branches(definition: Definition) -> Iterator[Node | ParallelCall]:
    for node in all_nodes(definition):
        yield node
        if isinstance(node, Parallel):
            yield from node.calls


def _unsupported(node: Node | ParallelCall) -> str | None:
    match node:
        case CallWorkflow():
            return "calls of other workflows"
        case ForEach():
            return "`foreach` steps"
        case Script():
            return "`script` steps"
        case QualityGate():
            return "quality gates"
        case Gate(gate_type=gate_type) if gate_type not in _SERVED_GATES:
            return f"gates of type `{gate_type}`"
        case Call() | ParallelCall() | Parallel() | Do() if node.output is not None:
            return "output schemas (`output`)"
        case Call() | ParallelCall() | Parallel() | Do() if node.with_:
            return "prompt snippets (`with`)"
        case _:
            return None

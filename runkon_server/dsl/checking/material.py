"""Whether what calls refer to is there: prompt snippets, output schemas, identities."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runkon_server.dsl import codes
from runkon_server.dsl.ast import (
    Call,
    CallWorkflow,
    Do,
    Gate,
    Parallel,
    ParallelCall,
    QualityGate,
    Script,
)
from runkon_server.dsl.diagnostics import diagnostic, did_you_mean
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.checking.world import World
    from runkon_server.dsl.diagnostics import Diagnostic

_Prompted: TypeAlias = Call | Do | Parallel | ParallelCall


def check_material(definition: Definition, world: World) -> Iterator[Diagnostic]:
    """Check every reference of a kind whose names are known."""
    for node in _with_branches(definition):
        if isinstance(node, Call | Do | Parallel | ParallelCall):
            if world.snippets is not None:
                yield from _check_snippets(node, world.snippets)
            if world.schemas is not None and node.output is not None:
                yield from _check_schema(node, node.output, world.schemas)
        if (
            isinstance(node, Call | CallWorkflow | Gate | QualityGate | Script)
            and world.identities is not None
            and node.as_identity is not None
            and node.as_identity not in world.identities
        ):
            yield diagnostic(
                codes.UNKNOWN_IDENTITY,
                node.span,
                f"nobody knows the identity `{node.as_identity}`",
                hint=did_you_mean(node.as_identity, world.identities),
            )


def _with_branches(definition: Definition) -> Iterator[Node | ParallelCall]:
    for node in all_nodes(definition):
        yield node
        if isinstance(node, Parallel):
            yield from node.calls


def _check_snippets(node: _Prompted, known: Collection[str]) -> Iterator[Diagnostic]:
    for name in node.with_ or ():
        if name not in known:
            yield diagnostic(
                codes.UNKNOWN_SNIPPET,
                node.span,
                f"there is no prompt snippet `{name}`",
                hint=did_you_mean(name, known),
            )


def _check_schema(
    node: _Prompted, name: str, known: Mapping[str, str | None]
) -> Iterator[Diagnostic]:
    if name not in known:
        message = f"there is no output schema `{name}`"
        hint = did_you_mean(name, known)
        yield diagnostic(codes.UNKNOWN_SCHEMA, node.span, message, hint=hint)
    elif (reason := known[name]) is not None:
        message = f"the output schema `{name}` cannot be used: {reason}"
        yield diagnostic(codes.BAD_SCHEMA, node.span, message)

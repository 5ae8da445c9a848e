"""What is wrong with a workflow although it could be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Parallel
from runkon_server.dsl.checking.steps import check_steps
from runkon_server.dsl.diagnostics import diagnostic, in_order
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.reserved import ENGINE_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic

    Loader: TypeAlias = Callable[[str], Definition | str]


def check(definition: Definition, load: Loader | None = None) -> tuple[Diagnostic, ...]:
    """Errors that would surely go wrong in a run, and warnings about what is likely a mistake.

    Args:
        definition: the workflow to check.
        load: gives the workflow of a name, or a text that says why it cannot. Without it,
            nothing is concluded from the workflows that this one calls.
    """
    return in_order(
        [*check_steps(definition, load), *_check_inputs(definition), *_check_parallel(definition)]
    )


def _check_inputs(definition: Definition) -> Iterator[Diagnostic]:
    for declared in definition.inputs:
        if declared.name in ENGINE_VARIABLES:
            yield diagnostic(
                codes.ENGINE_OWNED_INPUT,
                declared.span,
                f"`{declared.name}` is a built-in variable; the value of this input is never seen",
                hint="give the input another name",
            )


def _check_parallel(definition: Definition) -> Iterator[Diagnostic]:
    for node in all_nodes(definition):
        if isinstance(node, Parallel) and (node.min_success or 0) > len(node.calls):
            yield diagnostic(
                codes.MIN_SUCCESS_ABOVE_CALLS,
                node.span,
                f"`min_success` is {node.min_success}, but there are {len(node.calls)} calls",
                hint="all of them have to succeed; leave `min_success` out to say so",
            )

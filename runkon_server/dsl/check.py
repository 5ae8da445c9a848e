"""What is wrong with workflows although they can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import Parallel
from runkon_server.dsl.checking.children import check_children
from runkon_server.dsl.checking.composition import check_composition
from runkon_server.dsl.checking.idle import check_idle
from runkon_server.dsl.checking.loops import check_loops
from runkon_server.dsl.checking.material import check_material
from runkon_server.dsl.checking.providers import check_providers
from runkon_server.dsl.checking.scripts import check_placeholders, check_scripts
from runkon_server.dsl.checking.serving import check_serving
from runkon_server.dsl.checking.steps import check_steps
from runkon_server.dsl.checking.variables import check_variables
from runkon_server.dsl.checking.world import NOWHERE_IN_PARTICULAR, Library, Provider, World
from runkon_server.dsl.diagnostics import diagnostic, did_you_mean, in_order
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.reserved import ENGINE_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic

__all__ = ["Provider", "World", "check"]


def check(definition: Definition, world: World = NOWHERE_IN_PARTICULAR) -> tuple[Diagnostic, ...]:
    """Errors that would surely go wrong in a run, and warnings about what is likely a mistake.

    Args:
        definition: the workflow to check. Those it calls are looked at, but not checked.
        world: what is known about where it will run.
    """
    library = Library(world.load)
    return in_order(
        [
            *check_steps(definition, library),
            *check_children(definition, library),
            *check_composition(definition, library),
            *check_providers(definition, world.providers),
            *check_serving(definition, world, library),
            *check_material(definition, world),
            *check_placeholders(definition),
            *check_scripts(definition, world.scripts),
            *check_loops(definition, library),
            *check_idle(definition),
            *check_variables(definition),
            *_check_targets(definition, world.targets),
            *_check_inputs(definition),
            *_check_parallel(definition),
        ]
    )


def _check_targets(definition: Definition, allowed: Collection[str] | None) -> Iterator[Diagnostic]:
    if not allowed:
        return
    for target in definition.targets:
        if target not in allowed:
            yield diagnostic(
                codes.UNKNOWN_TARGET,
                definition.span,
                f"`{definition.name}` cannot target `{target}`",
                hint=did_you_mean(target, allowed) or f"allowed are {', '.join(allowed)}",
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

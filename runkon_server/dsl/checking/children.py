"""Whether called workflows exist and get the inputs they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl import codes
from runkon_server.dsl.ast import CallWorkflow, ForEach, InputType
from runkon_server.dsl.diagnostics import diagnostic, did_you_mean
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.substitute import placeholders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.checking.world import Library
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.diagnostics import Diagnostic


class _Codes(NamedTuple):
    unknown: Code
    missing: Code
    hint: str


_CALL: Final = _Codes(
    codes.UNKNOWN_WORKFLOW, codes.MISSING_INPUT, 'write `inputs {{ {name} = "…" }}`'
)
_FOREACH: Final = _Codes(
    codes.UNKNOWN_CHILD,
    codes.MISSING_CHILD_INPUT,
    'write `inputs = {{ {name} = "{{{{item.id}}}}" }}`, or another value',
)


def check_children(definition: Definition, library: Library) -> Iterator[Diagnostic]:
    """Check every call of a workflow, by `call workflow` or by `foreach`."""
    for node in all_nodes(definition):
        if isinstance(node, CallWorkflow):
            yield from _check_child(node, library, _CALL)
        elif isinstance(node, ForEach):
            yield from _check_child(node, library, _FOREACH)


def _check_child(
    node: CallWorkflow | ForEach, library: Library, kind: _Codes
) -> Iterator[Diagnostic]:
    child = library.find(node.workflow)
    if child is None:
        return
    if isinstance(child, str):
        message = f"the workflow `{node.workflow}` cannot be loaded: {child}"
        yield diagnostic(kind.unknown, node.span, message)
        return
    given = dict(node.inputs)
    for declared in child.inputs:
        if declared.required and declared.name not in given:
            yield diagnostic(
                kind.missing,
                node.span,
                f"`{node.workflow}` needs the input `{declared.name}`",
                hint=kind.hint.format(name=declared.name),
            )
    yield from _check_values(node, child)


def _check_values(node: CallWorkflow | ForEach, child: Definition) -> Iterator[Diagnostic]:
    types = {declared.name: declared.input_type for declared in child.inputs}
    for name, value in node.inputs:
        if name not in types:
            yield diagnostic(
                codes.UNDECLARED_CHILD_INPUT,
                node.span,
                f"`{node.workflow}` declares no input `{name}`",
                hint=did_you_mean(name, types),
            )
        elif types[name] is InputType.BOOLEAN and not _may_be_boolean(value):
            yield diagnostic(
                codes.BAD_CHILD_BOOLEAN,
                node.span,
                f"the input `{name}` of `{node.workflow}` must be `true` or `false`",
            )


def _may_be_boolean(value: str) -> bool:
    return value.lower() in {"true", "false"} or any(placeholders(value))

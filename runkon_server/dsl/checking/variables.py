"""Placeholders that no variable stands behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes
from runkon_server.dsl.ast import (
    Call,
    CallWorkflow,
    ForEach,
    Gate,
    Parallel,
    Script,
)
from runkon_server.dsl.diagnostics import diagnostic, nearest
from runkon_server.dsl.queries import all_nodes
from runkon_server.dsl.reserved import ENGINE_VARIABLES
from runkon_server.dsl.substitute import placeholders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.diagnostics import Diagnostic

_SUGGESTIONS = 50
"""Names without a value that are compared with the inputs; only so many, because it costs time."""
_INPUTS = "inputs."
_ITEM = "item."


def check_variables(definition: Definition) -> Iterator[Diagnostic]:
    """Warn about names that surely, or very likely, have no value.

    Steps may export any name, so behind the first one only names that look like a slip for an
    input are doubtful.
    """
    declared = {each.name for each in definition.inputs}
    may_be_exported = False
    suggestions_left = _SUGGESTIONS
    for node in all_nodes(definition):
        for name in dict.fromkeys(_names(node)):
            if _is_known(name, declared, node):
                continue
            bare = name.removeprefix(_INPUTS)
            near = nearest(bare, declared) if suggestions_left > 0 else None
            suggestions_left -= 1
            if not may_be_exported or near is not None or bare != name:
                yield diagnostic(
                    codes.UNKNOWN_PLACEHOLDER,
                    node.span,
                    f"nothing gives `{{{{{name}}}}}` a value",
                    hint=None if near is None else f"did you mean `{{{{{near}}}}}`?",
                )
        may_be_exported |= isinstance(node, Call | CallWorkflow | Script | Parallel | ForEach)
        if isinstance(node, Gate) and any(placeholders(node.prompt or "")):
            message = "placeholders in the prompt of a gate are shown as they are"
            yield diagnostic(codes.PLACEHOLDER_IN_PROMPT, node.span, message)


def _names(node: Node) -> Iterator[str]:
    """The placeholders in the texts of a node that are expanded."""
    texts: list[str] = []
    if isinstance(node, Script):
        texts = [node.run, *(value for _, value in node.env)]
    elif isinstance(node, CallWorkflow | ForEach):
        texts = [value for _, value in node.inputs]
    for text in texts:
        yield from (found.name for found in placeholders(text))


def _is_known(name: str, declared: set[str], node: Node) -> bool:
    if isinstance(node, ForEach) and name.startswith(_ITEM):
        return True
    return name in ENGINE_VARIABLES or name.removeprefix(_INPUTS) in declared

"""Whether workflows that call each other come to an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runkon_server.dsl import codes, limits
from runkon_server.dsl.ast import CallWorkflow, Definition, ForEach
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import all_nodes, workflow_refs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.checking.world import Library
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Span

Names: TypeAlias = tuple[str, ...]


def check_composition(definition: Definition, library: Library) -> Iterator[Diagnostic]:
    """Report the first circle, or the first chain of calls that is too long.

    A workflow that cannot be loaded ends its chain.
    """
    if not library.is_open:
        return
    finding = _Search(library).below(definition, (definition.name,))
    if finding is None:
        return
    code, path = finding
    shown = " -> ".join(path)
    message = f"workflows call each other in a circle: {shown}"
    if code is codes.CALLS_TOO_DEEP:
        message = f"calls may be {limits.CALL_DEPTH} deep: {shown}"
    yield diagnostic(code, _span_of(definition, path[1]), message)


class _Search:
    """A depth-first search that enters every workflow once."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._longest: dict[str, Names] = {}
        """Workflow → the longest chain of calls below it, for those without a finding."""

    def below(self, definition: Definition, path: Names) -> tuple[Code, Names] | None:
        """The first finding below a workflow, which is the last of the path."""
        longest: Names = ()
        for name in sorted(set(workflow_refs(definition))):
            finding = self._enter(name, path)
            if finding is not None:
                return finding
            longest = max(longest, (name, *self._longest[name]), key=len)
        self._longest[path[-1]] = longest
        return None

    def _enter(self, name: str, path: Names) -> tuple[Code, Names] | None:
        if name in path:
            return codes.CIRCULAR_CALL, (*path, name)
        chain = (*path, name, *self._longest.get(name, ()))
        if len(chain) - 1 > limits.CALL_DEPTH:
            return codes.CALLS_TOO_DEEP, chain
        if name in self._longest:
            return None
        child = self._library.find(name)
        if not isinstance(child, Definition):
            self._longest[name] = ()
            return None
        return self.below(child, (*path, name))


def _span_of(definition: Definition, name: str) -> Span:
    return next(
        node.span
        for node in all_nodes(definition)
        if isinstance(node, CallWorkflow | ForEach) and node.workflow == name
    )

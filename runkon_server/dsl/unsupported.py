"""What the language knows and this version of the server does not run.

Nothing at present. A construct stands here from the release that reads it to the one that runs it,
so that texts can be written, checked and drawn before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.codes import UNSUPPORTED
from runkon_server.dsl.diagnostics import diagnostic
from runkon_server.dsl.queries import all_nodes

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.diagnostics import Diagnostic

NOT_SERVED: Final[dict[type[Node], str]] = {}
"""Kinds of nodes, with what they are called."""


def refuse_unsupported(definition: Definition) -> tuple[Diagnostic, ...]:
    """One error for each node that a run could not execute."""
    if not NOT_SERVED:
        return ()
    return tuple(
        diagnostic(UNSUPPORTED, node.span, f"{what} are not served by this version yet")
        for node in all_nodes(definition)
        if (what := NOT_SERVED.get(type(node))) is not None
    )

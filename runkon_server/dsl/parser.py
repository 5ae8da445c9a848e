"""Text to syntax tree: the front door of the language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.problems import Problems, StopReading
from runkon_server.dsl.reading.cursor import Cursor
from runkon_server.dsl.reading.workflow import WorkflowReader
from runkon_server.dsl.source import Source
from runkon_server.dsl.strings import FIRST_EDITION

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseResult:
    """What a text says, and what is wrong with it."""

    definition: Definition | None
    """None exactly when there is an error among the diagnostics."""
    sketch: Definition | None
    """The definition as far as it could be made out in spite of errors; None: not at all."""
    diagnostics: tuple[Diagnostic, ...]
    """Errors and warnings, from the top of the text to its end."""
    source: Source
    tokens: Tokens | None
    """None if the text was given up before its end."""

    def render(self) -> str:
        """All diagnostics with their excerpts, one blank line between them."""
        return "\n\n".join(each.render(self.source) for each in self.diagnostics)


def parse(text: str, label: str, *, edition: int = FIRST_EDITION) -> ParseResult:
    r"""Read one workflow.

    Never raises, whatever the text, and takes time in proportion to its length.

    Args:
        text: the source, decoded.
        label: a path or another name for the source; becomes `Definition.source_path`.
        edition: 2 adds the string escapes `\r` and `\uXXXX`.
    """
    source = Source(text, label)
    problems = Problems(source)
    sketch = tokens = None
    try:
        tokens = tokenise(source, problems)
        cursor = Cursor(tokens, problems, edition=edition)
        sketch = WorkflowReader(cursor, label).read()
    except StopReading:
        sketch = None
    diagnostics = problems.in_order()
    definition = None if has_errors(diagnostics) else sketch
    return ParseResult(
        definition=definition,
        sketch=sketch,
        diagnostics=diagnostics,
        source=source,
        tokens=tokens,
    )

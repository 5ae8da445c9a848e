"""The one canonical layout of a workflow text.

Two blanks of indentation and one step, option or declaration a line; up to two options stand in
the line of their step. Comments stay where they are, and groups stay apart by one blank line. The
result says the same as the source (`parse` gives equal definitions) and does not change when it
is formatted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.formatting.printer import print_file
from runkon_server.dsl.formatting.reader import read_file
from runkon_server.dsl.parser import parse
from runkon_server.dsl.strings import FIRST_EDITION

if TYPE_CHECKING:
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatResult:
    """A text in its canonical layout, and what is wrong with it."""

    text: str | None
    """None exactly when there is an error among the diagnostics."""
    diagnostics: tuple[Diagnostic, ...]
    source: Source


def format_text(text: str, label: str, *, edition: int = FIRST_EDITION) -> FormatResult:
    """Lay out one workflow. A text with errors is not touched. Arguments are those of `parse`."""
    result = parse(text, label, edition=edition)
    formatted = None
    if result.tokens is not None and not has_errors(result.diagnostics):
        formatted = print_file(read_file(result.tokens))
    return FormatResult(text=formatted, diagnostics=result.diagnostics, source=result.source)

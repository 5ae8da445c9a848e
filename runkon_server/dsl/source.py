"""Positions in a source text, and the text they point into.

Offsets count code points from 0. Lines and columns count from 1, also in code points; a tab or a
carriage return is one column wide, and only a line feed starts a new line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from typing import Final, NamedTuple

_LINE_FEED: Final = re.compile("\n")


class Span(NamedTuple):
    """A half-open range of a source text; `line` and `column` belong to its first character."""

    offset: int
    end: int
    line: int
    column: int

    @property
    def length(self) -> int:
        """Code points covered."""
        return self.end - self.offset


NOWHERE: Final = Span(0, 0, 0, 0)
"""The span of a node that was not read from source, for example one loaded from a snapshot."""


class Source:
    """A source text with its label and, from the first question on, the table of its lines."""

    def __init__(self, text: str, label: str) -> None:
        self.text = text
        self.label = label

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *[match.end() for match in _LINE_FEED.finditer(self.text)]]

    def span(self, offset: int, end: int) -> Span:
        """The range between two offsets, with the line and column it starts at."""
        starts = self._line_starts
        line = bisect_right(starts, offset)
        return Span(offset, end, line, offset - starts[line - 1] + 1)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset; the end of the text is a legal offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line_start(self, offset: int) -> int:
        """Offset of the start of the line an offset lies on."""
        return self._line_starts[bisect_right(self._line_starts, offset) - 1]

    def line_text(self, line: int) -> str:
        """One line without its line break; empty for a line the text does not have."""
        if not 1 <= line <= len(self._line_starts):
            return ""
        start = self._line_starts[line - 1]
        end = self._line_starts[line] - 1 if line < len(self._line_starts) else len(self.text)
        return self.text[start:end].removesuffix("\r")

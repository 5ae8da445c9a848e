"""Which bracket closes which, and what braces without a partner say about the mistake."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.tokens import OPENERS

if TYPE_CHECKING:
    from runkon_server.dsl.tokens import Tokens

_INDENT: Final = re.compile(r"[ \t]*")
_PAIRS_INSPECTED: Final = 5_000


class Brackets:
    """The pairing of the brackets of a text; a `}` also ends the lists left open in its block."""

    def __init__(self, tokens: Tokens) -> None:
        self.closer_of: dict[int, int] = {}
        """Index of an opening bracket → index of its closing one, the innermost pairs first."""
        self.unclosed = 0
        """How many braces nothing closes."""
        self.surplus = 0
        """How many closing braces nothing opened."""
        self._tokens = tokens
        self._pair(tokens.kinds)

    def _pair(self, kinds: list[str]) -> None:
        opened: list[int] = []
        for index, kind in enumerate(kinds):
            if kind in OPENERS:
                opened.append(index)
            elif kind == "]":
                if opened and kinds[opened[-1]] == "[":
                    self.closer_of[opened.pop()] = index
            elif kind == "}":
                while opened and kinds[opened[-1]] == "[":
                    opened.pop()
                if opened:
                    self.closer_of[opened.pop()] = index
                else:
                    self.surplus += 1
        self.unclosed = sum(kinds[index] == "{" for index in opened)

    def misindented(self) -> int | None:
        """Offset of the innermost `{` whose partner leads a line that is indented differently.

        With a brace missing, pairs shift by one from there on, so this is likely the open one.
        """
        tokens, source = self._tokens, self._tokens.source
        indents: dict[int, int] = {}
        pairs = iter(self.closer_of.items())
        for (opener, closer), _ in zip(pairs, range(_PAIRS_INSPECTED), strict=False):
            opened, closed = tokens.starts[opener], tokens.starts[closer]
            closing_line = source.line_start(closed)
            opening_line = source.line_start(opened)
            for line in (opening_line, closing_line):
                if line not in indents:
                    match = _INDENT.match(source.text, line)
                    indents[line] = 0 if match is None else match.end() - line
            leads = closing_line + indents[closing_line] == closed
            if leads and indents[opening_line] != indents[closing_line]:
                return opened
        return None

"""Lines and columns as editors count them.

The Language Server Protocol counts both from 0, ends lines at LF, CR LF or CR, and counts columns
in code units of an encoding that client and server agree on: UTF-16 unless they say otherwise.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from enum import StrEnum
from typing import Final, NamedTuple

_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_ASTRAL: Final = 0xFFFF


class Encoding(StrEnum):
    """What a column counts; the values are the protocol's names."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


class Place(NamedTuple):
    """A position in a text; both numbers count from 0."""

    line: int
    character: int


class Places:
    """The offsets (in code points) of one text, as places and back."""

    def __init__(self, text: str, encoding: Encoding = Encoding.UTF16) -> None:
        self._text = text
        self._encoding = encoding
        self._starts = [0]
        self._ends: list[int] = []
        for match in _LINE_END.finditer(text):
            self._ends.append(match.start())
            self._starts.append(match.end())
        self._ends.append(len(text))

    def place(self, offset: int) -> Place:
        """The place of an offset; between CR and LF, the end of the line."""
        offset = max(0, min(offset, len(self._text)))
        line = bisect_right(self._starts, offset) - 1
        start = self._starts[line]
        before = self._text[start : min(offset, self._ends[line])]
        return Place(line, self._units(before))

    def offset(self, line: int, character: int) -> int:
        """The offset of a place; beyond the end of a line or of the text, that end.

        A column inside a character counts as the character's start.
        """
        if line < 0:
            return 0
        if line >= len(self._starts):
            return len(self._text)
        start, end = self._starts[line], self._ends[line]
        if self._encoding is Encoding.UTF32 or self._text[start:end].isascii():
            return max(start, min(start + character, end))
        left = character
        for index in range(start, end):
            left -= self._units(self._text[index])
            if left < 0:
                return index
        return end

    @property
    def end(self) -> Place:
        """The place behind the last character."""
        return self.place(len(self._text))

    def _units(self, text: str) -> int:
        if self._encoding is Encoding.UTF32 or text.isascii():
            return len(text)
        if self._encoding is Encoding.UTF16:
            return len(text) + sum(ord(char) > _ASTRAL for char in text)
        return len(text.encode("utf-8", "surrogatepass"))

"""Placeholders: `{{ name }}` in a text stands for the value of a variable.

One pass from left to right; a value is never searched for placeholders again. A name is a letter
or `_` and then letters, digits, `_`, `.` or `-`, with blanks around it; anything else in braces is
ordinary text. `{{inputs.x}}` also finds `x`. There is no evaluator behind it, and no escape.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl import limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}", re.ASCII)
_INPUTS: Final = "inputs."
_UTF8_BYTES_MAX: Final = 4


class Unresolved(StrEnum):
    """What becomes of a placeholder without a value."""

    STRIP = "strip"
    KEEP = "keep"
    ERROR = "error"


class SubstitutionError(ValueError):
    """A text could not be expanded."""


class UnresolvedPlaceholderError(SubstitutionError):
    """A placeholder has no value, and the text must not be used without one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"no value for {', '.join(f'{{{{{name}}}}}' for name in names)}")
        self.names = names


class ExpansionTooLargeError(SubstitutionError):
    """The expanded text is larger than allowed."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the expanded text is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class Placeholder(NamedTuple):
    """One placeholder of a text, by the offsets of its braces."""

    name: str
    start: int
    end: int


def placeholders(text: str) -> Iterator[Placeholder]:
    """The placeholders of a text, from left to right."""
    for match in _PLACEHOLDER.finditer(text):
        yield Placeholder(match[1], match.start(), match.end())


def lookup(name: str, values: Mapping[str, str]) -> str | None:
    """The value a placeholder of this name stands for."""
    value = values.get(name)
    if value is None and name.startswith(_INPUTS):
        return values.get(name.removeprefix(_INPUTS))
    return value


def substitute(
    text: str,
    values: Mapping[str, str],
    *,
    unresolved: Unresolved = Unresolved.STRIP,
    limit_bytes: int = limits.EXPANDED_BYTES,
) -> str:
    """The text with its placeholders replaced.

    Args:
        text: with any number of placeholders.
        values: variables by their flat names; a dot in a name has no meaning of its own.
        unresolved: what becomes of placeholders without a value.
        limit_bytes: of the result, as UTF-8.

    Raises:
        UnresolvedPlaceholderError: `unresolved` is ERROR and some name has no value.
        ExpansionTooLargeError: the result would be larger than the limit.
    """
    pieces: list[str] = []
    missing: dict[str, None] = {}
    position, length = 0, 0
    for name, start, end in placeholders(text):
        value = lookup(name, values)
        if value is None:
            missing[name] = None
            value = text[start:end] if unresolved is Unresolved.KEEP else ""
        pieces += (text[position:start], value)
        length += start - position + len(value)
        position = end
        if length > limit_bytes:
            raise ExpansionTooLargeError(limit_bytes)
    if missing and unresolved is Unresolved.ERROR:
        raise UnresolvedPlaceholderError(tuple(missing))
    pieces.append(text[position:])
    expanded = "".join(pieces)
    if _is_larger(expanded, limit_bytes):
        raise ExpansionTooLargeError(limit_bytes)
    return expanded


def _is_larger(text: str, limit_bytes: int) -> bool:
    if len(text) * _UTF8_BYTES_MAX <= limit_bytes:
        return False
    return len(text) > limit_bytes or len(text.encode("utf-8", "surrogatepass")) > limit_bytes

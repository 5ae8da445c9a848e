"""What a string token says: its quotes taken off and its escapes resolved."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes, limits

if TYPE_CHECKING:
    from runkon_server.dsl.problems import Problems

FIRST_EDITION: Final = 1
SECOND_EDITION: Final = 2
"""From this edition of the language on, strings also know `\\r` and `\\uXXXX`."""

_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_SIMPLE: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_UTF8_BYTES_MAX: Final = 4


def unquote(literal: str, start: int, problems: Problems, *, edition: int) -> str:
    """The text of a string literal that starts at offset `start`.

    A backslash before a character without a special meaning disappears, with a warning.
    """
    raw = literal[1:-1]
    if len(raw) * _UTF8_BYTES_MAX > limits.STRING_BYTES:
        _check_size(raw, start, problems)
    if "\\" not in raw:
        return raw
    unknown: list[re.Match[str]] = []

    def resolve(match: re.Match[str]) -> str:
        digits, char = match.groups()
        if edition >= SECOND_EDITION and (digits or char == "r"):
            return _code_point(match, start, problems)
        if digits is None and char in _SIMPLE:
            return _SIMPLE[char]
        unknown.append(match)
        return match[0][1:]

    text = _ESCAPE.sub(resolve, raw)
    if unknown and problems.wants_warnings:
        _warn(unknown, start, problems, edition)
    return text


def quote(text: str) -> str:
    """A string literal that reads as `text`, in every edition of the language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'


def _check_size(raw: str, start: int, problems: Problems) -> None:
    if len(raw.encode()) > limits.STRING_BYTES:
        problems.report(
            codes.STRING_TOO_LONG,
            start,
            start + 1,
            f"a string may have {limits.STRING_BYTES // 1024} KiB",
        )


def _code_point(match: re.Match[str], start: int, problems: Problems) -> str:
    if match[1] is None:
        return "\r"
    char = chr(int(match[1], 16))
    if char == "\x00" or "\ud800" <= char <= "\udfff":
        offset = start + 1 + match.start()
        problems.report(
            codes.UNSTORABLE_CHARACTER,
            offset,
            offset + len(match[0]),
            f"U+{ord(char):04X} cannot be stored",
        )
    return char


def _warn(unknown: list[re.Match[str]], start: int, problems: Problems, edition: int) -> None:
    first = unknown[0]
    offset = start + 1 + first.start()
    more = f", and {len(unknown) - 1} more in this string" if len(unknown) > 1 else ""
    hint = r"write `\\` for a backslash"
    if edition < SECOND_EDITION and (first[1] or first[2] == "r"):
        hint += r"; `\r` and `\uXXXX` need edition 2 of the language"
    problems.report(
        codes.UNKNOWN_ESCAPE,
        offset,
        offset + 2,
        f"the backslash of `{first[0][:2]}` has no meaning and is dropped{more}",
        hint=hint,
    )

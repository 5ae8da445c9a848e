"""Blocks of options: `{ key = value … }`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.reading.options import Options
from runkon_server.dsl.reading.values import (
    Pair,
    read_map,
    read_pair,
    read_plain_pairs,
    recover_pair,
)
from runkon_server.dsl.tokens import EOF, NODE_KEYWORDS

if TYPE_CHECKING:
    from runkon_server.dsl.reading.cursor import Cursor
    from runkon_server.dsl.source import Span

_LANDMARKS: Final = NODE_KEYWORDS | {"}", EOF}


def read_leading_options(cursor: Cursor) -> Options:
    """Read the options at the start of a block that goes on with steps."""
    pairs: list[Pair] = []
    read_plain_pairs(cursor, pairs)
    while cursor.at_pair():
        pairs.append(read_pair(cursor))
        cursor.count_entry(len(pairs), "this block")
    return Options(pairs, cursor.problems)


def read_optional_block(cursor: Cursor, construct: str, span: Span) -> Options:
    """Read a block of options that may be left out, and check which options these are."""
    if not cursor.accept("{"):
        return Options((), cursor.problems)
    options = Options(read_pairs(cursor, construct), cursor.problems)
    options.check(construct, span)
    return options


def read_required_block(cursor: Cursor, construct: str) -> Options:
    """Read a block of options that must be there, without a look at which options these are."""
    is_open = cursor.open_block(f"`{construct}`")
    return Options(read_pairs(cursor, construct) if is_open else (), cursor.problems)


def read_pairs(cursor: Cursor, construct: str) -> list[Pair]:
    """Read up to and over `}`; `inputs { … }` stands for `inputs = { … }`.

    The cursor stands behind the opening brace.
    """
    opened_at = cursor.previous_end - 1
    pairs: list[Pair] = []
    has_complained = False
    read_plain_pairs(cursor, pairs)
    while cursor.kind != "}":
        if cursor.at_pair():
            pairs.append(read_pair(cursor))
            cursor.count_entry(len(pairs), construct)
            read_plain_pairs(cursor, pairs)
        elif cursor.kind == EOF:
            cursor.unclosed(opened_at, f"`{construct}`")
            return pairs
        elif cursor.kind == "inputs" and cursor.peek() == "{" and "inputs" in KEYS[construct]:
            pairs.append(_read_inputs_block(cursor, pairs))
        elif cursor.kind in NODE_KEYWORDS and cursor.peek() != "=":
            if cursor.assume_closed():
                cursor.unclosed(opened_at, f"`{construct}`")
                return pairs
            if not has_complained:
                cursor.expected("an option", "}", hint=f"`{construct}` cannot contain steps")
                has_complained = True
            cursor.skip_to(_LANDMARKS)
        elif (pair := recover_pair(cursor)) is not None:
            pairs.append(pair)
    cursor.advance()
    return pairs


def _read_inputs_block(cursor: Cursor, before: list[Pair]) -> Pair:
    start, end = cursor.start, cursor.end
    if any(pair.key == "inputs" for pair in before):
        cursor.report(codes.DUPLICATE_INPUTS, "only one inputs block may stand here")
    cursor.advance()
    return Pair("inputs", read_map(cursor, "inputs"), start, end)

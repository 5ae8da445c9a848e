"""What to do where a step should start and none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes
from runkon_server.dsl.diagnostics import nearest
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.reading.option_blocks import read_leading_options
from runkon_server.dsl.reading.values import recover_pair
from runkon_server.dsl.tokens import EOF, IDENT, INT, NODE_KEYWORDS, STRING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runkon_server.dsl.reading.cursor import Cursor

_LANDMARKS: Final = NODE_KEYWORDS | {"}", EOF}


def recover_node(
    cursor: Cursor,
    construct: str,
    readers: Mapping[str, Callable[[Cursor], object]],
    read_body: Callable[[Cursor, str], object],
) -> None:
    """Report that no step starts here, and get past it.

    Where it is plain what was meant, it is read as that, so that problems inside are found too.

    Args:
        cursor: neither at `}` nor at the end of the file.
        construct: the block that is being read; a row of `keys.KEYS`, or `workflow`.
        readers: of nodes, by keyword.
        read_body: reads the block of a construct.
    """
    if cursor.at_pair():
        _report_late_option(cursor, construct)
        read_leading_options(cursor)
    elif cursor.kind == "{":
        cursor.expected("a step", "}", hint="a block without a condition is written `do { … }`")
        read_body(cursor, construct)
    elif cursor.kind == ",":
        cursor.report(codes.STRAY_COMMA, "no comma belongs between steps")
        cursor.advance()
    elif cursor.peek() == "=" or _is_option_without_equals(cursor, construct):
        recover_pair(cursor)
    elif cursor.kind in {"meta", "inputs", "workflow"}:
        _skip_misplaced_block(cursor, construct)
    elif cursor.kind == IDENT:
        _read_unknown_step(cursor, readers, read_body)
    else:
        cursor.expected("a step", "}")
        cursor.skip_to(_LANDMARKS)


def _report_late_option(cursor: Cursor, construct: str) -> None:
    if construct == "workflow":
        message = f"`workflow` has no option `{cursor.text}`"
        hint = "write it into `meta { … }`" if cursor.text in KEYS["meta"] else None
        cursor.report(codes.REFUSED_OPTION, message, hint=hint)
    else:
        message = "the options of a block come before its steps"
        cursor.report(codes.OPTION_AFTER_STEP, message)


def _is_option_without_equals(cursor: Cursor, construct: str) -> bool:
    follows_value = cursor.peek() in {STRING, INT, IDENT, "["} and cursor.same_line()
    return follows_value and cursor.text in KEYS.get(construct, {})


def _skip_misplaced_block(cursor: Cursor, construct: str) -> None:
    kind = cursor.kind
    message, hint = f"`{kind}` cannot stand inside `{construct}`", "it belongs to the workflow"
    if kind == "workflow":
        message, hint = "a workflow cannot stand inside another one", "is a `}` missing above?"
    cursor.report(codes.MISPLACED_BLOCK, message, hint=hint)
    cursor.skip_to(_LANDMARKS)


def _read_unknown_step(
    cursor: Cursor,
    readers: Mapping[str, Callable[[Cursor], object]],
    read_body: Callable[[Cursor, str], object],
) -> None:
    word = cursor.text
    if word == "else":
        instead = "use `unless` with the same condition"
        cursor.report(codes.UNKNOWN_STEP, "there is no `else`", hint=instead)
        cursor.advance()
        if cursor.kind == "{":
            read_body(cursor, "unless")
        return
    is_told = cursor.problems.wants(cursor.start)
    keyword = nearest(word, readers) if is_told else None
    hint = None if keyword is None else f"did you mean `{keyword}`?"
    cursor.report(codes.UNKNOWN_STEP, f"there is no step `{word}`", hint=hint)
    if keyword is not None:
        readers[keyword](cursor)
    else:
        cursor.skip_to(_LANDMARKS)

"""What could be typed at a place of a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.editing.blocks import BODIES, DECLARATIONS, FILE, MAP, Role
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import EOF, KEY_KINDS, NAME_KINDS

if TYPE_CHECKING:
    from runkon_server.dsl.editing.blocks import Block
    from runkon_server.dsl.editing.document import Document

_WORD: Final = re.compile(r"[A-Za-z0-9_-]*\Z")
_OPEN_PLACEHOLDER: Final = re.compile(r"\{\{\s*([A-Za-z0-9_.-]*)\Z")
_WINDOW: Final = 200
"""Characters before the cursor that a word or a placeholder may go back."""


class Wanted(StrEnum):
    """What a word at a place would be."""

    NOTHING = "nothing"
    FILE = "file"
    WORKFLOW_NAME = "workflow name"
    STATEMENT = "statement"
    """An option or a step of the block, whichever may stand there."""
    MODIFIER = "modifier"
    AGENT = "agent"
    CHILD = "child"
    CONDITION = "condition"
    STEP = "step"
    MARKER = "marker"
    GATE_TYPE = "gate type"
    VALUE = "value"
    ENTRY = "entry"
    PLACEHOLDER = "placeholder"
    LOOP_END = "loop end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is wanted at an offset, and which characters before it a completion replaces."""

    wanted: Wanted
    block: Block
    """The innermost block."""
    start: int
    """Offset of the first character to replace; the last is the one before the cursor."""
    of: str = ""
    """For VALUE the option, for MARKER the step."""
    is_quoted: bool = False


def situation_at(document: Document, offset: int) -> Situation:
    """What could be typed at an offset of a text that was `mended` there."""
    block = document.structure.block_at(offset)
    if document.in_comment(offset):
        return Situation(wanted=Wanted.NOTHING, block=block, start=offset)
    string = document.string_at(offset)
    if string is not None:
        return _in_string(document, string, offset, block)
    start = offset - _matched(_WORD, document.text, offset)
    index = document.token_before(start)
    return _behind(document, index, start, block)


def _matched(pattern: re.Pattern[str], text: str, offset: int) -> int:
    found = pattern.search(text, max(0, offset - _WINDOW), offset)
    return 0 if found is None else len(found[0])


def _in_string(document: Document, string: int, offset: int, block: Block) -> Situation:
    start = document.tokens.starts[string] + 1
    found = _OPEN_PLACEHOLDER.search(document.text, max(start, offset - _WINDOW), offset)
    if found is not None:
        return Situation(wanted=Wanted.PLACEHOLDER, block=block, start=found.start(1))
    key = _key_before(document, string)
    written = document.text[start:offset]
    step, dot, _ = written.partition(".")
    if dot and key is not None and _takes_marker(block, key):
        behind = start + len(step) + 1
        return Situation(wanted=Wanted.MARKER, block=block, start=behind, of=step, is_quoted=True)
    if key is not None and "\n" not in written:
        return Situation(wanted=Wanted.VALUE, block=block, start=start, of=key, is_quoted=True)
    return Situation(wanted=Wanted.NOTHING, block=block, start=offset, is_quoted=True)


def _key_before(document: Document, index: int) -> str | None:
    """The option that a token is the value of."""
    kinds = document.tokens.kinds
    is_value = index >= 2 and kinds[index - 1] == "=" and kinds[index - 2] in KEY_KINDS  # noqa: PLR2004 - the option and its `=`
    return document.tokens.texts[index - 2] if is_value else None


def _takes_marker(block: Block, key: str) -> bool:
    return key == "if" and block.construct == "parallel call"


def _behind(document: Document, index: int, start: int, block: Block) -> Situation:
    """What may follow a token, `start` being where the next one would start."""

    def situation(wanted: Wanted, of: str = "") -> Situation:
        return Situation(wanted=wanted, block=block, start=start, of=of)

    tokens = document.tokens
    kind = tokens.kinds[index] if index >= 0 else EOF
    if kind == "=":
        key = _key_before(document, index + 1)
        return situation(Wanted.NOTHING if key is None else Wanted.VALUE, key or "")
    if kind == ".":
        return _behind_dot(document, index, start, block)
    if _is_keyword(document, index):
        return situation(_behind_keyword(kind, before=tokens.kinds[index - 1] if index else EOF))
    if _in_list(document, index) or _ends_head(document, index, start, block):
        return situation(Wanted.NOTHING)
    if kind == "}" and _closes_do(block, tokens.starts[index]):
        return situation(Wanted.LOOP_END)
    if block.construct == FILE:
        return situation(Wanted.FILE if not block.children else Wanted.NOTHING)
    if block.construct == DECLARATIONS:
        may_modify = any(each.end <= start for each in block.keys)
        return situation(Wanted.MODIFIER if may_modify else Wanted.NOTHING)
    return situation(Wanted.ENTRY if block.construct == MAP else Wanted.STATEMENT)


def _is_keyword(document: Document, index: int) -> bool:
    if index < 0:
        return False
    start = document.tokens.starts[index]
    mention = document.structure.mention_at(start)
    return mention is not None and mention.start == start and mention.role is Role.KEYWORD


def _ends_head(document: Document, index: int, start: int, block: Block) -> bool:
    """Whether a place is on the line of a step's head, where only its brace can follow."""
    if index < 0:
        return False
    end = document.tokens.end(index)
    is_head = any(child.head_end == end for child in block.children)
    return is_head and "\n" not in document.text[end:start]


def _behind_keyword(keyword: str, *, before: str) -> Wanted:
    match keyword:
        case "call":
            return Wanted.AGENT
        case "workflow":
            return Wanted.CHILD if before == "call" else Wanted.WORKFLOW_NAME
        case "if" | "unless":
            return Wanted.CONDITION
        case "while":
            return Wanted.STEP
        case "gate":
            return Wanted.GATE_TYPE
        case _:
            return Wanted.NOTHING


def _behind_dot(document: Document, index: int, start: int, block: Block) -> Situation:
    """What may follow a dot: a marker, if a step of a condition stands before it."""
    tokens = document.tokens
    wanted, of = Wanted.NOTHING, ""
    if index >= 2 and tokens.kinds[index - 1] in NAME_KINDS:  # noqa: PLR2004 - the step and what makes it one
        of = tokens.texts[index - 1]
        key = _key_before(document, index - 1)
        is_condition = tokens.kinds[index - 2] in {"if", "unless", "while"}
        if is_condition or (key is not None and _takes_marker(block, key)):
            wanted = Wanted.MARKER
    return Situation(wanted=wanted, block=block, start=start, of=of)


def _in_list(document: Document, index: int) -> bool:
    """Whether a token stands in a list that is still open behind it."""
    kinds = document.tokens.kinds
    for back in range(index, max(-1, index - _WINDOW), -1):
        if kinds[back] == "[":
            return True
        if kinds[back] in {"]", "{", "}", "="}:
            return False
    return False


def _closes_do(block: Block, brace: int) -> bool:
    return any(child.construct == "do" and child.ends_at == brace for child in block.children)


def may_hold_steps(block: Block) -> bool:
    """Whether steps may stand in a block."""
    return block.construct in BODIES


def keys_of(block: Block) -> dict[str, tuple[str, str]]:
    """The options a block may have: name → the row of `KEYS` and the name of the option there.

    A `do` without its `while` may still become a loop.
    """
    constructs = ["do", "do … while"] if block.construct == "do" else [block.construct]
    return {key: (construct, key) for construct in constructs for key in KEYS.get(construct, {})}

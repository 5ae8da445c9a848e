"""Tokens of a valid file to the layout tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.formatting.items import Block, BlockKind, Item, Line
from runkon_server.dsl.tokens import EOF, INPUT_MODIFIERS, KEY_KINDS, NAME_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.dsl.tokens import Token, Tokens

_OPTION_BLOCKS: Final = frozenset({"call", "gate", "script", "foreach"})
_WITH_NAME: Final = frozenset({"workflow", "gate", "script", "foreach"})
_WITH_CONDITION: Final = frozenset({"if", "unless", "while"})
_WHILE_TAIL: Final = 4
"""Tokens of `while step.marker`."""


def read_file(tokens: Tokens) -> Block:
    """The layout of a file: one item, the workflow, and the comments after it.

    The file must be free of errors; its grammar is not checked again.
    """
    return _Reader(tokens).file()


class _Reader:
    """Walks the tokens; comments go to the item they are found in or next to."""

    def __init__(self, tokens: Tokens) -> None:
        self._text = tokens.source.text
        self._tokens: list[Token] = list(tokens)
        self._index = 0
        self._seen_to = 0
        """Offset behind the last token or comment taken."""
        self._waiting: list[Line] = []
        """Comments in front of a comma that was dropped; they belong to what follows."""

    def file(self) -> Block:
        block = Block(BlockKind.BODY)
        item = self._start_item(None, block)
        self._take(item)
        self._take(item)
        item.block = self._block(item, BlockKind.BODY, self._node)
        block.items.append(item)
        block.closing_comments = self._comments_before(item, block)
        return block

    # Blocks

    def _block(self, owner: Item, kind: BlockKind, read: Callable[[Item], None]) -> Block:
        """Read brackets and what is in them; every item of it by `read`."""
        self._hoist(owner)
        self._advance()
        block = Block(kind)
        last: Item | None = None
        while self._kind() not in {"}", "]"}:
            if self._kind() == ",":
                self._waiting = self._comments_before(last, block)
                self._advance()
                continue
            last = self._start_item(last, block)
            read(last)
            block.items.append(last)
        block.closing_comments = self._comments_before(last, block)
        self._advance()
        return block

    def _start_item(self, before: Item | None, block: Block) -> Item:
        comments = self._comments_before(before, block)
        item = Item(comments=comments)
        item.blank_before = self._blank_line_before(self._token().span.offset)
        return item

    # Items

    def _node(self, item: Item) -> None:
        if self._at_pair():
            self._pair(item)
            return
        keyword = self._kind()
        self._take(item)
        if keyword == "call":
            if self._kind() == "workflow":
                self._take(item)
            self._take(item)
            if self._kind() != "{":
                return
        elif keyword in _WITH_NAME:
            self._take(item)
        elif keyword in _WITH_CONDITION:
            self._dotted(item)
        if keyword in _OPTION_BLOCKS:
            item.block = self._block(item, BlockKind.OPTIONS, self._option)
        else:
            read = self._input if keyword == "inputs" else self._node
            item.block = self._block(item, BlockKind.BODY, read)
        if keyword == "do" and self._kind() == "while" and self._kind(_WHILE_TAIL) != "{":
            self._while_tail(item)

    def _while_tail(self, item: Item) -> None:
        self._hoist(item)
        tail = Item(hoisted_comments=item.hoisted_comments)
        self._take(tail)
        self._dotted(tail)
        item.tail = tail.head

    def _option(self, item: Item) -> None:
        if self._kind() == "inputs" and self._kind(1) == "{":
            self._take(item)
            item.block = self._block(item, BlockKind.MAP, self._pair)
        else:
            self._pair(item)

    def _pair(self, item: Item) -> None:
        self._take(item)
        self._take(item)
        self._value(item)

    def _value(self, item: Item) -> None:
        match self._kind():
            case "[":
                item.block = self._block(item, BlockKind.LIST, self._dotted)
            case "{":
                item.block = self._block(item, BlockKind.MAP, self._pair)
            case _:
                self._dotted(item)

    def _input(self, item: Item) -> None:
        self._take(item)
        while (kind := self._kind()) in INPUT_MODIFIERS:
            self._take(item)
            if kind in {"default", "description"}:
                self._take(item)
                self._dotted(item)

    def _dotted(self, item: Item) -> None:
        """One word, or two with a dot; also a string or a number."""
        starts_with_word = self._kind() in NAME_KINDS
        self._take(item)
        if starts_with_word and self._kind() == ".":
            self._hoist(item)
            self._advance()
            self._hoist(item)
            item.head += f".{self._token().text}"
            self._advance()

    # Tokens

    def _token(self) -> Token:
        return self._tokens[self._index]

    def _kind(self, ahead: int = 0) -> str:
        index = self._index + ahead
        return self._tokens[index].kind if index < len(self._tokens) else EOF

    def _at_pair(self) -> bool:
        return self._kind() in KEY_KINDS and self._kind(1) == "="

    def _take(self, item: Item) -> None:
        """Put the current token behind the words of an item."""
        if item.head:
            self._hoist(item)
            item.head += " "
        item.head += self._token().text
        self._advance()

    def _advance(self) -> None:
        self._seen_to = self._token().span.end
        self._index += 1

    # Comments

    def _hoist(self, item: Item) -> None:
        """Move the comments before the current token, amid an item, to the lines above it."""
        for comment in self._token().comments:
            item.hoisted_comments.append(comment.text)
            self._seen_to = comment.offset + len(comment.text)

    def _comments_before(self, last: Item | None, block: Block) -> list[Line]:
        """The comments in front of an item or closing bracket.

        One on the line of what comes before stays there: with the last item, or else with the
        opening bracket.
        """
        lines, self._waiting = self._waiting, []
        for comment in self._token().comments:
            is_trailing = not lines and self._is_same_line(comment.offset)
            if is_trailing and last is not None and last.trailing_comment is None:
                last.trailing_comment = comment.text
            elif is_trailing and last is None and self._seen_to > 0:
                block.opening_comment = comment.text
            else:
                lines.append(Line(comment.text, self._blank_line_before(comment.offset)))
            self._seen_to = comment.offset + len(comment.text)
        return lines

    def _is_same_line(self, offset: int) -> bool:
        return "\n" not in self._text[self._seen_to : offset]

    def _blank_line_before(self, offset: int) -> bool:
        return self._text.count("\n", self._seen_to, offset) > 1

"""Tokens of a valid file to the layout tree."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.formatting.items import Block, BlockKind, Item, Line
from runkon_server.dsl.tokens import (
    CLOSERS,
    EOF,
    INPUT_MODIFIERS,
    INT,
    KEY_KINDS,
    NAME_KINDS,
    STRING,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.dsl.tokens import Comment, Tokens

_OPTION_BLOCKS: Final = frozenset({"call", "gate", "script", "foreach"})
_WITH_NAME: Final = frozenset({"workflow", "gate", "script", "foreach"})
_WITH_CONDITION: Final = frozenset({"if", "unless", "while"})
_WORDS: Final = NAME_KINDS | {STRING, INT}
_PLAIN: Final = _WORDS | {","}
_GAP: Final = re.compile(r"\n[^\S\n]*\n")
_NO_ELEMENTS: Final = Block(BlockKind.LIST)
_NOTHING: Final = Block(BlockKind.MAP)
"""Of all kinds with the same brackets, as nothing is ever added to it."""
_WHILE_TAIL: Final = 4
"""Tokens of `while step.marker`, and how far ahead anybody looks."""


def read_file(tokens: Tokens) -> Block:
    """The layout of a file: one item, the workflow, and the comments after it.

    The file must be free of errors; its grammar is not checked again.
    """
    return _Reader(tokens).file()


def _by_token(tokens: Tokens) -> dict[int, list[Comment]]:
    """The comments in front of each token that has any, by its index."""
    found: dict[int, list[Comment]] = {}
    for comment in tokens.comments:
        found.setdefault(bisect_left(tokens.starts, comment.offset), []).append(comment)
    return found


class _Reader:
    """Walks the tokens; comments go to the item they are found in or next to."""

    def __init__(self, tokens: Tokens) -> None:
        self._text = tokens.source.text
        self._kinds = [*tokens.kinds, *[EOF] * _WHILE_TAIL]
        self._texts = tokens.texts
        self._starts = tokens.starts
        self._comments = _by_token(tokens)
        self._commented = list(self._comments)
        self._index = 0
        self._seen_to = 0
        """Offset behind the last token or comment taken."""
        self._waiting: Sequence[Line] = ()
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
        index = self._index
        if self._kinds[index + 1] in CLOSERS and self._next_commented(index) > index + 1:
            self._index, self._seen_to = index + 2, self._starts[index + 1] + 1
            return _NO_ELEMENTS if kind is BlockKind.LIST else _NOTHING
        self._hoist(owner)
        self._advance()
        if kind is BlockKind.LIST and (words := self._words()) is not None:
            self._advance()
            return Block(kind, words=words)
        block = Block(kind)
        last = self._plain_pairs(block)
        while (ahead := self._kinds[self._index]) not in CLOSERS:
            if ahead == ",":
                self._waiting = self._comments_before(last, block)
                self._advance()
                continue
            last = self._start_item(last, block)
            read(last)
            block.items.append(last)
        block.closing_comments = self._comments_before(last, block)
        self._advance()
        return block

    def _words(self) -> list[str] | None:
        """All elements up to the closing bracket, if each is one word with no comment or gap near.

        Most lists are like that, and only they can be long.
        """
        first, last = self._index, self._kinds.index("]", self._index)
        if self._next_commented(first) <= last:
            return None
        if _GAP.search(self._text, self._seen_to, self._starts[last]):
            return None
        if not _PLAIN.issuperset(self._kinds[first:last]):
            return None
        self._index = last
        return [text for text in self._texts[first:last] if text != ","]

    def _plain_pairs(self, block: Block) -> Item | None:
        """Read the pairs of three tokens with no comment near; gives the last."""
        kinds, texts, starts = self._kinds, self._texts, self._starts
        index, seen_to, item = self._index, self._seen_to, None
        last = self._next_commented(index) - 3
        while index <= last and kinds[index + 1] == "=" and kinds[index] in KEY_KINDS:
            value = index + 2
            if kinds[value] not in _WORDS or kinds[value + 1] == ".":
                break
            start, word = starts[index], texts[value]
            # Mostly there is one blank or one line's end between two pairs.
            blank_before = start - seen_to > 1 and self._text.count("\n", seen_to, start) > 1
            item = Item(f"{texts[index]} = {word}", None, "", blank_before)
            block.items.append(item)
            seen_to = starts[value] + len(word)
            index += 3
        self._index, self._seen_to = index, seen_to
        return item

    def _next_commented(self, index: int) -> int:
        """The first token from this one on that has comments in front of it, or the last of all."""
        place = bisect_left(self._commented, index)
        return self._commented[place] if place < len(self._commented) else len(self._starts)

    def _start_item(self, before: Item | None, block: Block) -> Item:
        item = Item()
        if self._waiting or self._index in self._comments:
            item.comments = self._comments_before(before, block)
        item.blank_before = self._blank_line_before(self._starts[self._index])
        return item

    # Items

    def _node(self, item: Item) -> None:
        if self._at_pair():
            self._pair(item)
            return
        keyword = self._kinds[self._index]
        self._take(item)
        if keyword == "call":
            if self._kinds[self._index] == "workflow":
                self._take(item)
            self._take(item)
            if self._kinds[self._index] != "{":
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
        if keyword == "do" and self._at_while_tail():
            self._while_tail(item)

    def _at_while_tail(self) -> bool:
        return self._kinds[self._index] == "while" and self._kinds[self._index + _WHILE_TAIL] != "{"

    def _while_tail(self, item: Item) -> None:
        self._hoist(item)
        tail = Item(hoisted_comments=item.hoisted_comments)
        self._take(tail)
        self._dotted(tail)
        item.hoisted_comments = tail.hoisted_comments
        item.tail = tail.head

    def _option(self, item: Item) -> None:
        if self._kinds[self._index] == "inputs" and self._kinds[self._index + 1] == "{":
            self._take(item)
            item.block = self._block(item, BlockKind.MAP, self._pair)
        else:
            self._pair(item)

    def _pair(self, item: Item) -> None:
        self._take(item)
        self._take(item)
        self._value(item)

    def _value(self, item: Item) -> None:
        match self._kinds[self._index]:
            case "[":
                item.block = self._block(item, BlockKind.LIST, self._dotted)
            case "{":
                item.block = self._block(item, BlockKind.MAP, self._pair)
            case _:
                self._dotted(item)

    def _input(self, item: Item) -> None:
        self._take(item)
        words = [item.head]
        # An input may have any number of modifiers, so its words are put together at the end.
        while (kind := self._kinds[self._index]) in INPUT_MODIFIERS:
            self._hoist(item)
            item.head = ""
            self._take(item)
            if kind in {"default", "description"}:
                self._take(item)
                self._dotted(item)
            words.append(item.head)
        item.head = " ".join(words)

    def _dotted(self, item: Item) -> None:
        """One word, or two with a dot; also a string or a number."""
        starts_with_word = self._kinds[self._index] in NAME_KINDS
        self._take(item)
        if starts_with_word and self._kinds[self._index] == ".":
            self._hoist(item)
            self._advance()
            self._hoist(item)
            item.head += f".{self._texts[self._index]}"
            self._advance()

    # Tokens

    def _at_pair(self) -> bool:
        return self._kinds[self._index] in KEY_KINDS and self._kinds[self._index + 1] == "="

    def _take(self, item: Item) -> None:
        """Put the current token behind the words of an item."""
        text = self._texts[self._index]
        if item.head:
            self._hoist(item)
            item.head += f" {text}"
        else:
            item.head = text
        self._advance()

    def _advance(self) -> None:
        index = self._index
        self._seen_to = self._starts[index] + len(self._texts[index])
        self._index = index + 1

    # Comments

    def _hoist(self, item: Item) -> None:
        """Move the comments before the current token, amid an item, to the lines above it."""
        comments = self._comments.get(self._index)
        if comments:
            if item.hoisted_comments is None:
                item.hoisted_comments = []
            item.hoisted_comments += [comment.text for comment in comments]
            self._see(comments[-1])

    def _comments_before(self, last: Item | None, block: Block) -> Sequence[Line]:
        """The comments in front of an item or closing bracket.

        One on the line of what comes before stays there: with the last item, or else with the
        opening bracket.
        """
        waiting, self._waiting = self._waiting, ()
        if self._index not in self._comments:
            return waiting
        lines = list(waiting)
        for comment in self._comments[self._index]:
            is_trailing = not lines and self._is_same_line(comment.offset)
            if is_trailing and last is not None and last.trailing_comment is None:
                last.trailing_comment = comment.text
            elif is_trailing and last is None and self._seen_to > 0:
                block.opening_comment = comment.text
            else:
                lines.append(Line(comment.text, self._blank_line_before(comment.offset)))
            self._see(comment)
        return lines

    def _see(self, comment: Comment) -> None:
        self._seen_to = comment.offset + len(comment.text)

    def _is_same_line(self, offset: int) -> bool:
        return "\n" not in self._text[self._seen_to : offset]

    def _blank_line_before(self, offset: int) -> bool:
        return self._text.count("\n", self._seen_to, offset) > 1

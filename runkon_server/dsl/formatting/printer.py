"""The layout tree to text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.formatting.items import Block, BlockKind, Item, Line

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDENT: Final = "  "
_WIDTH: Final = 100
_INLINE_MAX: Final = {
    BlockKind.BODY: 0,
    BlockKind.OPTIONS: 2,
    BlockKind.MAP: 2,
    BlockKind.LIST: _WIDTH // len("x, "),
}
"""How many entries of a block may share a line with what they belong to; more elements of a list
than these are wider than any line."""


def print_file(file: Block) -> str:
    """The text of a whole file."""
    printer = _Printer()
    printer.items(file, "")
    return "\n".join(printer.lines) + "\n"


class _Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._starts_block = True

    def items(self, block: Block, indent: str) -> None:
        """Print what is inside a block."""
        self._starts_block = True
        if block.words is not None:
            self.lines += [f"{indent}{word}," for word in block.words]
            return
        separator = "," if block.kind is BlockKind.LIST else ""
        for item in block.items:
            if item.comments:
                self._comments(item.comments, indent)
            self._blank(wanted=item.blank_before)
            for comment in item.hoisted_comments or ():
                self._line(f"{indent}{comment}", None)
            if item.block is None:
                self._line(f"{indent}{item.head}{separator}", item.trailing_comment)
            else:
                self._item(item, indent, separator)
        self._comments(block.closing_comments, indent)

    def _item(self, item: Item, indent: str, separator: str) -> None:
        inline = _inline(item)
        if inline is None or len(indent + inline + separator) > _WIDTH:
            self._open_item(item, indent, separator)
        else:
            self._line(f"{indent}{inline}{separator}", item.trailing_comment)

    def _open_item(self, item: Item, indent: str, separator: str) -> None:
        assert item.block is not None
        opening, closing = item.block.brackets
        self._line(f"{indent}{item.head} {opening}", item.block.opening_comment)
        self.items(item.block, indent + _INDENT)
        tail = f" {item.tail}" if item.tail else ""
        self._line(f"{indent}{closing}{tail}{separator}", item.trailing_comment)

    def _comments(self, comments: Sequence[Line], indent: str) -> None:
        for comment in comments:
            self._blank(wanted=comment.blank_before)
            self._line(f"{indent}{comment.text}", None)

    def _blank(self, *, wanted: bool) -> None:
        if wanted and not self._starts_block:
            self.lines.append("")

    def _line(self, text: str, comment: str | None) -> None:
        self.lines.append(text if comment is None else f"{text}  {comment}")
        self._starts_block = False


def _inline(item: Item) -> str | None:
    """The item on one line, if it may be."""
    block = item.block
    if block is None:
        return item.head
    inside = _inline_entries(block)
    if inside is None:
        return None
    opening, closing = block.brackets
    tail = f" {item.tail}" if item.tail else ""
    head = f"{item.head} " if item.head else ""
    return f"{head}{opening}{inside}{closing}{tail}"


def _inline_entries(block: Block) -> str | None:
    # Most blocks are told by their size, before anything in them is looked at (and again for
    # every block around them).
    if not block.items and not block.words:
        return None if block.has_comments else ""
    if block.words is not None:
        if len(block.words) > _INLINE_MAX[block.kind]:
            return None
        line = ", ".join(block.words)
        return None if "\n" in line else line
    if len(block.items) > _INLINE_MAX[block.kind] or block.has_comments:
        return None
    if block.kind is not BlockKind.LIST and any(_is_filled_map(item) for item in block.items):
        return None
    texts: list[str] = []
    for item in block.items:
        entry = _inline(item)
        if entry is None or "\n" in entry:
            return None
        texts.append(entry)
    return ", ".join(texts) if block.kind is BlockKind.LIST else f" {' '.join(texts)} "


def _is_filled_map(item: Item) -> bool:
    return item.block is not None and item.block.kind is BlockKind.MAP and bool(item.block.items)

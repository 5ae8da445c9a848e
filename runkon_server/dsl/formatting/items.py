"""The layout tree: what stands on a line of its own, with the comments that belong to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BlockKind(Enum):
    """What a pair of brackets encloses, as far as the layout is concerned."""

    BODY = auto()
    """Steps: always on lines of their own."""
    OPTIONS = auto()
    """Options of one step: on its line when they are few."""
    MAP = auto()
    LIST = auto()


@dataclass(slots=True)
class Line:
    """A comment on a line of its own."""

    text: str
    blank_before: bool


@dataclass(slots=True)
class Block:
    """Brackets and what is in them."""

    kind: BlockKind
    items: list[Item] = field(default_factory=list)
    words: list[str] | None = None
    """Instead of items, the elements of a list that holds nothing but words, close together."""
    opening_comment: str | None = None
    """Behind the opening bracket, on its line."""
    closing_comments: Sequence[Line] = ()
    """Before the closing bracket."""

    @property
    def brackets(self) -> tuple[str, str]:
        """The opening and the closing bracket."""
        return ("[", "]") if self.kind is BlockKind.LIST else ("{", "}")

    @property
    def has_comments(self) -> bool:
        """Whether there is a comment directly inside."""
        if self.opening_comment or self.closing_comments:
            return True
        return any(item.has_comments for item in self.items) if self.items else False


@dataclass(slots=True)
class Item:
    """A step, an option, a declaration, an element of a list: `head { block } tail`."""

    head: str = ""
    block: Block | None = None
    tail: str = ""
    blank_before: bool = False
    comments: Sequence[Line] = ()
    """On the lines above, before the blank line if there is one."""
    hoisted_comments: list[str] | None = None
    """Found between the words of the item; they go on lines right above it."""
    trailing_comment: str | None = None
    """On the same line, behind the item."""

    @property
    def has_comments(self) -> bool:
        """Whether a comment belongs to the item itself."""
        return bool(self.comments or self.hoisted_comments or self.trailing_comment)

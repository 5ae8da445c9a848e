"""The place of the tolerant reading in the tokens, and its ways of noting what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.editing.blocks import FILE, Block, Mention, Role
from runkon_server.dsl.substitute import placeholders
from runkon_server.dsl.tokens import EOF, KEY_KINDS, NAME_KINDS, NODE_KEYWORDS, STRING

if TYPE_CHECKING:
    from runkon_server.dsl.tokens import Tokens

_DEPTH_MAX: Final = 100
"""Blocks further in are skipped; the language allows far fewer."""


class Tracer:
    """A place among the tokens, the blocks that are open there, and what was noted so far."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._kinds = [*tokens.kinds, EOF, EOF, EOF]
        self._index = 0
        length = len(tokens.source.text)
        self.root = Block(FILE, 0, 0, None, opened_at=0, ends_at=length, end=length)
        self.mentions: list[Mention] = []
        self._stack = [self.root]
        self._too_deep = 0
        self._headed: Block | None = None
        """A block that has its head and not yet its brace."""

    # Looking

    @property
    def _kind(self) -> str:
        return self._kinds[self._index]

    @property
    def _top(self) -> Block:
        return self._stack[-1]

    def _peek(self, ahead: int = 1) -> str:
        return self._kinds[self._index + ahead]

    def _at_pair(self) -> bool:
        return self._kind in KEY_KINDS and self._peek() == "="

    def _starts_line(self) -> bool:
        tokens = self._tokens
        if self._index == 0:
            return True
        between = tokens.source.text[tokens.end(self._index - 1) : tokens.starts[self._index]]
        return "\n" in between

    def _at_name(self) -> bool:
        """Whether the name a head lacks is here, rather than the next step."""
        return self._kind in NAME_KINDS and not (
            self._kind in NODE_KEYWORDS and self._starts_line()
        )

    # Noting

    def _note(self, role: Role, block: Block, of: str = "") -> Mention:
        """Note the current token and step over it."""
        tokens, index = self._tokens, self._index
        start, end, text = tokens.starts[index], tokens.end(index), tokens.texts[index]
        if self._kinds[index] == STRING:
            start, end, text = start + 1, end - text.endswith('"', 1), text[1:].removesuffix('"')
            self._note_placeholders(text, start, block)
        mention = Mention(role, text, start, end, block, of)
        if not (self.mentions and self.mentions[-1].start >= start):
            self.mentions.append(mention)
        self._index += 1
        return mention

    def _note_placeholders(self, text: str, start: int, block: Block) -> None:
        for found in placeholders(text):
            name_at = text.index(found.name, found.start)
            self.mentions.append(
                Mention(
                    Role.PLACEHOLDER,
                    found.name,
                    start + name_at,
                    start + name_at + len(found.name),
                    block,
                )
            )

    # Blocks

    def _begin(self, construct: str) -> Block:
        """A new block inside the current one; its keyword is the current token."""
        start = self._tokens.starts[self._index]
        block = Block(construct, start, start, self._top)
        self._top.children.append(block)
        self._headed = None
        return block

    def _finish_head(self, block: Block) -> None:
        """Note how far the head goes, and open the block if its brace follows."""
        block.head_end = block.end = self._tokens.end(self._index - 1)
        self._headed = block
        if self._kind == "{":
            self._open(block)

    def _open(self, block: Block) -> None:
        """Step over `{` and go into a block."""
        block.opened_at = self._tokens.end(self._index)
        self._index += 1
        self._headed = None
        if len(self._stack) > _DEPTH_MAX:
            self._too_deep += 1
        else:
            self._stack.append(block)

    def _close(self) -> Block | None:
        """Step over `}` and leave the current block, which is returned."""
        at = self._tokens.starts[self._index]
        self._index += 1
        self._headed = None
        if self._too_deep:
            self._too_deep -= 1
            return None
        if len(self._stack) == 1:
            return None
        block = self._stack.pop()
        block.ends_at, block.end = at, at + 1
        return block

    def _leave_unclosed(self) -> None:
        """Leave a block whose brace is missing: it ended before the current token."""
        block = self._stack.pop()
        block.ends_at = self._tokens.starts[self._index] - 1
        block.end = self._tokens.end(self._index - 1)

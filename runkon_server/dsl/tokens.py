"""Tokens, kept as parallel lists: a whole file costs no object per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.source import Source, Span

IDENT: Final = "name"
INT: Final = "number"
STRING: Final = "string"
EOF: Final = "end of file"
"""Kinds of tokens. Punctuation and keywords are their own kind: `{`, `while`."""

NODE_KEYWORDS: Final = frozenset(
    {"call", "if", "unless", "while", "do", "parallel", "gate", "always", "script", "foreach"}
)
BLOCK_KEYWORDS: Final = frozenset({"workflow", "meta", "inputs"})
INPUT_MODIFIERS: Final = frozenset({"required", "boolean", "default", "description"})
KEYWORDS: Final = NODE_KEYWORDS | BLOCK_KEYWORDS | INPUT_MODIFIERS
NAME_KINDS: Final = (KEYWORDS | {IDENT}) - {"meta", "do"}
"""What may stand where the grammar wants a NAME: almost every keyword is also a plain word."""
KEY_KINDS: Final = frozenset(
    {IDENT, "required", "default", "description", "if", "workflow", "inputs"}
)
"""What may stand left of `=`."""
AGENT_KINDS: Final = frozenset({IDENT, STRING, "required", "default", "description"})
"""What may stand after `call`."""
OPENERS: Final = {"{": "}", "[": "]"}
CLOSERS: Final = frozenset(OPENERS.values())


class Comment(NamedTuple):
    """A `//` comment with its slashes, without the line break."""

    offset: int
    text: str


class Token(NamedTuple):
    """One token as a value, for those who look at few of them."""

    kind: str
    text: str
    """As written, quotes and escapes included."""
    span: Span
    comments: tuple[Comment, ...]
    """The comments between the token before and this one."""


class Tokens:
    """The tokens of a text; the last one is always `EOF`.

    `kinds`, `texts` and `starts` are parallel. `tainted` holds the indexes of tokens before which
    the lexer dropped characters it could not use: nobody should complain about these again.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.kinds: list[str] = []
        self.texts: list[str] = []
        self.starts: list[int] = []
        self.comments: list[Comment] = []
        self.tainted: set[int] = set()

    def __len__(self) -> int:
        return len(self.kinds)

    def end(self, index: int) -> int:
        """Offset right behind a token."""
        return self.starts[index] + len(self.texts[index])

    def __iter__(self) -> Iterator[Token]:
        comments = iter([*self.comments, Comment(len(self.source.text) + 1, "")])
        comment = next(comments)
        for index, kind in enumerate(self.kinds):
            before = []
            while comment.offset < self.starts[index]:
                before.append(comment)
                comment = next(comments)
            span = self.source.span(self.starts[index], self.end(index))
            yield Token(kind, self.texts[index], span, tuple(before))

"""What the tolerant reading of a text gives: its blocks, and what each word in it is for."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE: Final = "file"
DECLARATIONS: Final = "inputs"
MAP: Final = "map"
UNKNOWN: Final = "unknown"
"""Constructs beside those of `keys.KEYS`: the text, `inputs { }`, `{ }` as a value, `{ }` alone."""

BODIES: Final = frozenset(
    {"workflow", "always", "if", "unless", "while", "do … while", "do", "parallel", UNKNOWN}
)
"""The constructs that contain steps."""


class Role(StrEnum):
    """What a word is for."""

    KEYWORD = "keyword"
    KEY = "key"
    MODIFIER = "modifier"
    WORKFLOW = "workflow"
    """The name of the workflow itself."""
    CHILD = "child"
    """The name of another workflow."""
    AGENT = "agent"
    """What follows `call`; also the name of a step."""
    NAMED = "named"
    """The name a step gives itself: of a script, a foreach, a parallel block."""
    GATE_TYPE = "gate type"
    GATE_NAME = "gate name"
    STEP = "step"
    """A step that is referred to."""
    MARKER = "marker"
    FIELD = "field"
    INPUT = "input"
    """The declaration of an input."""
    CONDITION = "condition"
    """A condition without a dot: a boolean input, or a step of which the marker is to come."""
    ENTRY = "entry"
    """A key in a map."""
    WORD = "word"
    """Any other value."""
    PLACEHOLDER = "placeholder"


@dataclass(slots=True, eq=False)
class Block:
    """One construct, from its keyword on. Filled while the text is read."""

    construct: str
    """A row of `keys.KEYS`, or one of the constants above."""
    start: int
    head_end: int
    parent: Block | None
    name: Mention | None = None
    opened_at: int | None = None
    """Right behind its `{`; None while there is none."""
    ends_at: int | None = None
    """Where its contents end: at its `}`, or where it must have been meant."""
    end: int = 0
    """Behind its last character."""
    of: str = ""
    """The option that a map is the value of."""
    keys: list[Mention] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    """Option → its value, if that is a text."""
    children: list[Block] = field(default_factory=list)

    def encloses(self, offset: int) -> bool:
        """Whether an offset is between the braces."""
        if self.opened_at is None or offset < self.opened_at:
            return False
        return self.ends_at is None or offset <= self.ends_at

    @property
    def child(self) -> str | None:
        """The workflow it starts."""
        if self.construct == "foreach":
            return self.values.get("workflow")
        if self.construct == "call workflow" and self.name is not None:
            return self.name.text
        return None


class Mention(NamedTuple):
    """One word with a meaning; a quoted one without its quotes."""

    role: Role
    text: str
    start: int
    end: int
    block: Block
    """The block it stands in or, in a head, the block it begins."""
    of: str = ""
    """For MARKER and FIELD the step, for values the option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """The blocks and the words of one text."""

    root: Block
    """The text itself; its children are the workflows in it, normally one."""
    mentions: tuple[Mention, ...]
    """In source order; they do not overlap."""

    def block_at(self, offset: int) -> Block:
        """The innermost block an offset is in."""
        block = self.root
        while True:
            inner = next((each for each in block.children if each.encloses(offset)), None)
            if inner is None:
                return block
            block = inner

    def mention_at(self, offset: int) -> Mention | None:
        """The word an offset is in, or directly behind."""
        index = bisect_right(self.mentions, offset, key=lambda each: each.start) - 1
        if index < 0 or offset > self.mentions[index].end:
            return None
        return self.mentions[index]

    def blocks(self) -> Iterator[Block]:
        """Every block, in the order in which they begin."""
        waiting = [self.root]
        while waiting:
            block = waiting.pop()
            yield block
            waiting.extend(reversed(block.children))

    def of_role(self, *roles: Role) -> Iterator[Mention]:
        """Every word of these roles, in source order."""
        return (each for each in self.mentions if each.role in roles)

"""One text as an editor holds it, and all that is derived from it, each on first use."""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl.ast import AgentKind, AgentRef
from runkon_server.dsl.editing.blocks import Role
from runkon_server.dsl.editing.scanning import scan
from runkon_server.dsl.lexer import tokenise
from runkon_server.dsl.parser import parse
from runkon_server.dsl.problems import Problems, StopReading
from runkon_server.dsl.queries import agent_key
from runkon_server.dsl.source import Source
from runkon_server.dsl.tokens import EOF, STRING, Tokens

if TYPE_CHECKING:
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.editing.blocks import Block, Mention, Structure
    from runkon_server.dsl.parser import ParseResult

_REST_OF_WORD: Final = re.compile(r"[A-Za-z0-9_.-]*")


class Step(NamedTuple):
    """A step that leaves a result, where it gets its name."""

    key: str
    """What conditions call it."""
    name: Mention

    @property
    def block(self) -> Block:
        """The step itself."""
        return self.name.block


class Declaration(NamedTuple):
    """The declaration of an input."""

    name: Mention
    modifiers: dict[str, str]
    """Those written behind it; for `default` and `description` with their values."""

    @property
    def is_boolean(self) -> bool:
        """Whether it can be a condition."""
        return "boolean" in self.modifiers


class Document:
    """One text. Nothing about it ever raises, however broken it is."""

    def __init__(self, text: str, label: str = "") -> None:
        self.text = text
        self.label = label

    @cached_property
    def parsed(self) -> ParseResult:
        """What the parser makes of it."""
        return parse(self.text, self.label)

    @cached_property
    def tokens(self) -> Tokens:
        """Its tokens; none if it is too large or no text at all."""
        source = Source(self.text, self.label)
        try:
            return tokenise(source, _Unheard(source))
        except StopReading:
            nothing = Tokens(source)
            nothing.kinds, nothing.texts, nothing.starts = [EOF], [""], [len(self.text)]
            return nothing

    @cached_property
    def structure(self) -> Structure:
        """Its blocks and the words in them."""
        return scan(self.tokens)

    @cached_property
    def header(self) -> Mention | None:
        """The name of the workflow, where it is written."""
        return next(self.structure.of_role(Role.WORKFLOW), None)

    @property
    def name(self) -> str | None:
        """The name of the workflow."""
        return None if self.header is None else self.header.text

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps conditions can look at, in source order; a name may come more than once."""
        found = []
        for mention in self.structure.of_role(Role.AGENT, Role.NAMED, Role.CHILD):
            key = self._step_key(mention)
            if key:
                found.append(Step(key, mention))
        return tuple(found)

    @cached_property
    def steps_by_key(self) -> dict[str, tuple[Step, ...]]:
        """The same by what conditions call them."""
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.key, []).append(step)
        return {key: tuple(steps) for key, steps in found.items()}

    def _step_key(self, mention: Mention) -> str | None:
        if mention.role is Role.CHILD:
            return mention.text if mention.block.construct == "call workflow" else None
        if mention.role is Role.AGENT and self.is_quoted(mention):
            kind = AgentKind.PATH if is_path(mention.text) else AgentKind.NAME
            return agent_key(AgentRef(kind=kind, value=mention.text))
        return mention.text

    def is_quoted(self, mention: Mention) -> bool:
        """Whether a word stands in quotes."""
        return self.text[mention.start - 1 : mention.start] == '"'

    @cached_property
    def inputs(self) -> dict[str, Declaration]:
        """The inputs it declares, the first declaration of each."""
        found: dict[str, Declaration] = {}
        current: Declaration | None = None
        for mention in self.structure.of_role(Role.INPUT, Role.MODIFIER, Role.WORD):
            if mention.role is Role.INPUT:
                current = Declaration(mention, {})
                found.setdefault(mention.text, current)
            elif current is not None and mention.block is current.name.block:
                is_value = mention.role is Role.WORD
                current.modifiers[mention.of if is_value else mention.text] = (
                    mention.text if is_value else ""
                )
        return found

    @cached_property
    def markers(self) -> dict[str, tuple[str, ...]]:
        """Step → the markers that are asked of it somewhere in this text."""
        found: dict[str, dict[str, None]] = {}
        for mention in self.structure.of_role(Role.MARKER):
            found.setdefault(mention.of, {})[mention.text] = None
        return {step: tuple(markers) for step, markers in found.items()}

    def token_before(self, offset: int) -> int:
        """The index of the last token that starts before an offset; -1 if there is none."""
        return bisect_left(self.tokens.starts, offset) - 1

    def in_comment(self, offset: int) -> bool:
        """Whether an offset is in a comment, or at its end."""
        comments = self.tokens.comments
        index = bisect_left(comments, offset, key=lambda each: each.offset) - 1
        return index >= 0 and offset <= comments[index].offset + len(comments[index].text)

    def string_at(self, offset: int) -> int | None:
        """The index of the string an offset is in, between its quotes."""
        index = self.token_before(offset)
        if index < 0 or self.tokens.kinds[index] != STRING:
            return None
        last = self.tokens.end(index) - self._is_closed(index)
        return index if offset <= last else None

    def _is_closed(self, index: int) -> bool:
        text = self.tokens.texts[index]
        return len(text) > 1 and text.endswith('"')

    def mended(self, offset: int) -> Document:
        """The same up to an offset, and readable behind it: a string being typed is closed there.

        An opening quote without its partner turns strings and text inside out down to the end.
        """
        kinds = self.tokens.kinds
        last = next((index for index in reversed(range(len(kinds))) if kinds[index] == STRING), 0)
        if kinds[last] != STRING or self._is_closed(last):
            return self
        index = self.string_at(offset)
        if index is None or "\n" in self.text[self.tokens.starts[index] : offset]:
            return self
        rest = _REST_OF_WORD.match(self.text, offset)
        end = offset if rest is None else rest.end()
        return Document(f'{self.text[:end]}"{self.text[end:]}', self.label)


def is_path(quoted: str) -> bool:
    """Whether an agent in quotes is a path, not a name."""
    return "/" in quoted or quoted.endswith(".md")


class _Unheard(Problems):
    """Lets the tokens of a text be had whatever is wrong with it."""

    def report(
        self,
        code: Code,
        start: int,
        end: int,
        message: str,
        *,
        hint: str | None = None,
        expected: tuple[str, ...] = (),
    ) -> None:
        """Say nothing: what is wrong is told by `parse`."""

"""The parser's place in the tokens, and its ways of complaining and of getting back on its feet."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes, limits
from runkon_server.dsl.diagnostics import one_of
from runkon_server.dsl.reading.brackets import Brackets
from runkon_server.dsl.reading.gate_names import GateNames
from runkon_server.dsl.tokens import (
    EOF,
    IDENT,
    INT,
    KEY_KINDS,
    NAME_KINDS,
    NODE_KEYWORDS,
    OPENERS,
    STRING,
)

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.problems import Problems
    from runkon_server.dsl.source import Span
    from runkon_server.dsl.tokens import Tokens

_SHOWN_MAX: Final = 30
_LOOK_AHEAD: Final = 4
_LINE_BREAKERS: Final = NODE_KEYWORDS | {"{", "}", EOF}


class Cursor:
    """A place among the tokens of one text.

    `kind` is the kind of the token at `index`; it stays at the end of the file once it is there.
    """

    def __init__(self, tokens: Tokens, problems: Problems, *, edition: int) -> None:
        self.tokens = tokens
        self.problems = problems
        self.edition = edition
        self.index = 0
        self.kind = tokens.kinds[0]
        last = len(tokens) - 1
        self._last = last
        self._kinds = [*tokens.kinds, *[EOF] * _LOOK_AHEAD]
        self._texts = tokens.texts
        # Complaints about the end of the file point right behind the last token.
        self._starts = [*tokens.starts[:-1], tokens.end(last - 1) if last else 0]
        self.depth = 0
        self.nodes = 0
        self.gates = GateNames()
        self._reported_unclosed = False
        self._braces_lacking: int | None = None
        self._braces_spare: int | None = None

    @cached_property
    def _brackets(self) -> Brackets:
        return Brackets(self.tokens)

    @cached_property
    def _suspect(self) -> int | None:
        return self._brackets.misindented()

    # Looking

    @property
    def text(self) -> str:
        """The current token as written."""
        return self._texts[self.index]

    @property
    def start(self) -> int:
        """Offset of the current token."""
        return self._starts[self.index]

    @property
    def end(self) -> int:
        """Offset right behind the current token."""
        return self._starts[self.index] + len(self._texts[self.index])

    @property
    def previous_end(self) -> int:
        """Offset right behind the token before the current one."""
        before = self.index - 1
        return self._starts[before] + len(self._texts[before]) if self.index else 0

    def peek(self, ahead: int = 1) -> str:
        """The kind of a later token, at most four further on."""
        return self._kinds[self.index + ahead]

    def at_pair(self) -> bool:
        """Whether an option starts here: two tokens of look-ahead decide it."""
        return self.kind in KEY_KINDS and self._kinds[self.index + 1] == "="

    def same_line(self) -> bool:
        """Whether the next token starts on the line on which the current one ends."""
        return not self._breaks_before(min(self.index + 1, self._last))

    def starts_line(self) -> bool:
        """Whether the current token is the first on its line."""
        return self._breaks_before(self.index)

    def _breaks_before(self, index: int) -> bool:
        tokens = self.tokens
        return "\n" in tokens.source.text[tokens.end(index - 1) : tokens.starts[index]]

    def span_from(self, start: int) -> Span:
        """From an offset to the end of the token before the current one."""
        return self.tokens.source.span(start, max(start, self.previous_end))

    def found(self) -> str:
        """The current token as a message names it."""
        if self.kind == EOF:
            return "the end of the file"
        shown = self.text if len(self.text) <= _SHOWN_MAX else f"{self.text[:_SHOWN_MAX]}…"
        if self.kind == STRING:
            return f"the string {shown}"
        return f"the number {shown}" if self.kind == INT else f"`{shown}`"

    # Moving

    def advance(self) -> None:
        """Step over the current token."""
        if self.index < self._last:
            self.index += 1
            self.kind = self._kinds[self.index]

    def go_to(self, index: int) -> None:
        """Step over everything in front of a token."""
        self.index, self.kind = index, self._kinds[index]

    def accept(self, kind: str) -> bool:
        """Step over the current token if it is of this kind."""
        if self.kind != kind:
            return False
        self.advance()
        return True

    def skip(self) -> None:
        """Step over the current token or, from an opening bracket, over all it encloses."""
        if self.kind in OPENERS:
            self.index = self._brackets.closer_of.get(self.index, self._last - 1)
        self.advance()

    def skip_to(self, landmarks: AbstractSet[str]) -> None:
        """Skip the current token, and all up to one of these kinds or to an option."""
        self.skip()
        kinds, index = self._kinds, self.index
        while (kind := kinds[index]) not in landmarks:
            if kind in KEY_KINDS and kinds[index + 1] == "=":
                break
            if kind in OPENERS:
                index = self._brackets.closer_of.get(index, self._last - 1)
            index += 1
        self.go_to(index)

    # Complaining

    def report(
        self,
        code: Code,
        message: str,
        *,
        hint: str | None = None,
        expected: tuple[str, ...] = (),
    ) -> None:
        """A problem with the current token, unless the lexer dropped characters right before it."""
        if self.index in self.tokens.tainted:
            return
        self.problems.report(code, self.start, self.end, message, hint=hint, expected=expected)

    def expected(self, *expected: str, hint: str | None = None) -> None:
        """Report that something else should stand here.

        Args:
            expected: spellings such as `{`, or descriptions in words such as `a name`.
        """
        message = f"expected {one_of(expected)}, found {self.found()}"
        self.report(codes.EXPECTED, message, hint=hint, expected=expected)

    def unclosed(self, opened_at: int, what: str) -> None:
        """Report that a block is still open.

        At the end of the file all blocks still open arrive here; the innermost is reported.
        """
        if self.kind == EOF:
            if self._reported_unclosed:
                return
            self._reported_unclosed = True
        line, column = self.tokens.source.position(opened_at)
        hint = f"the `{{` at line {line}, column {column} is not closed"
        self.report(
            codes.UNCLOSED_BLOCK,
            f"expected `}}` to close {what}, found {self.found()}",
            hint=(self.misindented_hint() if self.kind == EOF else None) or hint,
            expected=("}",),
        )

    def misindented_hint(self) -> str | None:
        """Where the braces of the text stop to agree with its indentation, if anywhere."""
        suspect = self._suspect
        if suspect is None:
            return None
        line, column = self.tokens.source.position(suspect)
        return f"the `{{` at line {line}, column {column} and its `}}` are indented differently"

    # Common pieces

    def name(self, what: str) -> str:
        """Read a NAME; after a problem, the best guess at it, perhaps empty."""
        if self.kind in NAME_KINDS:
            text = self.text
            self.advance()
            return text
        if self.kind == STRING:
            self.expected(f"the name of {what}", hint="names are written without quotes")
            text = self.text[1:-1]
            self.advance()
            return text
        if self.kind == INT:
            self.expected(f"the name of {what}", hint="names start with a letter or `_`")
            glued = self.peek() == IDENT and self.tokens.starts[self.index + 1] == self.end
            self.advance()
            if glued:
                self.advance()
            return ""
        is_reserved = self.kind in {"meta", "do"} and self.peek() in {"{", "."}
        hint = f"`{self.kind}` cannot be a name" if is_reserved else None
        self.expected(f"the name of {what}", hint=hint)
        if is_reserved:
            self.advance()
        return ""

    def open_block(self, what: str) -> bool:
        """Step over `{`; after a problem, tell whether a block follows nevertheless."""
        if self.accept("{"):
            return True
        hint = f"{what} needs a block, even if it is empty: `{{ }}`"
        if self.starts_line():
            # Where it belongs, so that the token here is free to have a problem of its own.
            message = f"expected `{{`, found {self.found()}"
            at = self.previous_end
            self.problems.report(codes.EXPECTED, at, at, message, hint=hint, expected=("{",))
        else:
            self.expected("{", hint=hint)
        if self._brace_ahead():
            return True
        if self._braces_spare is None:
            self._braces_spare = self._brackets.surplus
        self._braces_spare -= 1
        return self._braces_spare >= 0

    def _brace_ahead(self) -> bool:
        """Step over what stands between here and a `{` on the same line, if there is one."""
        index = self.index
        while self._kinds[index] not in _LINE_BREAKERS and not self._breaks_before(index):
            index += 1
        if self._kinds[index] != "{" or self._breaks_before(index):
            return False
        self.index = index
        self.advance()
        return True

    def assume_closed(self) -> bool:
        """Whether a `}` is likelier to be missing here than later: some brace is never closed."""
        if self._braces_lacking is None:
            self._braces_lacking = self._brackets.unclosed
        self._braces_lacking -= 1
        return self._braces_lacking >= 0

    def enter_block(self) -> bool:
        """Go one level down; False if that is too deep, and then the block has been skipped.

        The opening brace has been stepped over already.
        """
        if self.depth < limits.DEPTH:
            self.depth += 1
            return True
        self.problems.report(
            codes.TOO_DEEP,
            self.previous_end - 1,
            self.previous_end,
            f"blocks may be nested {limits.DEPTH} deep",
            hint="move the inner part into a workflow of its own and use `call workflow`",
        )
        self.index = self._brackets.closer_of.get(self.index - 1, self._last - 1)
        self.advance()
        return False

    def leave_block(self) -> None:
        """Go one level up."""
        self.depth -= 1

    def count_node(self, span: Span) -> None:
        """Count one step, which stands at `span`.

        Raises:
            StopReading: there are too many.
        """
        self.nodes += 1
        if self.nodes > limits.NODES:
            self.problems.stop(
                codes.TOO_MANY_NODES,
                span,
                f"a workflow may have {limits.NODES} steps",
                hint="move some of them into workflows of their own and use `call workflow`",
            )

    def count_entry(self, count: int, of: str) -> None:
        """Refuse what has too many elements.

        Raises:
            StopReading: there are more than allowed.
        """
        if count > limits.ENTRIES:
            self.problems.stop(
                codes.TOO_MANY_ENTRIES,
                self.tokens.source.span(self.start, self.end),
                f"`{of}` has more than {limits.ENTRIES} entries",
            )

"""Shell texts without values: each placeholder becomes a reference to a variable, quoted in place.

A value that is pasted into a shell text can break out of any quoting that the author wrote around
it. So values travel in the environment only, and the text refers to them: `"${_RUNKON_1}"` where
words stand, `${_RUNKON_1}` between double quotes, and so on. What is expanded is not parsed again,
whatever is in it; reading the text only decides which quotes make it one word.

Where a reference would not do what a reader expects (in arithmetic, which some shells evaluate
twice, in backquotes, in `${...}`) a placeholder is refused. What the author makes the shell parse
again (`eval`, `sh -c`, the numeric tests of `[[`) is beyond this: there he has to check values
himself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from runkon_server.dsl.substitute import placeholders

REFERENCE_PREFIX: Final = "_RUNKON_"
"""Of the variables that hold the values; behind it a number from 1."""

_Kind: TypeAlias = Literal[
    "words", "double quotes", "single quotes", "heredoc", "`...`", "${...}", "$((...))"
]
_REFUSED: Final = frozenset({"`...`", "${...}", "$((...))"})
_WORD_ENDS: Final = frozenset(" \t\n;&|<>()")
_PLAIN: Final[dict[_Kind, re.Pattern[str]]] = {
    "words": re.compile(r"""[^\\'"`$(#<\n{]+"""),
    "double quotes": re.compile(r"""[^\\"`$\n{]+"""),
    "heredoc": re.compile(r"""[^\\"`$\n{]+"""),
    "single quotes": re.compile(r"[^'{]+"),
    "`...`": re.compile(r"[^\\`{]+"),
    "${...}": re.compile(r"""[^\\'"$}{]+"""),
    "$((...))": re.compile(r"[^(){]+"),
}
"""What means nothing to a shell where it stands, beside every `{`, which may be a placeholder's."""
_PLAIN_IN_PARENTHESES: Final = re.compile(r"""[^\\'"`$()#<\nc{]+""")
_SIGNS: Final = re.compile(r"""[\\'"`$()#<\nc{}]""")


@dataclass(frozen=True, slots=True)
class ShellText:
    """A text for a shell and the names of the values that it refers to, in their numbers' order."""

    text: str
    names: tuple[str, ...] = ()
    problem: str | None = None
    """Why the text must not be used; None: it may."""


class ShellTextError(ValueError):
    """A placeholder stands where no reference can."""


class _Heredoc(NamedTuple):
    delimiter: str
    strips_tabs: bool
    is_quoted: bool


class _Frame(NamedTuple):
    """One level of quoting or nesting."""

    kind: _Kind
    closer: str = ""
    """What ends it; empty: the end of the text, or its own rule."""
    heredoc: _Heredoc | None = None


def read_shell(text: str) -> ShellText:
    """The text with references in place of its placeholders; one without any stays as it is."""
    found = {each.start: (each.name, each.end) for each in placeholders(text)}
    if not found:
        return ShellText(text)
    reader = _Reader(text, found)
    try:
        return reader.read()
    except ShellTextError as error:
        return ShellText(text, problem=str(error))


def effort(text: str) -> int:
    """How often `read_shell` has to look up, about; it takes a microsecond or two each time."""
    return len(_SIGNS.findall(text)) if any(placeholders(text)) else 0


class _Reader:
    """Reads one text from left to right, as a POSIX shell would."""

    def __init__(self, text: str, found: dict[int, tuple[str, int]]) -> None:
        self._text = text
        self._found = found
        self._at = 0
        self._pieces: list[str] = []
        self._numbers: dict[str, int] = {}
        self._frames = [_Frame("words")]
        self._heredocs: list[_Heredoc] = []
        """Announced on this line; their bodies begin on the next."""

    def read(self) -> ShellText:
        while self._at < len(self._text):
            if self._at in self._found:
                self._refer()
            elif not self._pass_over():
                self._step()
        return ShellText("".join(self._pieces), tuple(self._numbers))

    def _pass_over(self) -> bool:
        """Take what means nothing here; False if something does."""
        frame = self._frames[-1]
        if frame.heredoc is not None and self._text[self._at - 1] == "\n":
            return False  # the line may be the last one
        pattern = _PLAIN_IN_PARENTHESES if frame.closer else _PLAIN[frame.kind]
        plain = pattern.match(self._text, self._at)
        if plain is None:
            return False
        self._take(len(plain[0]))
        return True

    def _step(self) -> None:
        match self._frames[-1].kind:
            case "words":
                self._in_words()
            case "double quotes" | "heredoc":
                self._in_quotes()
            case "single quotes":
                self._take(1, closes=self._text[self._at] == "'")
            case "`...`":
                is_escaped = self._text[self._at] == "\\"
                self._take(2 if is_escaped else 1, closes=self._text[self._at] == "`")
            case "${...}":
                self._in_braces()
            case "$((...))":
                self._in_arithmetic()

    def _refer(self) -> None:
        name, end = self._found[self._at]
        frame = self._frames[-1]
        if frame.kind in _REFUSED:
            raise ShellTextError(f"{{{{{name}}}}} must not stand inside {frame.kind}")
        if frame.heredoc is not None and frame.heredoc.is_quoted:
            raise ShellTextError(f"{{{{{name}}}}} must not stand in a here-document that is quoted")
        if frame.kind != "single quotes" and self._at and self._text[self._at - 1] == "$":
            raise ShellTextError(f"{{{{{name}}}}} must not stand right behind `$`")
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        reference = f"${{{REFERENCE_PREFIX}{number}}}"
        match frame.kind:
            case "words":
                reference = f'"{reference}"'
            case "single quotes":
                reference = f"'\"{reference}\"'"
            case _:
                pass
        self._pieces.append(reference)
        self._at = end

    def _in_words(self) -> None:
        text, at, closer = self._text, self._at, self._frames[-1].closer
        match text[at]:
            case "\\":
                self._escape()
            case "'":
                self._open("single quotes", 1)
            case '"':
                self._open("double quotes", 1)
            case "`":
                self._open("`...`", 1)
            case "$":
                self._dollar()
            case "(" if text.startswith("((", at):
                self._open("$((...))", 1)
                self._open("$((...))", 1)
            case "(":
                self._open("words", 1, ")")
            case "#" if at == 0 or text[at - 1] in _WORD_ENDS:
                self._skip_comment()
            case "<" if text.startswith("<<", at):
                self._announce_heredoc()
            case "\n":
                self._take(1)
                self._begin_heredoc()
            case "c" if closer and self._is_word("case"):
                raise ShellTextError("placeholders must not stand beside `case` inside parentheses")
            case character:
                self._take(1, closes=character == closer)

    def _in_quotes(self) -> None:
        frame = self._frames[-1]
        if frame.heredoc is not None:
            is_line_start = self._text[self._at - 1] == "\n"
            if is_line_start and self._ends_heredoc(frame.heredoc):
                return
            if frame.heredoc.is_quoted:
                self._take(1)
                return
        match self._text[self._at]:
            case "\\":
                self._escape()
            case '"' if frame.kind == "double quotes":
                self._take(1, closes=True)
            case "`":
                self._open("`...`", 1)
            case "$":
                self._dollar()
            case _:
                self._take(1)

    def _in_braces(self) -> None:
        match self._text[self._at]:
            case "\\":
                self._escape()
            case "'" if self._around_braces() == "words":
                self._open("single quotes", 1)
            case '"':
                self._open("double quotes", 1)
            case "$":
                self._dollar()
            case character:
                self._take(1, closes=character == "}")

    def _around_braces(self) -> _Kind:
        return next(each.kind for each in reversed(self._frames) if each.kind != "${...}")

    def _in_arithmetic(self) -> None:
        match self._text[self._at]:
            case "(":
                self._open("$((...))", 1)
            case character:
                self._take(1, closes=character == ")")

    def _dollar(self) -> None:
        text, at = self._text, self._at
        if text.startswith("$((", at):
            self._open("$((...))", 2)
            self._open("$((...))", 1)
        elif text.startswith("$(", at):
            self._open("words", 2, ")")
        elif text.startswith("${", at) and at + 1 not in self._found:
            self._open("${...}", 2)
        elif text.startswith("$'", at) and self._frames[-1].kind == "words":
            raise ShellTextError("placeholders must not stand beside $'...'")
        else:
            self._take(1)

    def _escape(self) -> None:
        if self._at + 1 in self._found:
            name, _ = self._found[self._at + 1]
            raise ShellTextError(f"{{{{{name}}}}} must not stand right behind a backslash")
        self._take(2)

    def _skip_comment(self) -> None:
        """Placeholders in a comment stay: nobody reads their values."""
        end = self._text.find("\n", self._at)
        self._take((len(self._text) if end < 0 else end) - self._at)

    def _announce_heredoc(self) -> None:
        if self._text.startswith("<<<", self._at):
            self._take(3)
            return
        strips_tabs = self._text.startswith("<<-", self._at)
        self._take(3 if strips_tabs else 2)
        while self._text[self._at : self._at + 1] in (" ", "\t"):
            self._take(1)
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in _WORD_ENDS:
            if self._at in self._found:
                raise ShellTextError("a placeholder must not name the end of a here-document")
            self._take(1)
        word = self._text[start : self._at]
        delimiter = word.translate({ord(character): None for character in "'\"\\"})
        self._heredocs.append(_Heredoc(delimiter, strips_tabs, delimiter != word))

    def _begin_heredoc(self) -> None:
        if self._heredocs:
            self._frames.append(_Frame("heredoc", heredoc=self._heredocs.pop(0)))

    def _ends_heredoc(self, heredoc: _Heredoc) -> bool:
        end = self._text.find("\n", self._at)
        line = self._text[self._at : len(self._text) if end < 0 else end]
        if (line.lstrip("\t") if heredoc.strips_tabs else line) != heredoc.delimiter:
            return False
        self._take(len(line) + (end >= 0), closes=True)
        self._begin_heredoc()
        return True

    def _is_word(self, word: str) -> bool:
        before, after = self._text[self._at - 1], self._text[self._at + len(word) :][:1]
        is_alone = before in _WORD_ENDS and after in _WORD_ENDS
        return is_alone and self._text.startswith(word, self._at)

    def _open(self, kind: _Kind, length: int, closer: str = "") -> None:
        self._take(length)
        self._frames.append(_Frame(kind, closer))

    def _take(self, length: int, *, closes: bool = False) -> None:
        self._pieces.append(self._text[self._at : self._at + length])
        self._at += length
        if closes and len(self._frames) > 1:
            self._frames.pop()

"""A small TextMate engine: enough of one to run the grammar of docs/editors.

It knows `match`, `begin`/`end`, captures, `include` of the repository, and picks the earliest
match, of several at one place the first. Its regular expressions are Python's, so a grammar must
keep to what Oniguruma and Python read alike. `test_editing_grammar.py` compares it with the real
engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Rule: TypeAlias = dict[str, Any]


class Token(NamedTuple):
    """Text with its scopes, the outermost first, without that of the whole file."""

    text: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Open:
    """A `begin` that has no `end` yet."""

    rule: Rule
    scopes: tuple[str, ...]


class Grammar:
    """A grammar that was read from its JSON."""

    def __init__(self, document: Rule) -> None:
        self._document = document
        self._compiled: dict[str, re.Pattern[str]] = {}

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text, line by line, those of one scope joined."""
        stack: list[_Open] = []
        found: list[Token] = []
        for line in text.split("\n"):
            found += _joined(self._line(line, stack))
        return found

    def _line(self, line: str, stack: list[_Open]) -> Iterator[Token]:
        position = 0
        while True:
            outer = stack[-1].scopes if stack else ()
            best = self._next(line, position, stack)
            if best is None:
                yield Token(line[position:], outer)
                return
            rule, match, is_end = best
            yield Token(line[position : match.start()], outer)
            scopes = outer if is_end else (*outer, *_named(rule))
            which = "endCaptures" if is_end else "beginCaptures" if "begin" in rule else "captures"
            yield from _captured(match, rule.get(which, {}), scopes)
            if is_end:
                stack.pop()
            elif "begin" in rule:
                stack.append(_Open(rule, scopes))
            assert match.end() > position or line == "", "a grammar must not match nothing"
            position = match.end()

    def _next(
        self, line: str, position: int, stack: list[_Open]
    ) -> tuple[Rule, re.Match[str], bool] | None:
        """The rule that matches first, and whether it is the end of the open one."""
        best: tuple[Rule, re.Match[str], bool] | None = None
        patterns = self._document["patterns"]
        if stack:
            patterns = stack[-1].rule.get("patterns", [])
            match = self._search(stack[-1].rule["end"], line, position)
            best = None if match is None else (stack[-1].rule, match, True)
        for rule in self._rules(patterns):
            match = self._search(rule.get("match") or rule["begin"], line, position)
            if match is not None and (best is None or match.start() < best[1].start()):
                best = (rule, match, False)
        return best

    def _rules(self, patterns: list[Rule]) -> Iterator[Rule]:
        for pattern in patterns:
            rule = pattern
            if "include" in pattern:
                rule = self._document["repository"][pattern["include"].removeprefix("#")]
            if "match" in rule or "begin" in rule:
                yield rule
            else:
                yield from self._rules(rule["patterns"])

    def _search(self, pattern: str, line: str, position: int) -> re.Match[str] | None:
        if pattern not in self._compiled:
            self._compiled[pattern] = re.compile(pattern)
        return self._compiled[pattern].search(line, position)

    def expressions(self) -> Iterator[str]:
        """Every regular expression of the grammar."""
        waiting: list[Any] = [self._document]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                yield from (value[key] for key in ("match", "begin", "end") if key in value)
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)


def _named(rule: Rule) -> tuple[str, ...]:
    return (rule["name"],) if "name" in rule else ()


def _captured(match: re.Match[str], captures: Rule, scopes: tuple[str, ...]) -> Iterator[Token]:
    """A match cut at its groups, which follow one another."""
    if "0" in captures:
        yield Token(match[0], (*scopes, captures["0"]["name"]))
        return
    position = match.start()
    for group, capture in sorted(captures.items()):
        start, end = match.span(int(group))
        if start >= 0:
            yield Token(match.string[position:start], scopes)
            yield Token(match.string[start:end], (*scopes, capture["name"]))
            position = end
    yield Token(match.string[position : match.end()], scopes)


def _joined(tokens: Iterator[Token]) -> Iterator[Token]:
    waiting: Token | None = None
    for token in tokens:
        if not token.text:
            continue
        if waiting is not None and waiting.scopes == token.scopes:
            waiting = Token(waiting.text + token.text, token.scopes)
        else:
            if waiting is not None:
                yield waiting
            waiting = token
    if waiting is not None:
        yield waiting

"""A reader of the documented grammar, and texts made from it.

The notation is that of docs/language/grammar.md: sequences, `|`, `[ ]`, `{ }`, `( )`, and `&` for
parts in any order. Productions that are described in words (`? ... ?`) need a maker of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<name>\w+)|"(?P<word>[^"]+)"|\?(?P<prose>[^?]*)\?|(?P<mark>[=|&;()\[\]{}]))'
)
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}"}
_REPEATS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Word:
    """A word or sign that stands for itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """Another production."""

    of: str


@dataclass(frozen=True, slots=True)
class Prose:
    """What is only described."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """`sequence`, `either`, `mixed`, `optional` or `repeated`."""

    kind: str
    parts: tuple[Expression, ...]


Expression: TypeAlias = Word | Name | Prose | Group
Grammar: TypeAlias = "dict[str, Expression]"
Unit: TypeAlias = "list[str]"
"""Words that stay together when parts are mixed."""


def read_grammar(text: str) -> Grammar:
    """The productions of a grammar, by name, in order.

    Raises:
        ValueError: a production is defined twice, used and not defined, or cannot be read.
    """
    grammar: Grammar = {}
    tokens = _Tokens(text)
    while tokens.kind != "end":
        name = tokens.take("name")
        tokens.take("=")
        if name in grammar:
            raise ValueError(f"{name} is defined twice")
        grammar[name] = _either(tokens)
        tokens.take(";")
    missing = {each.of for whole in grammar.values() for each in walk(whole) if type(each) is Name}
    if missing - grammar.keys():
        raise ValueError(f"nobody defines {sorted(missing - grammar.keys())}")
    return grammar


def walk(expression: Expression) -> Iterator[Expression]:
    """An expression and all its parts."""
    yield expression
    if isinstance(expression, Group):
        for part in expression.parts:
            yield from walk(part)


class _Tokens:
    """The tokens of a grammar; `kind` is `name`, `word`, `prose`, `end`, or a sign."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0
        self.kind = ""
        self.text = ""
        self._next()

    def _next(self) -> None:
        if self._at == len(self._text):
            self.kind, self.text = "end", ""
            return
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"cannot read {self._text[self._at : self._at + 30]!r}")
        self._at = found.end()
        self.text = found[found.lastgroup]
        self.kind = self.text if found.lastgroup == "mark" else found.lastgroup

    def take(self, kind: str) -> str:
        if self.kind != kind:
            raise ValueError(f"{kind} is missing before {self._text[self._at :][:30]!r}")
        text = self.text
        self._next()
        return text


def _either(tokens: _Tokens) -> Expression:
    return _joined(tokens, "|", "either", _mixed)


def _mixed(tokens: _Tokens) -> Expression:
    return _joined(tokens, "&", "mixed", _sequence)


def _joined(
    tokens: _Tokens, sign: str, kind: str, read: Callable[[_Tokens], Expression]
) -> Expression:
    parts = [read(tokens)]
    while tokens.kind == sign:
        tokens.take(sign)
        parts.append(read(tokens))
    return parts[0] if len(parts) == 1 else Group(kind, tuple(parts))


def _sequence(tokens: _Tokens) -> Expression:
    parts = []
    while tokens.kind in {"name", "word", "prose", *_CLOSERS}:
        parts.append(_part(tokens))
    return parts[0] if len(parts) == 1 else Group("sequence", tuple(parts))


def _part(tokens: _Tokens) -> Expression:
    kind = tokens.kind
    if kind not in _CLOSERS:
        text = tokens.take(kind)
        return Name(text) if kind == "name" else Word(text) if kind == "word" else Prose(text)
    tokens.take(kind)
    inner = _either(tokens)
    tokens.take(_CLOSERS[kind])
    if kind == "(":
        return inner
    return Group("optional" if kind == "[" else "repeated", (inner,))


class Maker:
    """Makes random sentences of a grammar."""

    def __init__(
        self,
        grammar: Grammar,
        chance: random.Random,
        makers: Mapping[str, Callable[[random.Random], str]],
        *,
        recursive: str,
        depth: int,
    ) -> None:
        self._grammar = grammar
        self._chance = chance
        self._makers = makers
        self._recursive = recursive
        """The production whose nesting is bounded: at the bottom nothing repeats it."""
        self._depth = depth
        self.used: set[str] = set()
        """Productions that were made so far, below the first."""

    def make(self, name: str) -> list[str]:
        """The words of one sentence."""
        return [word for unit in self._units(Name(name)) for word in unit]

    def _units(self, expression: Expression) -> list[Unit]:
        match expression:
            case Word(text):
                return [[text]]
            case Name(name):
                return [[word for unit in self._production(name) for word in unit]]
            case Group("sequence", parts):
                return [[word for part in parts for unit in self._units(part) for word in unit]]
            case Group("either", parts):
                return self._units(self._chance.choice(parts))
            case Group("mixed", parts):
                return self._mix([self._units(part) for part in parts])
            case Group("optional", (part,)):
                return self._units(part) if self._chance.random() < 0.5 else []
            case Group("repeated", (part,)):
                if self._depth == 0 and Name(self._recursive) in walk(part):
                    return []
                count = self._chance.randrange(_REPEATS_MAX + 1)
                return [unit for _ in range(count) for unit in self._units(part)]
            case _:
                raise AssertionError(expression)

    def _production(self, name: str) -> list[Unit]:
        self.used.add(name)
        if name in self._makers:
            return [[self._makers[name](self._chance)]]
        self._depth -= name == self._recursive
        units = self._units(self._grammar[name])
        self._depth += name == self._recursive
        return units

    def _mix(self, parts: list[list[Unit]]) -> list[Unit]:
        waiting = [part for part in parts if part]
        mixed = []
        while waiting:
            part = self._chance.choice(waiting)
            mixed.append(part.pop(0))
            waiting = [each for each in waiting if each]
        return mixed

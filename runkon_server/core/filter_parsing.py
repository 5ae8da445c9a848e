"""Reading filters: a subset of AIP-160.

    status = waiting AND workflow = "deploy" AND NOT (labels.team = "core" OR start_time < now-1d)

Left out of AIP-160: functions, wildcards, terms without a field, and `AND` beside `OR` without
parentheses, whose precedence there is the opposite of everybody's expectation.

Source: https://google.aip.dev/160
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NoReturn, cast

from runkon_server.core.filters import (
    EVERYTHING,
    FIELDS,
    LABELS,
    STATUSES,
    All,
    Any,
    Comparison,
    Filter,
    IsSet,
    Kind,
    LabelIs,
    Not,
    Relative,
)
from runkon_server.errors import FilterInvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.core.filters import Operator, Value

FILTER_BYTES: Final = 4 * 1024
TERMS_MAX: Final = 64
DEPTH_MAX: Final = 16
_SHOWN: Final = 40
_NUMBER_MAX: Final = 2**63 - 1
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BLANK: Final = re.compile(r"[ \t\r\n]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9_./-]{1,63}")
_OPERATOR: Final = re.compile(r"!=|<=|>=|=|<|>|:")
_BARE: Final = re.compile(r"""[^\s()"'=<>!,]+""")
_QUOTED: Final = re.compile(r""""((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'""", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_RELATIVE: Final = re.compile(r"now(?:([+-])((?:[0-9]{1,6}[smhdw])+))?")
_SPAN: Final = re.compile(r"([0-9]+)([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN_MAX: Final = timedelta(days=36_500)
_INSTANT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2}))?"
)


def parse_filter(text: str) -> Filter:
    """What a filter says; the empty one says everything.

    Raises:
        FilterInvalidError: with the column, from 1, and the field or value that is not understood.
    """
    if len(text.encode(errors="replace")) > FILTER_BYTES:
        raise FilterInvalidError(1, f"is longer than {FILTER_BYTES} bytes")
    if "\x00" in text:
        raise FilterInvalidError(text.index("\x00") + 1, "NUL characters are not allowed")
    reader = _Reader(text)
    return EVERYTHING if reader.at_end() else reader.whole()


class _Reader:
    """One pass over the text; `_at` is where the next token begins."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._terms = 0
        self._skip_space()

    def at_end(self) -> bool:
        return self._at == len(self._text)

    def whole(self) -> Filter:
        found = self._expression()
        if not self.at_end():
            self._refuse("expected AND, OR or the end")
        return found

    def _expression(self) -> Filter:
        terms = [self._term()]
        joined = ""
        while True:
            at = self._at
            word = self._keyword("AND", "OR")
            if word is None:
                break
            if joined and word != joined:
                self._at = at
                self._refuse("AND and OR side by side need parentheses")
            joined = word
            terms.append(self._term())
        if len(terms) == 1:
            return terms[0]
        return All(tuple(terms)) if joined == "AND" else Any(tuple(terms))

    def _term(self) -> Filter:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._refuse(f"nested deeper than {DEPTH_MAX} levels")
        found = self._negated() or self._grouped() or self._restriction()
        self._depth -= 1
        return found

    def _negated(self) -> Filter | None:
        if self._keyword("NOT") is None and not self._take("-"):
            return None
        return Not(self._term())

    def _grouped(self) -> Filter | None:
        opened = self._at
        if not self._take("("):
            return None
        found = self._expression()
        if not self._take(")"):
            if self.at_end():
                raise FilterInvalidError(opened + 1, "this parenthesis is never closed")
            self._refuse("expected `)`, AND or OR")
        return found

    def _restriction(self) -> Filter:
        self._terms += 1
        if self._terms > TERMS_MAX:
            self._refuse(f"more than {TERMS_MAX} comparisons")
        at = self._at
        name = self._match(_NAME)
        if name is None:
            self._refuse("expected the name of a field")
        if name == LABELS:
            return self._label()
        kind = FIELDS.get(name)
        if kind is None:
            raise FilterInvalidError(at + 1, _unknown(name), name=name)
        if self._text.startswith(".", self._at):
            self._refuse(f"`{name}` has no parts")
        operator = self._operator()
        if operator == ":":
            self._require_star(name)
            return IsSet(name)
        if operator not in ("=", "!=") and kind not in (Kind.NUMBER, Kind.INSTANT):
            raise FilterInvalidError(at + 1, f"`{name}` is {kind}: it takes `=` and `!=` only")
        value = self._value(name, kind)
        return Comparison(name, cast("Operator", operator), value)

    def _label(self) -> Filter:
        """`labels.KEY = VALUE`, `labels."KEY" = VALUE`, `labels.KEY:*`, or `labels:KEY`."""
        if not self._text.startswith(".", self._at):
            self._skip_space()
            if self._operator() != ":":
                self._refuse("labels are compared one by one: `labels.KEY = VALUE`")
            return LabelIs(self._label_key(), None)
        self._at += 1
        key = self._label_key()
        operator = self._operator()
        if operator == ":":
            self._require_star(f"labels.{key}")
            return LabelIs(key, None)
        if operator not in ("=", "!="):
            self._refuse(f"`labels.{key}` is a text: it takes `=` and `!=` only")
        found = LabelIs(key, self._string(f"labels.{key}"))
        return found if operator == "=" else Not(found)

    def _label_key(self) -> str:
        at = self._at
        key = self._quoted()
        if key is None:
            key = self._match(_LABEL_KEY)
        if key is None or not _LABEL_KEY.fullmatch(key):
            raise FilterInvalidError(at + 1, "a label's key has 1 to 63 of `A-Z a-z 0-9 _ . / -`")
        return key

    def _operator(self) -> str:
        found = self._match(_OPERATOR)
        if found is None:
            self._refuse("expected one of = != < <= > >= :")
        return found

    def _require_star(self, name: str) -> None:
        if not self._take("*"):
            self._refuse(f"write `{name}:*` to ask whether it is set")

    def _value(self, name: str, kind: Kind) -> Value:
        at = self._at
        text = self._string(name)
        value = _READ[kind](text)
        if value is None:
            raise FilterInvalidError(at + 1, f"`{name}` is {_WANTED[kind]}, not {_cut(text)!r}")
        return value

    def _string(self, name: str) -> str:
        found = self._quoted()
        if found is None:
            found = self._match(_BARE)
        if found is None:
            if self._text.startswith(('"', "'"), self._at):
                self._refuse("this quote is never closed")
            self._refuse(f"expected a value for `{name}`")
        return found

    def _quoted(self) -> str | None:
        found = _QUOTED.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        self._skip_space()
        body: str = found.group(1) if found.group(1) is not None else found.group(2)
        return _ESCAPE.sub(r"\1", body)

    def _keyword(self, *words: str) -> str | None:
        found = _NAME.match(self._text, self._at)
        if found is None or found.group() not in words:
            return None
        self._at = found.end()
        self._skip_space()
        return found.group()

    def _take(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        self._skip_space()
        return True

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        if not self._text.startswith(".", self._at):
            self._skip_space()
        return found.group()

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _refuse(self, what: str) -> NoReturn:
        if self.at_end():
            raise FilterInvalidError(self._at + 1, f"{what}; the filter ends here")
        # Not `split()`: more is blank to that than lies between the tokens of a filter.
        rest = _cut(_BLANK.split(self._text[self._at : self._at + _SHOWN * 2], maxsplit=1)[0])
        raise FilterInvalidError(self._at + 1, f"{what} before {rest!r}")


def _unknown(name: str) -> str:
    near = get_close_matches(name, [*FIELDS, LABELS], n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(FIELDS)}, labels.KEY"
    return f"unknown field `{_cut(name)}`; {hint}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _status(text: str) -> str | None:
    return text.lower() if text.lower() in STATUSES else None


def _text(text: str) -> str:
    return text


def _number(text: str) -> int | None:
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) > _NUMBER_MAX:
        return None
    return int(text)


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _instant(text: str) -> datetime | Relative | None:
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        sign, spans = relative.groups()
        total = sum(
            (timedelta(**{_UNITS[unit]: int(n)}) for n, unit in _SPAN.findall(spans or "")),
            timedelta(0),
        )
        if total > _SPAN_MAX:
            return None
        return Relative(-total if sign == "-" else total)
    if not _INSTANT.fullmatch(text):
        return None
    try:
        at = datetime.fromisoformat(text.upper())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_READ: Final[dict[Kind, Callable[[str], Value | None]]] = {
    Kind.STATUS: _status,
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.FLAG: _flag,
    Kind.INSTANT: _instant,
}
_WANTED: Final = {
    Kind.STATUS: f"one of {', '.join(STATUSES)}",
    Kind.TEXT: Kind.TEXT,
    Kind.NUMBER: Kind.NUMBER,
    Kind.FLAG: Kind.FLAG,
    Kind.INSTANT: "a time such as `2026-01-31T12:00:00Z`, `2026-01-31` or `now-1h`",
}

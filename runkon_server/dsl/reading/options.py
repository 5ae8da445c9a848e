"""The options of one construct: found by name, turned into the type they must have."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from runkon_server.dsl import codes, limits
from runkon_server.dsl.ast import ContinueOnFail
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.diagnostics import did_you_mean, nearest, one_of
from runkon_server.dsl.durations import parse_duration
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.reading.agents import agent_ref
from runkon_server.dsl.reading.values import Text, TextList, TextMap
from runkon_server.dsl.strings import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum

    from runkon_server.dsl.ast import OnFail, Pairs
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.durations import Duration
    from runkon_server.dsl.keys import Key
    from runkon_server.dsl.problems import Problems
    from runkon_server.dsl.reading.values import Pair, Value
    from runkon_server.dsl.source import Span

_Word = TypeVar("_Word", bound="StrEnum")
_NUMBER: Final = re.compile(r"\+?([0-9]+)")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_DIGITS_MAX: Final = 10
_SUSPECTS: Final = 5
"""Unknown options that are compared with those missing; a longer list is no slip of the pen."""
_LIMIT: Final = "max_iterations"
_BOOLEANS: Final = dict.fromkeys(("yes", "on", "1", "true"), "true") | dict.fromkeys(
    ("no", "off", "0", "false"), "false"
)
"""What people write for the two words, in lower case."""
_REQUIRED: Final = {
    construct: tuple(name for name, key in keys.items() if key.required)
    for construct, keys in KEYS.items()
}
_ALL_KEYS: Final = frozenset(key for keys in KEYS.values() for key in keys)


class Options:
    """The options written for one construct; the last one of a name counts."""

    def __init__(self, pairs: Iterable[Pair], problems: Problems) -> None:
        self._problems = problems
        self._pairs = unique(pairs, problems)

    def __contains__(self, key: str) -> bool:
        return key in self._pairs

    def __bool__(self) -> bool:
        return bool(self._pairs)

    # Typed access: None when the option is absent or unusable; the latter has been reported.

    def text(self, key: str) -> str | None:
        """Quoted or bare text."""
        found = self._text(key)
        return None if found is None else found.text

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; a single text counts as a list of one."""
        value = self.value(key)
        if isinstance(value, TextList):
            return tuple(item.text for item in value.items)
        if isinstance(value, Text):
            return (value.text,)
        if value is not None:
            self.report(codes.WRONG_SHAPE, key, f"`{key}` must be a list or a text, not a map")
        return None

    def pairs(self, key: str) -> Pairs | None:
        """A map of texts."""
        value = self.value(key)
        if isinstance(value, TextMap):
            return map_pairs(value, self._problems)
        if value is not None:
            self.report(codes.WRONG_SHAPE, key, f"`{key}` must be a map: `{{ name = value }}`")
        return None

    def value(self, key: str) -> Value | None:
        """The value as written, of any shape."""
        pair = self._pairs.get(key)
        return None if pair is None else pair.value

    def span(self, key: str) -> Span:
        """Where the value of a given option stands, or else its name."""
        pair = self._pairs[key]
        place = pair if pair.value is None else pair.value
        return self._problems.source.span(place.start, place.end)

    def name(self, key: str) -> str | None:
        """Text that can serve as the name of a step or workflow."""
        text = self.text(key)
        if text is None or (_NAME.fullmatch(text) and len(text) <= limits.NAME_LENGTH):
            return text
        hint = "names are made of A-Z a-z 0-9 _ and -"
        if len(text) > limits.NAME_LENGTH:
            self.report(codes.NAME_TOO_LONG, key, f"names may have {limits.NAME_LENGTH} characters")
        else:
            self.report(codes.BAD_NAME, key, f"{quote(text)} cannot be a name", hint=hint)
        return None

    def number(
        self, key: str, *, at_most: int = limits.U32_MAX, positive: bool = False
    ) -> int | None:
        """A whole number."""
        found = self._text(key)
        if found is None:
            return None
        match = _NUMBER.fullmatch(found.text)
        if match is None:
            self.report(codes.NOT_A_NUMBER, key, f"`{key}` must be a whole number")
            return None
        digits = match[1].lstrip("0") or "0"
        if len(digits) > _DIGITS_MAX or int(digits) > limits.U32_MAX:
            self.report(codes.NUMBER_TOO_LARGE, key, f"numbers go up to {limits.U32_MAX}")
            return None
        number = int(digits)
        if number > at_most:
            self.report(codes.ABOVE_LIMIT, key, f"`{key}` may be {at_most} at most")
        elif positive and number == 0:
            self.report(codes.ZERO, key, f"`{key}` must be at least 1")
        return number

    def flag(self, key: str, *, default: bool) -> bool:
        """`true` or `false`."""
        found = self._text(key)
        if found is None:
            return default
        if found.text not in {"true", "false"}:
            meant = _BOOLEANS.get(found.text.lower())
            hint = None if meant is None else f"did you mean `{meant}`?"
            self.report(codes.BAD_BOOLEAN, key, f"`{key}` must be `true` or `false`", hint=hint)
        return found.text == "true"

    def word(self, key: str, choices: type[_Word], *, default: _Word) -> _Word:
        """One word of a fixed set, in lower case."""
        found = self._text(key)
        if found is None:
            return default
        words = [str(choice) for choice in choices]
        if found.text not in words:
            self.report(
                codes.UNKNOWN_WORD,
                key,
                f"`{key}` must be {one_of(words)}",
                hint=did_you_mean(found.text, words),
                expected=tuple(words),
            )
            return default
        return choices(found.text)

    def duration(self, key: str, *, at_most_ms: int) -> Duration | None:
        """A length of time, as written and in milliseconds."""
        found = self._text(key)
        if found is None:
            return None
        duration = parse_duration(found.text)
        if duration is None:
            self.report(
                codes.BAD_DURATION,
                key,
                f"`{key}` is not a duration",
                hint='a whole number of seconds, or "300ms", "90s", "10m", "2h"',
            )
        elif duration.ms > at_most_ms:
            limit = _spoken(at_most_ms)
            self.report(codes.ABOVE_LIMIT, key, f"`{key}` may be {limit} at most")
        return duration

    def seconds(self, key: str, *, at_most_ms: int) -> int | None:
        """A length of time that is kept in whole seconds."""
        duration = self.duration(key, at_most_ms=at_most_ms)
        if duration is None:
            return None
        seconds, rest_ms = divmod(duration.ms, 1000)
        if rest_ms:
            self.report(codes.BAD_DURATION, key, f"`{key}` is counted in whole seconds")
        return seconds

    def on_fail(self) -> OnFail | None:
        """What follows an exhausted step: `continue`, or an agent."""
        found = self._text("on_fail")
        if found is None:
            return None
        if found.text == "continue":
            return ContinueOnFail()
        if found.text == "fail":
            self.report(
                codes.ON_FAIL_FAIL,
                "on_fail",
                "`on_fail = fail` is what happens anyway; it does not call an agent `fail`",
            )
            return None
        return agent_ref(found, self._problems, after_call=False)

    # Complaints

    def report(
        self,
        code: Code,
        key: str,
        message: str,
        *,
        hint: str | None = None,
        expected: tuple[str, ...] = (),
    ) -> None:
        """A problem with the value of an option."""
        span = self.span(key)
        self._problems.report(code, span.offset, span.end, message, hint=hint, expected=expected)

    def report_key(self, code: Code, key: str, message: str) -> None:
        """A problem with an option as such."""
        pair = self._pairs[key]
        self._problems.report(code, pair.start, pair.end, message)

    def check(
        self,
        construct: str,
        span: Span,
        *,
        unknown: Code = codes.UNKNOWN_OPTION,
        also: str | None = None,
        hint: str | None = None,
    ) -> None:
        """Report the options that must be given and are not, and those that mean nothing here.

        Args:
            construct: a row of `keys.KEYS`.
            span: where to report what is missing.
            unknown: the code for options that mean nothing.
            also: a wider construct; what only that one knows is reported as without effect.
            hint: for unknown options that resemble no known one.
        """
        known = KEYS[construct]
        missing = [key for key in _REQUIRED[construct] if key not in self._pairs]
        if missing:
            self._report_missing(construct, span, missing)
        for key, pair in self._pairs.items():
            if key in known or not self._problems.wants(pair.start):
                continue
            code = codes.WITHOUT_EFFECT if also is not None and key in KEYS[also] else unknown
            if code.severity is Severity.WARNING and not self._problems.wants_warnings:
                return
            message = f"`{construct}` has no option `{key}`"
            if key in _ALL_KEYS:
                message = f"`{key}` has no effect on `{construct}`"
            near = did_you_mean(key, known) or hint or _where_else(key, known)
            self._problems.report(code, pair.start, pair.end, message, hint=near)

    def _report_missing(self, construct: str, span: Span, missing: list[str]) -> None:
        """Report missing options; a misspelt one is reported where it stands."""
        unknown = ((key, pair) for key, pair in self._pairs.items() if key not in KEYS[construct])
        for key, pair in islice(unknown, _SUSPECTS):
            if self._problems.wants(pair.start) and (meant := nearest(key, missing)) is not None:
                self._problems.report(
                    codes.MISSING_OPTION,
                    pair.start,
                    pair.end,
                    f"`{construct}` needs `{meant}` and has no option `{key}`",
                    hint=f"did you mean `{meant}`?",
                )
                missing.remove(meant)
        if missing:
            message = f"`{construct}` needs {' and '.join(f'`{key}`' for key in missing)}"
            hint = "for example `max_iterations = 10`" if _LIMIT in missing else None
            self._problems.report(codes.MISSING_OPTION, span.offset, span.end, message, hint=hint)

    def _text(self, key: str) -> Text | None:
        pair = self._pairs.get(key)
        value = None if pair is None else pair.value
        if value is None or isinstance(value, Text):
            return value
        shape = "list" if isinstance(value, TextList) else "map"
        self.report(codes.WRONG_SHAPE, key, f"`{key}` must be a text, not a {shape}")
        return None


def unique(pairs: Iterable[Pair], problems: Problems) -> dict[str, Pair]:
    """The pairs by key; for a key given twice, a warning, and the last one counts."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        if pair.key in found and problems.wants_warnings:
            line, _ = problems.source.position(found[pair.key].start)
            problems.report(
                codes.DUPLICATE_OPTION,
                pair.start,
                pair.end,
                f"`{pair.key}` was given on line {line} already; this one counts",
            )
        found[pair.key] = pair
    return found


def map_pairs(value: TextMap, problems: Problems) -> Pairs:
    """A map of texts in source order."""
    return tuple(
        (key, pair.value.text)
        for key, pair in unique(value.pairs, problems).items()
        if isinstance(pair.value, Text)
    )


def _spoken(duration_ms: int) -> str:
    hours, rest_ms = divmod(duration_ms, 3_600_000)
    return f"{duration_ms // 60_000}m" if rest_ms else f"{hours}h"


def _where_else(key: str, known: Mapping[str, Key]) -> str | None:
    """A hint for an option that resembles none of those known."""
    if known:
        return f"its options are {', '.join(known)}"
    return "write it into `meta { … }`" if key in KEYS["meta"] else None

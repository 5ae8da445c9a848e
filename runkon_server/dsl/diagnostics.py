"""Problems found in a source text, as values."""

from __future__ import annotations

import difflib
import heapq
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import limits
from runkon_server.dsl.codes import CODES, MORE_WARNINGS, TOO_MANY_PROBLEMS, Code, Group, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runkon_server.dsl.source import Source, Span

_EXCERPT_WIDTH: Final = 100
_WORD_MAX: Final = 40
_SIMILARITY: Final = 0.6
_COMPARED: Final = 8
"""How many candidates with enough letters in common are compared letter by letter."""
_MORE: Final = frozenset({TOO_MANY_PROBLEMS.id, MORE_WARNINGS.id})


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem in one place."""

    code: str
    severity: Severity
    message: str
    span: Span
    hint: str | None = None
    expected: tuple[str, ...] = ()
    """What could have stood here instead, as it would be spelled; empty when nothing could."""

    @property
    def group(self) -> Group:
        """The error reason a caller sees."""
        return CODES[self.code].group

    def render(self, source: Source) -> str:
        """Position, message, the line with carets below the place, and the hint.

        No line break at the end. Characters that could upset a terminal are shown as `?`. What has
        no place in the source is shown without one.
        """
        line, column = self.span.line, self.span.column
        place = f"{_printable(source.label)}:{line}:{column}" if line else _printable(source.label)
        lines = [f"{place}: {self.severity} {self.code}: {_printable(self.message)}"]
        gutter = f"{line:>5} | "
        if line:
            text, carets = _excerpt(source, self.span)
            lines += [f"{gutter}{text}", f"{' ' * (len(gutter) - 2)}| {carets}"]
        if self.hint is not None:
            lines.append(f"{' ' * (len(gutter) - 2)}= {_printable(self.hint)}")
        return "\n".join(lines)


def diagnostic(
    code: Code,
    span: Span,
    message: str,
    *,
    hint: str | None = None,
    expected: Iterable[str] = (),
) -> Diagnostic:
    """A diagnostic with the usual severity of its code."""
    return Diagnostic(
        code=code.id,
        severity=code.severity,
        message=message,
        span=span,
        hint=hint,
        expected=tuple(expected),
    )


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any of them keeps the workflow from being used."""
    return any(each.severity is Severity.ERROR for each in diagnostics)


def strict(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The same problems with every warning raised to an error."""
    return tuple(replace(each, severity=Severity.ERROR) for each in diagnostics)


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The same problems from the top of the text to its end."""
    return tuple(sorted(diagnostics, key=lambda each: (each.span.offset, each.code)))


def first_problems(found: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """As many as are shown, in the order of the source.

    If need be errors go before warnings, and before them what says that there are more.
    """
    if len(found) <= limits.PROBLEMS:
        return tuple(found)
    by_weight = sorted(
        found, key=lambda each: (each.code not in _MORE, each.severity is not Severity.ERROR)
    )
    return in_order(by_weight[: limits.PROBLEMS])


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate a mistyped word most likely stands for, if any is near.

    Costs a third of a microsecond per candidate and a tenth of a millisecond on top: against
    thousands of candidates, ask for few words.
    """
    if len(word) > _WORD_MAX:
        return None
    lowered = word.lower().replace("-", "_")
    letters = _letters(lowered)
    promising = []
    for candidate in candidates:
        others = _letters(candidate)
        common = min(
            len(lowered) - (letters & ~others).bit_count(),
            len(candidate) - (others & ~letters).bit_count(),
        )
        if (most := 2 * common / (len(lowered) + len(candidate) or 1)) >= _SIMILARITY:
            promising.append((most, candidate))
    near = [
        (difflib.SequenceMatcher(None, candidate, lowered).ratio(), candidate)
        for _, candidate in heapq.nlargest(_COMPARED, promising)
    ]
    ratio, candidate = max(near, default=(0.0, ""))
    return candidate if ratio >= _SIMILARITY else None


@lru_cache(maxsize=8_192)
def _letters(word: str) -> int:
    """The letters of a word as bits; two letters may share one, which hides a difference."""
    bits = 0
    for char in word:
        bits |= 1 << (ord(char) & 63)
    return bits


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """A hint that names the nearest candidate, if any is near."""
    near = nearest(word, candidates)
    return None if near is None else f"did you mean `{near}`?"


def one_of(words: Sequence[str]) -> str:
    """A spoken list of spellings: `a`, `b` or `c`."""
    quoted = [word if " " in word else f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def _excerpt(source: Source, span: Span) -> tuple[str, str]:
    """The line around a span, cut to a readable width, and the carets to print below it."""
    line = source.line_text(span.line)
    column = min(span.column - 1, len(line))
    start = max(0, column - _EXCERPT_WIDTH // 2) if len(line) > _EXCERPT_WIDTH else 0
    shown = line[start : start + _EXCERPT_WIDTH]
    marked = shown[column - start : column - start + span.length]
    before = _width(shown[: column - start].replace("\t", " "))
    return _printable(shown.replace("\t", " ")), " " * before + "^" * max(1, _width(marked))

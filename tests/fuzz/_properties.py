"""What must hold for any text whatsoever."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from runkon_server.dsl import limits
from runkon_server.dsl.codes import CODES
from runkon_server.dsl.diagnostics import has_errors
from runkon_server.dsl.format import format_text
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import dump, load
from runkon_server.dsl.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.format import FormatResult
    from runkon_server.dsl.source import Source
    from runkon_server.dsl.validate import Report

UNIT_BYTES: Final = 64 * 1024
LIMIT_MS: Final = 50.0
"""Processor time that 64 KiB of any text may take; a shorter text counts like one of 64 KiB."""
LABEL: Final = "w.wf"
_ATTEMPTS: Final = 8
"""Other programs only ever make a measurement longer, so one over half the limit is repeated."""
_DIAGNOSTICS_MAX: Final = 2 * (limits.PROBLEMS + 1)
_Result = TypeVar("_Result")


@dataclass(slots=True)
class Verdict:
    """What one text did."""

    accepted: bool
    violations: tuple[str, ...]
    ms: dict[str, float]
    """Processor time per 64 KiB by what was asked for: `validate`, `format`."""


def judge(text: str) -> Verdict:
    """Try everything on one text.

    Raises:
        Exception: whatever the front end lets out; it must never do so.
    """
    report, validate_ms = _timed(text, _validate)
    laid_out, format_ms = _timed(text, _format)
    ms = {"validate": validate_ms, "format": format_ms}
    violations = (*broken(text, report, laid_out), *slow(ms))
    return Verdict(report.parsed is not None, violations, ms)


def _validate(text: str) -> Report:
    report = validate(text, LABEL)
    report.render()
    return report


def _format(text: str) -> FormatResult:
    return format_text(text, LABEL)


def _timed(text: str, do: Callable[[str], _Result]) -> tuple[_Result, float]:
    units = max(1.0, len(text.encode("utf-8", "surrogatepass")) / UNIT_BYTES)
    best = float("inf")
    attempts = 0
    while True:
        began = time.process_time()
        result = do(text)
        best = min(best, (time.process_time() - began) * 1e3 / units)
        attempts += 1
        if best < LIMIT_MS / 2 or attempts == _ATTEMPTS:
            return result, best


def slow(ms: dict[str, float]) -> Iterator[str]:
    """What took too long."""
    for what, spent in ms.items():
        if spent > LIMIT_MS:
            yield f"{what} takes {spent:.0f} ms per 64 KiB"


def broken(text: str, report: Report, laid_out: FormatResult) -> Iterator[str]:
    """What does not hold for a text and what was said about it."""
    result = parse(text, LABEL)
    if result.diagnostics != parse(text, LABEL).diagnostics or result.definition != report.parsed:
        yield "the same text gives another result"
    if laid_out.diagnostics != result.diagnostics:
        yield "formatting finds other problems than parsing"
    if len(result.diagnostics) > _DIAGNOSTICS_MAX:
        yield f"{len(result.diagnostics)} diagnostics"
    if (result.definition is None) is not has_errors(result.diagnostics):
        yield "there is a definition and an error, or neither"
    if (result.definition is None) is not (laid_out.text is None):
        yield "what can be read cannot be formatted, or the other way round"
    if result.definition is not None and laid_out.text is not None:
        if parse(laid_out.text, LABEL).definition != result.definition:
            yield "parse(format(x)) is not parse(x)"
        if format_text(laid_out.text, LABEL).text != laid_out.text:
            yield "format(format(x)) is not format(x)"
        if load(dump(result.definition)) != result.definition:
            yield "load(dump(x)) is not x"
    for each in (*result.diagnostics, *report.diagnostics):
        yield from broken_place(each, report.source)


def broken_place(found: Diagnostic, source: Source) -> Iterator[str]:
    """What is wrong with the code and the place of a diagnostic."""
    span = found.span
    if found.code not in CODES:
        yield f"{found.code} is no known code"
    if not 0 <= span.offset <= span.end <= len(source.text):
        yield f"{found.code} points outside the text"
    elif (span.line, span.column) != source.position(span.offset):
        yield f"{found.code} has a line and column that are not those of its offset"

"""Where the lexer and the parser put what they find.

Reading goes on after a problem, so one mistake must not be told twice: at most one problem per
position, nothing in a region declared unreadable, and no more than `limits.PROBLEMS` errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.dsl import codes, limits
from runkon_server.dsl.codes import Severity
from runkon_server.dsl.diagnostics import Diagnostic, diagnostic, in_order

if TYPE_CHECKING:
    from runkon_server.dsl.codes import Code
    from runkon_server.dsl.source import Source, Span


class StopReading(Exception):
    """Nothing after this point is worth reading. Never leaves the package."""


class Problems:
    """The problems of one text so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._errors: list[Diagnostic] = []
        self._warnings: list[Diagnostic] = []
        self._error_offsets: set[int] = set()
        self._unreadable_from: int | None = None

    @property
    def wants_warnings(self) -> bool:
        """Whether another warning would be kept; if not, it need not be worked out."""
        return len(self._warnings) < limits.PROBLEMS

    def wants(self, start: int) -> bool:
        """Whether an error at this offset would be kept; if not, hints need not be worked out."""
        if self._unreadable_from is not None and start >= self._unreadable_from:
            return False
        return start not in self._error_offsets

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
        """Note a problem with the text between two offsets.

        Raises:
            StopReading: there are too many errors; warnings beyond the limit are left out.
        """
        if not self.wants(start):
            return
        found = diagnostic(
            code, self.source.span(start, end), message, hint=hint, expected=expected
        )
        if code.severity is Severity.WARNING:
            self._warn(found)
            return
        self._error_offsets.add(start)
        self._errors.append(found)
        if len(self._errors) >= limits.PROBLEMS:
            message = f"stopped after {limits.PROBLEMS} errors"
            self.stop(codes.TOO_MANY_PROBLEMS, found.span, message)

    def _warn(self, found: Diagnostic) -> None:
        kept = len(self._warnings)
        if kept < limits.PROBLEMS:
            self._warnings.append(found)
        if kept == limits.PROBLEMS - 1:
            message = f"only the first {limits.PROBLEMS} warnings are shown"
            self._warnings.append(diagnostic(codes.MORE_WARNINGS, found.span, message))

    def stop(self, code: Code, span: Span, message: str, *, hint: str | None = None) -> None:
        """Note a problem that makes further reading pointless.

        Raises:
            StopReading: always.
        """
        self._errors.append(diagnostic(code, span, message, hint=hint))
        raise StopReading

    def ignore_from(self, offset: int) -> None:
        """Report nothing more at or after this offset: the text there cannot be trusted."""
        self._unreadable_from = offset

    def in_order(self) -> tuple[Diagnostic, ...]:
        """All of them, from the top of the text to its end."""
        return in_order([*self._errors, *self._warnings])

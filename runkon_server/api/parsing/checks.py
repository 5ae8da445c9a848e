"""The checks that validators are put together from. Each notes what is wrong and goes on."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runkon_server.errors import InvalidArgumentError, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

    EnumType: TypeAlias = _EnumTypeWrapper[Any]

ID_BYTES: Final = 256
NAME_BYTES: Final = 128
SHORT_TEXT_BYTES: Final = 256
NOTE_BYTES: Final = 4 * 1024
TEXT_BYTES: Final = 64 * 1024
TEXTS_BYTES: Final = 1024 * 1024
TEXTS_MAX: Final = 1_000
"""As many as a definition may declare inputs, and far more than there are schemas and snippets."""
VIOLATIONS_MAX: Final = 100
"""A message has room for millions of mistakes; who made so many learns of the first ones."""
PAGE_ROWS: Final = 50
PAGE_ROWS_MAX: Final = 500
TOKEN_BYTES: Final = 2 * 1024
LONG_POLL_MAX: Final = timedelta(seconds=50)
DEFAULT_NAMESPACE: Final = "default"
_ULID: Final = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"
_RUN_ID: Final = re.compile(_ULID)
_PART_ID: Final = re.compile(_ULID + r"[!-~]*")
_NAMESPACE: Final = re.compile(r"[a-z0-9-]{1,63}")
_REQUEST_ID: Final = re.compile(r"[ -~]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line breaks, and marks that turn the direction of a text."""


class Check:
    """Collects what is wrong with one request; `done` raises it, and so does the hundredth."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def wrong(self, field: str, description: str) -> None:
        """Note a violation.

        Raises:
            InvalidArgumentError: there are so many by now that it is not worth looking further.
        """
        self._violations.append(Violation(field, description))
        if len(self._violations) >= VIOLATIONS_MAX:
            self.done()

    def done(self) -> None:
        """Return if nothing is wrong.

        Raises:
            InvalidArgumentError: with every violation.
        """
        if self._violations:
            raise InvalidArgumentError(self._violations)

    def text(self, field: str, value: str, size: int, *, required: bool = False) -> bool:
        """Free text of at most `size` bytes, without NUL, which PostgreSQL cannot store."""
        if not value:
            if required:
                self.wrong(field, "is required")
            return not required
        if "\x00" in value:
            self.wrong(field, "must not contain NUL characters")
            return False
        if len(value) * 4 > size and (length := size_of(value)) > size:
            self.wrong(field, f"has {length} bytes; at most {size} are allowed")
            return False
        return True

    def label(self, field: str, value: str, size: int, *, required: bool = False) -> bool:
        """One line of text: without control characters and marks of direction."""
        if not self.text(field, value, size, required=required):
            return False
        if _CONTROL.search(value):
            self.wrong(field, "must not contain control characters")
            return False
        return True

    def namespace(self, value: str, field: str = "namespace") -> None:
        """Empty, or a namespace's name."""
        if value and not _NAMESPACE.fullmatch(value):
            self.wrong(field, "must be 1 to 63 of `a-z 0-9 -`, or empty for `default`")

    def request_id(self, value: str, length: int = 128) -> None:
        """Empty, or printable ASCII."""
        if value and (len(value) > length or not _REQUEST_ID.fullmatch(value)):
            self.wrong("request_id", f"must be 1 to {length} printable ASCII characters")

    def run_id(self, value: str, field: str = "run_id", *, required: bool = True) -> None:
        """The id of a run: a ULID."""
        self._shape(field, value, _RUN_ID, "the id of a run", required=required)

    def part_id(self, value: str, field: str, what: str) -> None:
        """The id of something inside a run: it begins with the run's."""
        self._shape(field, value, _PART_ID, what, required=True)

    def _shape(
        self, field: str, value: str, shape: re.Pattern[str], what: str, *, required: bool
    ) -> None:
        if not value:
            if required:
                self.wrong(field, "is required")
        elif len(value) > ID_BYTES or not shape.fullmatch(value):
            self.wrong(field, f"is not {what}")

    def texts(self, field: str, values: Mapping[str, str], name_bytes: int = NAME_BYTES) -> None:
        """Texts by name, each limited and all together."""
        if len(values) > TEXTS_MAX:
            self.wrong(field, f"has {len(values)} entries; at most {TEXTS_MAX} are allowed")
            return
        total = 0
        for name, value in values.items():
            self.label(f"{field} (a name)", name, name_bytes, required=True)
            if self.text(f"{field}.{name[:NAME_BYTES]}", value, TEXT_BYTES):
                total += size_of(value)
        if total > TEXTS_BYTES:
            self.wrong(field, f"has {total} bytes; at most {TEXTS_BYTES} are allowed together")

    def page(self, page_size: int, page_token: str) -> None:
        """The paging of a list."""
        self.page_size(page_size)
        self.text("page_token", page_token, TOKEN_BYTES)

    def page_size(self, value: int) -> None:
        """A number of rows; 0 means the default."""
        if value < 0:
            self.wrong("page_size", "must not be negative")

    def between(self, field: str, value: int, low: int, high: int) -> None:
        """A number within limits, both included."""
        if not low <= value <= high:
            self.wrong(field, f"must be {low} to {high}")

    def enum(self, field: str, value: int, values: EnumType, *, required: bool = False) -> None:
        """A value that this server knows; 0 is the default."""
        if value == 0 and required:
            self.wrong(field, "is required")
        elif value not in values.values():
            self.wrong(field, f"{value} is none of {', '.join(values.keys()[1:])}")

    def enums(self, field: str, values: Sequence[int], known: EnumType) -> None:
        """Values that this server knows, none of them the default; no more than there are."""
        if len(values) > (most := len(known.values())):
            self.wrong(field, f"has {len(values)} values; there are only {most}")
            return
        for number, value in enumerate(values):
            self.enum(f"{field}[{number}]", value, known, required=True)

    def duration(
        self, field: str, value: Duration, *, low: timedelta = timedelta(0), high: timedelta | None
    ) -> None:
        """A span, well formed and within limits; None as the upper limit means none."""
        if abs(value.nanos) > _NANOS_MAX or value.seconds * value.nanos < 0:
            self.wrong(field, "is not a duration: nanos out of range or of the other sign")
        elif not abs(value.seconds) <= _SECONDS_MAX:
            self.wrong(field, "is out of the range of a duration")
        elif not low <= span_of(value):
            self.wrong(field, f"must be at least {low.total_seconds():g} s")
        elif high is not None and span_of(value) > high:
            self.wrong(field, f"must be at most {high.total_seconds():g} s")


_NANOS_MAX: Final = 999_999_999
_SECONDS_MAX: Final = 315_576_000_000
"""10,000 years: what `google.protobuf.Duration` may hold."""


def size_of(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def span_of(value: Duration) -> timedelta:
    """A checked duration as Python's own."""
    return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def namespace_of(value: str) -> str:
    """The namespace that a request means."""
    return value or DEFAULT_NAMESPACE


def page_rows(page_size: int) -> int:
    """How many rows a checked `page_size` asks for."""
    return min(page_size or PAGE_ROWS, PAGE_ROWS_MAX)

"""The one grammar of durations: an integer with `ms`, `s`, `m` or `h`; without a unit, seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"\+?([0-9]+)(ms|s|m|h)?")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, None: 1_000, "m": 60_000, "h": 3_600_000}
_DIGITS_MAX: Final = 20
_BLANKS: Final = " \t\r\n"
SATURATED_MS: Final = 2**63 - 1
"""What every longer duration reads as; above all limits, so the reader refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """A length of time as its author wrote it (`text`, what a snapshot keeps) and as a number."""

    text: str
    ms: int

    @property
    def seconds(self) -> float:
        """The same length in seconds, fractions included."""
        return self.ms / 1000


def parse_duration(text: str) -> Duration | None:
    """Read `90`, `"90s"`, `+5h`, `250ms`; None if the text is no duration.

    Blanks and one pair of double quotes around the whole are allowed. There are no days, no
    fractions and no sums such as `1h30m`.
    """
    bare = text.strip(_BLANKS)
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        bare = bare[1:-1]
    match = _FORM.fullmatch(bare)
    if match is None:
        return None
    digits, unit = match[1].lstrip("0") or "0", match[2]
    if len(digits) > _DIGITS_MAX:
        return Duration(text=text, ms=SATURATED_MS)
    return Duration(text=text, ms=min(int(digits) * _UNIT_MS[unit], SATURATED_MS))

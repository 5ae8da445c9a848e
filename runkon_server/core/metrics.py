"""Numbers that workers report beside a result, and their sums."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COST: Final = "cost_usd"
COUNTS: Final = (
    "num_turns",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_DECIMAL: Final = re.compile(r"([0-9]{1,18})(\.[0-9]{1,18})?")
_FLOAT: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?")
_COST_MAX: Final = 1e15
_COUNT_MAX: Final = 2**63 - 1


def parse_metrics(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The metrics among a report's metadata; what is no decimal number is left out.

    Counts may be written with a fraction, which is dropped. None if there are no metrics.
    """
    found: dict[str, Any] = {}
    cost = metadata.get(COST)
    if cost is not None and _FLOAT.fullmatch(cost):
        found[COST] = min(float(cost), _COST_MAX)
    for name in COUNTS:
        text = metadata.get(name)
        if text is not None and (match := _DECIMAL.fullmatch(text)) is not None:
            found[name] = int(match[1])
    return found or None


def add_metrics(totals: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The sums as a new dictionary; they stop growing where 64 bits end."""
    sums = dict(totals)
    for name, value in more.items():
        if name == COST:
            sums[name] = min(sums.get(name, 0.0) + value, _COST_MAX)
        else:
            sums[name] = min(sums.get(name, 0) + value, _COUNT_MAX)
    return sums

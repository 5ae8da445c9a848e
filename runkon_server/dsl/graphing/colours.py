"""How statuses look."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Colour(NamedTuple):
    """Fill, line and text of a step."""

    fill: str
    stroke: str
    text: str


PLAIN: Final = Colour("#ffffff", "#57606a", "#1f2328")
COLOURS: Final[Mapping[str, Colour]] = MappingProxyType(
    {
        "pending": Colour("#f6f8fa", "#8c959f", "#57606a"),
        "running": Colour("#ddf4ff", "#0969da", "#0a3069"),
        "waiting": Colour("#fff8c5", "#9a6700", "#4d2d00"),
        "completed": Colour("#dafbe1", "#1a7f37", "#044f1e"),
        "failed": Colour("#ffebe9", "#cf222e", "#82071e"),
        "skipped": Colour("#eaeef2", "#afb8c1", "#57606a"),
        "timed_out": Colour("#fff1e5", "#bc4c00", "#5c2200"),
    }
)
"""By status; a status that is not listed is drawn plain."""


def colour_of(status: str | None) -> Colour:
    """The colours of a status, or of a step without one."""
    return PLAIN if status is None else COLOURS.get(status, PLAIN)

"""What a drawing is made of: shapes with their places, in pixels."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runkon_server.dsl.graphing.regions import Step

LABEL_PX: Final = 7.6
"""Width of a character of a label; details are set smaller."""
DETAIL_PX: Final = 6.0
LABEL_MAX: Final = 36
"""Characters of a label that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A step; `x` is its middle, `y` its top."""

    x: float
    y: float
    width: float
    height: float
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Diamond:
    """A question; `x` and `y` are its middle."""

    x: float
    y: float
    width: float
    height: float
    label: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pill:
    """The head of a fork; `x` is its middle, `y` its top."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """Where a drawing starts or ends, or branches meet."""

    x: float
    y: float
    radius: float
    is_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A line of straight pieces."""

    points: tuple[tuple[float, float], ...]
    has_arrow: bool = True
    is_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A word beside a line."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """A frame around other shapes; `x` and `y` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(slots=True)
class Drawing:
    """All shapes; rims lie at the bottom, wires above them, then everything else."""

    width: float = 0
    height: float = 0
    rims: list[Rim] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    diamonds: list[Diamond] = field(default_factory=list)
    pills: list[Pill] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def shortened(text: str) -> str:
    """As much of a label as is shown."""
    return text if len(text) <= LABEL_MAX else f"{text[: LABEL_MAX - 1]}…"


def text_width(text: str, per_character: float) -> float:
    """About how wide a text is; wide characters count twice."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return (len(text) + wide) * per_character


def label_width(label: str, details: tuple[str, ...]) -> float:
    """The width that a label and the lines below it need."""
    widths = [text_width(shortened(detail), DETAIL_PX) for detail in details]
    return max([text_width(shortened(label), LABEL_PX), *widths])

"""Places for the regions of a chart, from top to bottom.

Every region has a vertical axis on which it is entered and left, so a series only has to stack its
regions. A first pass measures how far a region reaches to both sides of its axis and down; the
second puts shapes down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.dsl.graphing.regions import Choice, Fork, Frame, Loop, Series, Step
from runkon_server.dsl.graphing.shapes import (
    Box,
    Diamond,
    Dot,
    Drawing,
    Note,
    Pill,
    Rim,
    Wire,
    label_width,
)

if TYPE_CHECKING:
    from runkon_server.dsl.graphing.regions import Chart, Region

_GAP: Final = 28.0
_MARGIN: Final = 20.0
_LINE: Final = 15.0
"""Height of a detail."""
_STEP: Final = 34.0
"""Height of a step without details."""
_PILL: Final = 24.0
_LANE: Final = 26.0
"""Distance of a passing line from what it passes."""
_TURN: Final = 14.0
"""Height in which a line turns aside."""
_BRANCH_GAP: Final = 18.0
_RIM: Final = 12.0
_RIM_HEAD: Final = 22.0
_DOT: Final = 8.0


class Extent(NamedTuple):
    """How far a region reaches from the point at which it is entered."""

    left: float
    right: float
    height: float


def lay_out(chart: Chart) -> Drawing:
    """The drawing of a chart."""
    whole = Series(regions=(chart.body,) if chart.always is None else (chart.body, chart.always))
    extent = measure(whole)
    drawing = Drawing(
        width=extent.left + extent.right + 2 * _MARGIN,
        height=extent.height + 2 * _MARGIN + 4 * _DOT + 2 * _GAP,
    )
    x, y = extent.left + _MARGIN, _MARGIN + _DOT
    drawing.dots.append(Dot(x=x, y=y, radius=_DOT))
    placer = _Placer(drawing)
    top = y + _DOT + _GAP
    bottom = placer.place(whole, x, top)
    placer.wire((x, y + _DOT), (x, top), has_arrow=_takes_arrow(whole))
    placer.wire((x, bottom), (x, bottom + _GAP))
    drawing.dots.append(Dot(x=x, y=bottom + _GAP + _DOT, radius=_DOT, is_end=True))
    return drawing


def measure(region: Region) -> Extent:
    """How much room a region takes."""
    match region:
        case Step():
            width, height = _step_size(region)
            return Extent(width / 2, width / 2, height)
        case Series():
            return _measure_series(region)
        case Fork():
            return _measure_fork(region)
        case Choice():
            half, height = _diamond_size(region.question, ())
            body = measure(region.body)
            right = max(body.right, half) + _LANE
            total = height + _GAP + body.height + _GAP
            return Extent(max(body.left, half), right, total)
        case Loop():
            return _measure_loop(region)
        case Frame():
            body = measure(region.body)
            label = label_width(region.label, ()) + _RIM
            left, right = body.left + _RIM, body.right + _RIM
            right = max(right, label - left)
            return Extent(left, right, _RIM_HEAD + body.height + _RIM)


def _measure_series(series: Series) -> Extent:
    extents = [measure(region) for region in series.regions]
    extents = [extent for extent in extents if extent.height > 0]
    if not extents:
        return Extent(0, 0, 0)
    height = sum(extent.height for extent in extents) + _GAP * (len(extents) - 1)
    left = max(extent.left for extent in extents)
    return Extent(left, max(extent.right for extent in extents), height)


def _measure_fork(fork: Fork) -> Extent:
    sizes = [_step_size(branch) for branch in fork.branches]
    width = sum(size[0] for size in sizes) + _BRANCH_GAP * (len(sizes) - 1)
    half = max(width, _pill_width(fork)) / 2
    height = _PILL + _GAP + max(size[1] for size in sizes) + _GAP
    return Extent(half, half, height)


def _measure_loop(loop: Loop) -> Extent:
    half, height = _diamond_size(loop.question, _loop_details(loop))
    body = measure(loop.body)
    left, right = max(body.left, half) + _LANE, max(body.right, half)
    if loop.tests_first:
        return Extent(left, right + _LANE, height + _GAP + body.height + _TURN + _GAP)
    return Extent(left, right, _TURN + body.height + _GAP + height)


def _step_size(step: Step) -> tuple[float, float]:
    lines = len(step.details) + (step.status is not None)
    return label_width(step.label, step.details) + 28, _STEP + _LINE * lines


def _pill_width(fork: Fork) -> float:
    return label_width(fork.label, ()) + 24


def _diamond_size(question: str, details: tuple[str, ...]) -> tuple[float, float]:
    """Half the width, and the height."""
    return label_width(question, details) / 2 + 26, 44 + _LINE * len(details)


def _loop_details(loop: Loop) -> tuple[str, ...]:
    return (f"up to {loop.limit} passes",)


def _takes_arrow(region: Region) -> bool:
    """Whether a line into a region ends at a shape, and not at another line further in."""
    match region:
        case Series():
            inside = (each for each in region.regions if measure(each).height > 0)
            first = next(inside, None)
            return first is not None and _takes_arrow(first)
        case Loop():
            return region.tests_first
        case Frame():
            return False
        case Step() | Fork() | Choice():
            return True


class _Placer:
    """Puts shapes down; each method returns the height at which its region is left."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def wire(
        self, *points: tuple[float, float], has_arrow: bool = True, is_back: bool = False
    ) -> None:
        self._drawing.wires.append(Wire(points=points, has_arrow=has_arrow, is_back=is_back))

    def place(self, region: Region, x: float, y: float) -> float:
        match region:
            case Step():
                width, height = _step_size(region)
                box = Box(x=x, y=y, width=width, height=height, step=region)
                self._drawing.boxes.append(box)
                return y + height
            case Series():
                return self._series(region, x, y)
            case Fork():
                return self._fork(region, x, y)
            case Choice():
                return self._choice(region, x, y)
            case Loop() if region.tests_first:
                return self._while(region, x, y)
            case Loop():
                return self._do_while(region, x, y)
            case Frame():
                return self._frame(region, x, y)

    def _series(self, series: Series, x: float, y: float) -> float:
        bottom: float | None = None
        for region in series.regions:
            if measure(region).height == 0:
                continue
            if bottom is not None:
                y = bottom + _GAP
                self.wire((x, bottom), (x, y), has_arrow=_takes_arrow(region))
            bottom = self.place(region, x, y)
        return y if bottom is None else bottom

    def _fork(self, fork: Fork, x: float, y: float) -> float:
        width = _pill_width(fork)
        self._drawing.pills.append(Pill(x=x, y=y, width=width, height=_PILL, label=fork.label))
        sizes = [_step_size(branch) for branch in fork.branches]
        left = x - (sum(size[0] for size in sizes) + _BRANCH_GAP * (len(sizes) - 1)) / 2
        top = y + _PILL + _GAP
        bottom = top + max(size[1] for size in sizes) + _GAP
        for branch, (branch_width, _) in zip(fork.branches, sizes, strict=True):
            middle = left + branch_width / 2
            turn = y + _PILL + _TURN
            self.wire((x, y + _PILL), (x, turn), (middle, turn), (middle, top))
            end = self.place(branch, middle, top)
            turn = bottom - _TURN
            self.wire((middle, end), (middle, turn), (x, turn), (x, bottom), has_arrow=False)
            left += branch_width + _BRANCH_GAP
        return bottom

    def _choice(self, choice: Choice, x: float, y: float) -> float:
        half, height = self._diamond(choice.question, (), x, y)
        body = measure(choice.body)
        top = y + height + _GAP
        self.wire((x, y + height), (x, top), has_arrow=_takes_arrow(choice.body))
        self._drawing.notes.append(Note(x=x + 5, y=y + height + 13, text=choice.wanted))
        end = self.place(choice.body, x, top)
        bottom = end + _GAP
        lane = x + max(body.right, half) + _LANE
        self._pass_by((x + half, y + height / 2), lane, (x, bottom), choice.other)
        self.wire((x, end), (x, bottom), has_arrow=False)
        return bottom

    def _while(self, loop: Loop, x: float, y: float) -> float:
        half, height = self._diamond(loop.question, _loop_details(loop), x, y)
        body = measure(loop.body)
        middle, top = y + height / 2, y + height + _GAP
        self.wire((x, y + height), (x, top), has_arrow=_takes_arrow(loop.body))
        self._drawing.notes.append(Note(x=x + 5, y=y + height + 13, text="yes"))
        turn = self.place(loop.body, x, top) + _TURN
        lane = x - max(body.left, half) - _LANE
        back = ((x, turn - _TURN), (x, turn), (lane, turn), (lane, middle), (x - half, middle))
        self.wire(*back, is_back=True)
        bottom = turn + _GAP
        lane = x + max(body.right, half) + _LANE
        self._pass_by((x + half, middle), lane, (x, bottom), "no")
        return bottom

    def _do_while(self, loop: Loop, x: float, y: float) -> float:
        body = measure(loop.body)
        top = y + _TURN
        self.wire((x, y), (x, top), has_arrow=_takes_arrow(loop.body))
        end = self.place(loop.body, x, top)
        start = end + _GAP
        self.wire((x, end), (x, start))
        half, height = self._diamond(loop.question, _loop_details(loop), x, start)
        middle, lane = start + height / 2, x - max(body.left, half) - _LANE
        into = y + _TURN / 2
        self.wire((x - half, middle), (lane, middle), (lane, into), (x, into), is_back=True)
        self._drawing.notes.append(Note(x=x - half - 4, y=middle - 5, text="yes", anchor="end"))
        self._drawing.notes.append(Note(x=x + 5, y=start + height + 13, text="no"))
        return start + height

    def _frame(self, frame: Frame, x: float, y: float) -> float:
        extent = measure(frame)
        rim = Rim(
            x=x - extent.left,
            y=y,
            width=extent.left + extent.right,
            height=extent.height,
            label=frame.label,
        )
        self._drawing.rims.append(rim)
        top = y + _RIM_HEAD
        self.wire((x, y), (x, top), has_arrow=_takes_arrow(frame.body))
        end = self.place(frame.body, x, top)
        bottom = y + extent.height
        self.wire((x, end), (x, bottom), has_arrow=False)
        return bottom

    def _diamond(
        self, question: str, details: tuple[str, ...], x: float, y: float
    ) -> tuple[float, float]:
        half, height = _diamond_size(question, details)
        middle = y + height / 2
        diamond = Diamond(
            x=x, y=middle, width=2 * half, height=height, label=question, details=details
        )
        self._drawing.diamonds.append(diamond)
        return half, height

    def _pass_by(
        self, corner: tuple[float, float], lane: float, behind: tuple[float, float], answer: str
    ) -> None:
        """The line from the right corner of a diamond, down a lane, back to the axis."""
        (x, y), (_, bottom) = corner, behind
        self.wire(corner, (lane, y), (lane, bottom), behind, has_arrow=False)
        self._drawing.notes.append(Note(x=x + 4, y=y - 5, text=answer))

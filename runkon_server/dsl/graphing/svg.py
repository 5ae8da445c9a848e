"""Drawings as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.graphing.colours import PLAIN, colour_of
from runkon_server.dsl.graphing.layout import lay_out
from runkon_server.dsl.graphing.regions import StepKind
from runkon_server.dsl.graphing.shapes import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.dsl.graphing.regions import Chart
    from runkon_server.dsl.graphing.shapes import Box, Diamond, Dot, Drawing, Note, Pill, Rim, Wire

_STYLE: Final = (
    "text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328;text-anchor:middle}"
    ".detail{font-size:11px;fill:#57606a}.note{font-size:11px;fill:#57606a}"
    ".wire{fill:none;stroke:#57606a;stroke-width:1.3}.back{stroke-dasharray:5 3}"
    ".rim{fill:#f6f8fa;stroke:#afb8c1;stroke-dasharray:3 3}"
    ".shape{fill:#ffffff;stroke:#57606a;stroke-width:1.3}"
)
_ARROW: Final = (
    '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 8 4 0 8z" fill="#57606a"/></marker>'
)
_CORNER: Final = 10.0


def svg(chart: Chart) -> str:
    """The chart as one self-contained SVG document, with a line break at the end."""
    drawing = lay_out(chart)
    box = f'viewBox="0 0 {_number(drawing.width)} {_number(drawing.height)}"'
    size = _size(drawing.width, drawing.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">',
        f"<title>{_text(chart.title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{_ARROW}</defs>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_shapes(drawing),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _shapes(drawing: Drawing) -> Iterator[str]:
    yield from map(_rim, drawing.rims)
    yield from map(_wire, drawing.wires)
    yield from map(_dot, drawing.dots)
    yield from map(_pill, drawing.pills)
    yield from map(_diamond, drawing.diamonds)
    yield from map(_box, drawing.boxes)
    yield from map(_note, drawing.notes)


def _rim(rim: Rim) -> str:
    return (
        f'<rect class="rim" {_place(rim.x, rim.y)} {_size(rim.width, rim.height)} rx="8"/>'
        f'<text class="note" {_place(rim.x + 8, rim.y + 15)} '
        f'style="text-anchor:start">{_text(rim.label)}</text>'
    )


def _wire(wire: Wire) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in wire.points)
    marker = ' marker-end="url(#arrow)"' if wire.has_arrow else ""
    name = "wire back" if wire.is_back else "wire"
    return f'<polyline class="{name}" points="{points}"{marker}/>'


def _dot(dot: Dot) -> str:
    fill = PLAIN.stroke
    middle = f'cx="{_number(dot.x)}" cy="{_number(dot.y)}"'
    inner = f'<circle {middle} r="{_number(dot.radius - 3)}" fill="{fill}"/>'
    if not dot.is_end:
        return f'<circle {middle} r="{_number(dot.radius)}" fill="{fill}"/>'
    return f'<circle class="shape" {middle} r="{_number(dot.radius)}"/>{inner}'


def _pill(pill: Pill) -> str:
    x = pill.x - pill.width / 2
    return (
        f'<rect class="shape" {_place(x, pill.y)} {_size(pill.width, pill.height)} '
        f'rx="{_number(pill.height / 2)}"/>'
        f"<text {_place(pill.x, pill.y + 16)}>{_text(shortened(pill.label))}</text>"
    )


def _diamond(diamond: Diamond) -> str:
    x, y, half, up = diamond.x, diamond.y, diamond.width / 2, diamond.height / 2
    corners = ((x, y - up), (x + half, y), (x, y + up), (x - half, y))
    points = " ".join(f"{_number(left)},{_number(top)}" for left, top in corners)
    top = y + 4 - 7 * len(diamond.details)
    return (
        f'<polygon class="shape" points="{points}"><title>{_text(diamond.label)}</title></polygon>'
        f"<text {_place(x, top)}>{_text(shortened(diamond.label))}</text>"
        + "".join(
            f'<text class="detail" {_place(x, top + 14 * number)}>{_text(detail)}</text>'
            for number, detail in enumerate(diamond.details, 1)
        )
    )


def _box(box: Box) -> str:
    step, colour = box.step, colour_of(box.step.status)
    style = f'fill="{colour.fill}" stroke="{colour.stroke}" stroke-width="1.4"'
    place = f'{_place(box.x, box.y + 22)} style="fill:{colour.text}"'
    parts = [
        f'<g data-path="{_text(step.path)}"><title>{_text(_tooltip(box))}</title>',
        _outline(box, style),
        f"<text {place}>{_text(shortened(step.label))}</text>",
    ]
    lines = step.details if step.status is None else (*step.details, step.status)
    for number, line in enumerate(lines):
        place = _place(box.x, box.y + 38 + 15 * number)
        parts.append(f'<text class="detail" {place}>{_text(shortened(line))}</text>')
    return "".join([*parts, "</g>"])


def _outline(box: Box, style: str) -> str:
    left, right = box.x - box.width / 2, box.x + box.width / 2
    top, bottom, middle = box.y, box.y + box.height, box.y + box.height / 2
    rect = f"{_place(left, top)} {_size(box.width, box.height)}"
    match box.step.kind:
        case StepKind.GATE:
            corners = (
                (left, middle), (left + _CORNER, top), (right - _CORNER, top),
                (right, middle), (right - _CORNER, bottom), (left + _CORNER, bottom),
            )  # fmt: skip
            points = " ".join(f"{_number(x)},{_number(y)}" for x, y in corners)
            return f'<polygon points="{points}" {style}/>'
        case StepKind.WORKFLOW | StepKind.FOREACH:
            inner = f"{_place(left + 4, top)} {_size(box.width - 8, box.height)}"
            return f'<rect {rect} rx="3" {style}/><rect {inner} {style}/>'
        case StepKind.SCRIPT:
            return f"<rect {rect} {style}/>"
        case StepKind.CALL:
            return f'<rect {rect} rx="7" {style}/>'


def _note(note: Note) -> str:
    place = _place(note.x, note.y)
    return f'<text class="note" {place} style="text-anchor:{note.anchor}">{_text(note.text)}</text>'


def _tooltip(box: Box) -> str:
    step = box.step
    return ", ".join(filter(None, (f"{step.kind} {step.label}", *step.details, step.status)))


def _text(text: str) -> str:
    """The text without what XML cannot contain, and with its special characters escaped."""
    legal = "".join(char for char in text if char >= " " and char not in "\ufffe\uffff")
    return escape(legal)


def _place(x: float, y: float) -> str:
    return f'x="{_number(x)}" y="{_number(y)}"'


def _size(width: float, height: float) -> str:
    return f'width="{_number(width)}" height="{_number(height)}"'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")

"""Charts as Mermaid text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.graphing.colours import COLOURS
from runkon_server.dsl.graphing.flow import NodeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.dsl.graphing.flow import Flow, FlowNode

_SHAPES: Final[Mapping[NodeKind, tuple[str, str]]] = {
    NodeKind.CALL: ("[", "]"),
    NodeKind.WORKFLOW: ("[[", "]]"),
    NodeKind.SCRIPT: ("[/", "/]"),
    NodeKind.GATE: ("{{", "}}"),
    NodeKind.FOREACH: ("[[", "]]"),
    NodeKind.DECISION: ("{", "}"),
    NodeKind.FORK: ("([", "])"),
    NodeKind.JOIN: ("((", "))"),
    NodeKind.START: ("((", "))"),
    NodeKind.END: ("((", "))"),
}
_UNSAFE: Final = re.compile(r"[^\w .,:?/+*=≥→-]")


def mermaid(flow: Flow) -> str:
    """The chart as a Mermaid flowchart, with a line break at the end."""
    names = {node.id: f"n{number}" for number, node in enumerate(flow.nodes)}
    lines = ["flowchart TD", *_Frames(flow, names).lines(None, "  ")]
    for edge in flow.edges:
        arrow = "-.->" if edge.is_back else "-->"
        label = f"|{_escaped(edge.label)}|" if edge.label else ""
        lines.append(f"  {names[edge.source]} {arrow}{label} {names[edge.target]}")
    lines += _class_lines(flow, names)
    return "\n".join(lines) + "\n"


class _Frames:
    def __init__(self, flow: Flow, names: Mapping[str, str]) -> None:
        self._names = names
        self._nodes = flow.nodes_by_frame()
        self._frames = flow.frames_by_frame()
        self._numbers = {frame.id: number for number, frame in enumerate(flow.frames)}

    def lines(self, frame: str | None, indent: str) -> Iterator[str]:
        for node in self._nodes.get(frame, ()):
            yield indent + _node(node, self._names)
        for inner in self._frames.get(frame, ()):
            yield f'{indent}subgraph f{self._numbers[inner.id]} ["{_escaped(inner.label)}"]'
            yield from self.lines(inner.id, indent + "  ")
            yield f"{indent}end"


def _node(node: FlowNode, names: Mapping[str, str]) -> str:
    before, behind = _SHAPES[node.kind]
    text = "<br/>".join(_escaped(line) for line in (node.label or " ", *node.details))
    return f'{names[node.id]}{before}"{text}"{behind}'


def _class_lines(flow: Flow, names: Mapping[str, str]) -> list[str]:
    lines = []
    for status, colour in COLOURS.items():
        members = [names[node.id] for node in flow.nodes if node.status == status]
        if members:
            style = f"fill:{colour.fill},stroke:{colour.stroke},color:{colour.text}"
            lines += [f"  classDef {status} {style}", f"  class {','.join(members)} {status}"]
    return lines


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda match: f"#{ord(match[0])};", text)

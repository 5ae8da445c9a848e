"""Charts as text for Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.graphing.colours import colour_of
from runkon_server.dsl.graphing.flow import NodeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.dsl.graphing.flow import Flow, FlowNode

_SHAPES: Final[Mapping[NodeKind, str]] = {
    NodeKind.CALL: "box",
    NodeKind.WORKFLOW: "box3d",
    NodeKind.SCRIPT: "note",
    NodeKind.GATE: "hexagon",
    NodeKind.FOREACH: "box3d",
    NodeKind.DECISION: "diamond",
    NodeKind.FORK: "box",
    NodeKind.JOIN: "point",
    NodeKind.START: "circle",
    NodeKind.END: "doublecircle",
}


def dot(flow: Flow) -> str:
    """The chart as a directed graph in DOT, with a line break at the end."""
    lines = [
        f"digraph {_quoted(flow.name)} {{",
        f"  label={_quoted(flow.title)};",
        '  node [fontname="sans-serif" style=filled];',
        '  edge [fontname="sans-serif"];',
        *_Frames(flow).lines(None, "  "),
    ]
    for edge in flow.edges:
        options = [f"label={_quoted(edge.label)}"] if edge.label else []
        options += ["style=dashed", "constraint=false"] if edge.is_back else []
        suffix = f" [{' '.join(options)}]" if options else ""
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)}{suffix};")
    return "\n".join([*lines, "}"]) + "\n"


class _Frames:
    def __init__(self, flow: Flow) -> None:
        self._nodes = flow.nodes_by_frame()
        self._frames = flow.frames_by_frame()

    def lines(self, frame: str | None, indent: str) -> Iterator[str]:
        for node in self._nodes.get(frame, ()):
            yield indent + _node(node)
        for inner in self._frames.get(frame, ()):
            yield f"{indent}subgraph {_quoted(f'cluster {inner.id}')} {{"
            yield f"{indent}  label={_quoted(inner.label)};"
            yield from self.lines(inner.id, indent + "  ")
            yield f"{indent}}}"


def _node(node: FlowNode) -> str:
    colour = colour_of(node.status)
    label = _quoted("\n".join([node.label, *node.details]))
    return (
        f"{_quoted(node.id)} [shape={_SHAPES[node.kind]} label={label} "
        f'fillcolor="{colour.fill}" color="{colour.stroke}" fontcolor="{colour.text}"];'
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

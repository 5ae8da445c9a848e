"""The regions of a chart as nodes and edges."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runkon_server.dsl.graphing.regions import Choice, Fork, Frame, Loop, Series, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runkon_server.dsl.graphing.regions import Chart, Region

START = "start"
END = "end"


class NodeKind(StrEnum):
    """What a node is; steps keep their own kinds."""

    CALL = "call"
    WORKFLOW = "workflow"
    SCRIPT = "script"
    GATE = "gate"
    FOREACH = "foreach"
    DECISION = "decision"
    FORK = "fork"
    JOIN = "join"
    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowNode:
    """One node."""

    id: str
    """The path of the step or block; `.join` behind it where a fork ends."""
    kind: NodeKind
    label: str
    details: tuple[str, ...] = ()
    frame: str | None = None
    """Id of the innermost frame around it."""
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEdge:
    """One edge."""

    source: str
    target: str
    label: str = ""
    is_back: bool = False
    """Whether it closes a loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFrame:
    """A line around some nodes."""

    id: str
    label: str
    frame: str | None = None
    """Id of the frame around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A chart, flat."""

    name: str
    title: str
    nodes: tuple[FlowNode, ...]
    edges: tuple[FlowEdge, ...]
    frames: tuple[FlowFrame, ...]

    def nodes_by_frame(self) -> Mapping[str | None, Sequence[FlowNode]]:
        """The nodes directly inside each frame, and those outside all of them."""
        found: dict[str | None, list[FlowNode]] = {}
        for node in self.nodes:
            found.setdefault(node.frame, []).append(node)
        return found

    def frames_by_frame(self) -> Mapping[str | None, Sequence[FlowFrame]]:
        """The frames directly inside each frame, and those outside all of them."""
        found: dict[str | None, list[FlowFrame]] = {}
        for frame in self.frames:
            found.setdefault(frame.frame, []).append(frame)
        return found


class _Exit(NamedTuple):
    """An edge that has no target yet."""

    source: str
    label: str = ""
    is_back: bool = False


_Exits: TypeAlias = list[_Exit]


def flatten(chart: Chart) -> Flow:
    """The nodes and edges of a chart, in program order."""
    return _Flattener().flow(chart)


class _Flattener:
    def __init__(self) -> None:
        self._nodes: list[FlowNode] = []
        self._edges: list[FlowEdge] = []
        self._frames: list[FlowFrame] = []
        self._frame: str | None = None

    def flow(self, chart: Chart) -> Flow:
        self._node(START, NodeKind.START, "start", [])
        exits = self._region(chart.body, [_Exit(START)])
        if chart.always is not None:
            exits = self._region(chart.always, exits)
        self._node(END, NodeKind.END, "end", exits)
        return Flow(
            name=chart.name,
            title=chart.title,
            nodes=tuple(self._nodes),
            edges=tuple(self._edges),
            frames=tuple(self._frames),
        )

    def _region(self, region: Region, entries: _Exits) -> _Exits:
        """Add a region behind these entries; returns the ways out of it."""
        match region:
            case Step():
                return self._step(region, entries)
            case Series():
                for each in region.regions:
                    entries = self._region(each, entries)
                return entries
            case Fork():
                return self._fork(region, entries)
            case Choice():
                return self._choice(region, entries)
            case Loop():
                return self._loop(region, entries)
            case Frame():
                outer, self._frame = self._frame, region.path
                self._frames.append(FlowFrame(id=region.path, label=region.label, frame=outer))
                exits = self._region(region.body, entries)
                self._frame = outer
                return exits

    def _step(self, step: Step, entries: _Exits) -> _Exits:
        kind = NodeKind(step.kind.value)
        return self._node(
            step.path, kind, step.label, entries, details=step.details, status=step.status
        )

    def _fork(self, fork: Fork, entries: _Exits) -> _Exits:
        opened = self._node(fork.path, NodeKind.FORK, fork.label, entries)
        exits = [end for branch in fork.branches for end in self._step(branch, opened)]
        return self._node(f"{fork.path}.join", NodeKind.JOIN, "", exits)

    def _choice(self, choice: Choice, entries: _Exits) -> _Exits:
        self._node(choice.path, NodeKind.DECISION, choice.question, entries)
        exits = self._region(choice.body, [_Exit(choice.path, choice.wanted)])
        return [*exits, _Exit(choice.path, choice.other)]

    def _loop(self, loop: Loop, entries: _Exits) -> _Exits:
        details = (f"up to {loop.limit} passes",)
        if loop.tests_first:
            self._node(loop.path, NodeKind.DECISION, loop.question, entries, details=details)
            ends = self._region(loop.body, [_Exit(loop.path, "yes")])
            self._connect([end._replace(is_back=True) for end in ends], loop.path)
        else:
            again = _Exit(loop.path, "yes", is_back=True)
            ends = self._region(loop.body, [*entries, again])
            self._node(loop.path, NodeKind.DECISION, loop.question, ends, details=details)
        return [_Exit(loop.path, "no")]

    def _node(
        self,
        node_id: str,
        kind: NodeKind,
        label: str,
        entries: _Exits,
        *,
        details: tuple[str, ...] = (),
        status: str | None = None,
    ) -> _Exits:
        node = FlowNode(
            id=node_id, kind=kind, label=label, details=details, frame=self._frame, status=status
        )
        self._nodes.append(node)
        self._connect(entries, node_id)
        return [_Exit(node_id)]

    def _connect(self, exits: _Exits, target: str) -> None:
        for source, label, is_back in exits:
            self._edges.append(FlowEdge(source=source, target=target, label=label, is_back=is_back))

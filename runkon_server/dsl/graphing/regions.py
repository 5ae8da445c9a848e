"""A definition as nested regions, each with one way in and one way out.

Workflows are built from blocks, so their graphs are series-parallel: a region is a step, a series
of regions, or a block around one. Whoever draws needs no general graph layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from runkon_server.dsl.ast import (
    AgentRef,
    Always,
    BoolInput,
    Call,
    CallWorkflow,
    ContinueOnFail,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Parallel,
    ParallelCall,
    QualityGate,
    Script,
    Unless,
    While,
)
from runkon_server.dsl.queries import display_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.dsl.ast import Condition, Definition, Node, OnFail


class StepKind(StrEnum):
    """What a step does, as far as its shape is concerned."""

    CALL = "call"
    WORKFLOW = "workflow"
    SCRIPT = "script"
    GATE = "gate"
    FOREACH = "foreach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step."""

    path: str
    """Section and child numbers, such as `body.3.1`; the same as in the rows of a run."""
    kind: StepKind
    label: str
    details: tuple[str, ...] = ()
    """Short remarks for the lines below the label."""
    status: str | None = None
    """Of the step's newest row in a run; None without a run, or before the step was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Regions one after the other, perhaps none."""

    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Steps beside each other."""

    path: str
    label: str
    branches: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A body that may be passed by."""

    path: str
    question: str
    wanted: str
    """The answer that leads into the body."""
    other: str
    body: Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A body that is passed again and again."""

    path: str
    question: str
    limit: int
    tests_first: bool
    body: Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A body with a line around it."""

    path: str
    label: str
    body: Series


Region: TypeAlias = Step | Series | Fork | Choice | Loop | Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A whole workflow."""

    name: str
    title: str
    body: Series
    always: Frame | None
    """What runs after the body in any case; None if there is no such thing."""


def chart(definition: Definition, statuses: Mapping[str, str] | None = None) -> Chart:
    """The regions of a definition.

    Args:
        definition: to be drawn.
        statuses: status words such as `running` by path, to draw a run.
    """
    builder = _Builder(statuses or {})
    always = None
    if definition.always:
        body = builder.series(definition.always, "always")
        always = Frame(path="always", label="always", body=body)
    return Chart(
        name=definition.name,
        title=display_name(definition),
        body=builder.series(definition.body, "body"),
        always=always,
    )


class _Builder:
    def __init__(self, statuses: Mapping[str, str]) -> None:
        self._statuses = statuses

    def series(self, nodes: tuple[Node, ...], path: str) -> Series:
        return Series(
            regions=tuple(self._region(node, f"{path}.{n}") for n, node in enumerate(nodes))
        )

    def _region(self, node: Node, path: str) -> Region:
        match node:
            case If() | Unless():
                wanted, other = ("yes", "no") if isinstance(node, If) else ("no", "yes")
                return Choice(
                    path=path,
                    question=f"{_spoken(node.condition)}?",
                    wanted=wanted,
                    other=other,
                    body=self.series(node.body, path),
                )
            case While() | DoWhile():
                return Loop(
                    path=path,
                    question=f"{_spoken(node.condition)}?",
                    limit=node.max_iterations,
                    tests_first=isinstance(node, While),
                    body=self.series(node.body, path),
                )
            case Do() | Always():
                label = "always" if isinstance(node, Always) else "do"
                return Frame(path=path, label=label, body=self.series(node.body, path))
            case Parallel():
                branches = tuple(
                    self._call(call, f"{path}.{n}") for n, call in enumerate(node.calls)
                )
                return Fork(path=path, label=_fork_label(node), branches=branches)
            case _:
                return self._step(node, path)

    def _step(
        self, node: Call | CallWorkflow | Script | Gate | QualityGate | ForEach, path: str
    ) -> Step:
        match node:
            case Call():
                return self._call(node, path)
            case CallWorkflow():
                return self._new(path, StepKind.WORKFLOW, node.workflow, _attempts(node))
            case Script():
                return self._new(path, StepKind.SCRIPT, node.name, _attempts(node))
            case Gate():
                details = [] if node.name == node.gate_type else [node.gate_type]
                if node.approvers > 1:
                    details.append(f"{node.approvers} approvers")
                return self._new(path, StepKind.GATE, node.name, details)
            case QualityGate():
                details = [f"{node.source} ≥ {node.threshold}"]
                return self._new(path, StepKind.GATE, node.name, details)
            case ForEach():
                details = [f"{node.over} → {node.workflow}", f"{node.max_parallel} at a time"]
                return self._new(path, StepKind.FOREACH, node.name, details)

    def _call(self, node: Call | ParallelCall, path: str) -> Step:
        details = _attempts(node)
        if isinstance(node, ParallelCall) and node.condition is not None:
            details.insert(0, f"if {_spoken(node.condition)}")
        return self._new(path, StepKind.CALL, node.agent.value, details)

    def _new(self, path: str, kind: StepKind, label: str, details: list[str]) -> Step:
        status = self._statuses.get(path)
        return Step(path=path, kind=kind, label=label, details=tuple(details), status=status)


def _spoken(condition: Condition) -> str:
    if isinstance(condition, BoolInput):
        return condition.name
    return f"{condition.step}.{condition.marker}"


def _attempts(node: Call | CallWorkflow | Script | ParallelCall) -> list[str]:
    details = []
    if node.retries:
        details.append(f"{node.retries + 1} attempts")
    on_fail: OnFail | None = None if isinstance(node, ParallelCall) else node.on_fail
    match on_fail:
        case ContinueOnFail():
            details.append("may fail")
        case AgentRef():
            details.append(f"on failure: {on_fail.value}")
        case None:
            pass
    return details


def _fork_label(node: Parallel) -> str:
    label = node.name or "parallel"
    if node.min_success is None or node.min_success >= len(node.calls):
        return label
    return f"{label}: {node.min_success} of {len(node.calls)}"

"""A run as it went: what was asked of workers and people, and what they answered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runkon_client.testing.lineage import Lineage, identity, place_of
from runkon_client.values import GateState, StepRole, StepStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runkon_client.client import Client
    from runkon_client.handles import RunHandle
    from runkon_client.values import FanOutItem, Gate, Step

_VERSION: Final = 2
_VERSIONS: Final = (1, _VERSION)
"""Those that can be read; in version 1 there was no `foreach`."""
_WORKED: Final = frozenset({StepRole.ACTOR, StepRole.REVIEWER, StepRole.SCRIPT})


class RecordingError(Exception):
    """The run cannot be recorded, or the text is no recording; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWorkflow:
    """A definition with what was stored beside it."""

    name: str
    source: str
    output_schemas: Mapping[str, str]
    snippets: Mapping[str, str]


StepKey: TypeAlias = tuple[tuple[str, ...], str, str, tuple[int, ...]]
"""The items above, the workflow, the step's name, the passes of the loops around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStep:
    """A row of a run's steps, as far as it can be told again."""

    workflow: str
    name: str
    role: str
    iterations: tuple[int, ...]
    status: str
    markers: tuple[str, ...]
    context: str
    result_text: str
    structured_output: str
    output_file: str
    error: str
    error_code: str
    above: tuple[str, ...] = ()
    """The items that its run serves, outermost first; empty outside every `foreach`."""

    @property
    def key(self) -> StepKey:
        """What attempts at one step have in common."""
        return (self.above, self.workflow, self.name, self.iterations)

    @property
    def outcome(self) -> str:
        """One line for people, and for comparing."""
        markers = f" ({', '.join(self.markers)})" if self.markers else ""
        return f"{self._place} {self.status}{markers}"

    @property
    def answers(self) -> tuple[str, ...]:
        """What its worker answered, one line for each part; nothing where none was asked."""
        if self.role not in _WORKED or self.status != StepStatus.COMPLETED:
            return ()
        parts = {
            "context": self.context,
            "result_text": self.result_text,
            "structured_output": _normal(self.structured_output),
            "output_file": self.output_file,
        }
        return tuple(
            f"{self._place} {name} {json.dumps(text, ensure_ascii=False)}"
            for name, text in parts.items()
            if text
        )

    @property
    def _place(self) -> str:
        return f"{_run_of(self.workflow, self.above)}: {place_of(self.name, self.iterations)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedItem:
    """One item of a `foreach`, as its provider gave it and as it ended."""

    workflow: str
    above: tuple[str, ...]
    step: str
    iterations: tuple[int, ...]
    id: str
    type: str
    ref: str
    context: Mapping[str, str]
    depends_on: tuple[str, ...]
    status: str

    @property
    def key(self) -> StepKey:
        """That of its step."""
        return (self.above, self.workflow, self.step, self.iterations)

    @property
    def outcome(self) -> str:
        """One line for people, and for comparing."""
        place = f"{_run_of(self.workflow, self.above)}: {place_of(self.step, self.iterations)}"
        values = [self.ref, dict(sorted(self.context.items())), *self.depends_on]
        named = identity(self.type, self.id)
        return f"{place} item {named} {json.dumps(values, ensure_ascii=False)} {self.status}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedGate:
    """A gate and how it was decided."""

    workflow: str
    name: str
    iteration: int
    state: str
    feedback: str
    selections: tuple[str, ...]
    above: tuple[str, ...] = ()
    """As of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A run with its child runs: those of `call workflow` and those of `foreach`."""

    workflow: str
    inputs: Mapping[str, str]
    status: str
    workflows: tuple[RecordedWorkflow, ...]
    steps: tuple[RecordedStep, ...]
    gates: tuple[RecordedGate, ...]
    items: tuple[RecordedItem, ...] = ()

    @property
    def outcomes(self) -> list[str]:
        """How everything ended and what was answered, line by line, for comparing."""
        steps = (line for step in self.steps for line in (step.outcome, *step.answers))
        return [*steps, *(item.outcome for item in self.items), f"run {self.status}"]

    def to_json(self) -> str:
        """As a text, for a file beside the test."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Recording:
        """A recording out of such a text.

        Raises:
            RecordingError: it is none, or a newer version's.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("version") not in _VERSIONS:
                raise RecordingError(f"not a recording of version {_VERSION} or before")
            return Recording(
                workflow=values["workflow"],
                inputs=values["inputs"],
                status=values["status"],
                workflows=tuple(RecordedWorkflow(**each) for each in values["workflows"]),
                steps=tuple(RecordedStep(**_with_tuples(each)) for each in values["steps"]),
                gates=tuple(RecordedGate(**_with_tuples(each)) for each in values["gates"]),
                items=tuple(RecordedItem(**_with_tuples(each)) for each in values.get("items", ())),
            )
        except KeyError as reason:
            raise RecordingError(f"not a recording: it has no {reason}") from reason
        except (ValueError, TypeError, AttributeError) as reason:
            raise RecordingError(f"not a recording: {reason}") from reason


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


def _run_of(workflow: str, above: tuple[str, ...]) -> str:
    return " ".join((workflow, *above))


def _normal(text: str) -> str:
    """JSON, however it was spaced and ordered."""
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False) if text else ""


async def record(client: Client, run_id: str) -> Recording:
    """Record a run that has ended; attempts that a resume replaced are left out.

    Raises:
        RecordingError: it has not ended, or its definition is not stored under its name, as that
            of a run with a source of its own.
        RunkonClientError: it cannot be read.
    """
    root = await client.get_run(run_id)
    if not root.status.is_terminal:
        raise RecordingError(f"run {run_id} is {root.status}, it has not ended")
    workflows: dict[str, RecordedWorkflow] = {}
    steps: list[RecordedStep] = []
    gates: list[RecordedGate] = []
    items: list[RecordedItem] = []
    lineage = Lineage(client)
    waiting = [run_id]
    while waiting:
        run = await client.get_run(waiting.pop(0))
        name = run.workflow_name
        if name not in workflows:
            workflows[name] = await _workflow(client, name, run.workflow_version)
        above = await lineage.above(run.id)
        handle = client.run(run.id)
        rows = [step async for step in handle.steps()]
        steps += [_recorded(name, above, step) for step in rows]
        gates += [
            _decided(name, above, gate) for gate in [each.gate async for each in handle.gates()]
        ]
        found = await _items(handle, rows)
        for step, given in found:
            items += _collected(name, above, step, given)
        waiting += _children(rows, found)
    return Recording(
        workflow=root.workflow_name,
        inputs=dict(root.inputs),
        status=str(root.status),
        workflows=tuple(workflows.values()),
        steps=tuple(steps),
        gates=tuple(gates),
        items=tuple(items),
    )


async def _workflow(client: Client, name: str, version: int) -> RecordedWorkflow:
    if not version:
        raise RecordingError(f"{name} has no version: its run had a source of its own")
    stored = await client.get_workflow(name, version=version)
    return RecordedWorkflow(
        name=name,
        source=stored.source,
        output_schemas=dict(stored.output_schemas),
        snippets=dict(stored.snippets),
    )


async def _items(handle: RunHandle, rows: Sequence[Step]) -> list[tuple[Step, list[FanOutItem]]]:
    return [
        (step, [item async for item in handle.items(step.id)])
        for step in rows
        if step.role is StepRole.FOREACH
    ]


def _children(
    rows: Sequence[Step], found: Sequence[tuple[Step, list[FanOutItem]]]
) -> Iterator[str]:
    called = [step.child_run_id for step in rows if step.child_run_id]
    fanned = [item.child_run_id for _, items in found for item in items if item.child_run_id]
    yield from dict.fromkeys(called + fanned)


def _recorded(workflow: str, above: tuple[str, ...], step: Step) -> RecordedStep:
    return RecordedStep(
        workflow=workflow,
        above=above,
        name=step.step_name,
        role=str(step.role),
        iterations=step.iterations,
        status=str(step.status),
        markers=step.markers,
        context=step.context,
        result_text=step.result_text,
        structured_output=step.structured_output,
        output_file=step.output_file,
        error=step.step_error,
        error_code=step.error_code,
    )


def _collected(
    workflow: str, above: tuple[str, ...], step: Step, items: Sequence[FanOutItem]
) -> Iterator[RecordedItem]:
    ids = {item.position: item.item_id for item in items}
    for item in items:
        yield RecordedItem(
            workflow=workflow,
            above=above,
            step=step.step_name,
            iterations=step.iterations,
            id=item.item_id,
            type=item.item_type,
            ref=item.item_ref,
            context=dict(item.context),
            depends_on=tuple(ids[position] for position in item.blockers),
            status=str(item.status),
        )


def _decided(workflow: str, above: tuple[str, ...], gate: Gate) -> RecordedGate:
    return RecordedGate(
        workflow=workflow,
        above=above,
        name=gate.name,
        iteration=gate.iteration,
        state=str(gate.state or GateState.UNKNOWN),
        feedback=gate.feedback,
        selections=gate.selections,
    )

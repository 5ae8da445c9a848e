"""A run as it went: what was asked of workers and people, and what they answered."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_client.values import GateState, StepRole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_client.client import Client
    from runkon_client.values import Gate, Step

_VERSION: Final = 1


class RecordingError(Exception):
    """The run cannot be recorded, or the text is no recording; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWorkflow:
    """A definition with what was stored beside it."""

    name: str
    source: str
    output_schemas: Mapping[str, str]
    snippets: Mapping[str, str]


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

    @property
    def key(self) -> tuple[str, str, tuple[int, ...]]:
        """What attempts at one step have in common."""
        return (self.workflow, self.name, self.iterations)

    @property
    def outcome(self) -> str:
        """One line for people, and for comparing."""
        passes = "".join(f"[{each}]" for each in self.iterations)
        markers = f" ({', '.join(self.markers)})" if self.markers else ""
        return f"{self.workflow}: {self.name}{passes} {self.status}{markers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedGate:
    """A gate and how it was decided."""

    workflow: str
    name: str
    iteration: int
    state: str
    feedback: str
    selections: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A run with the child runs of its `call workflow` steps."""

    workflow: str
    inputs: Mapping[str, str]
    status: str
    workflows: tuple[RecordedWorkflow, ...]
    steps: tuple[RecordedStep, ...]
    gates: tuple[RecordedGate, ...]

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
            if values.pop("version") != _VERSION:
                raise RecordingError(f"not a recording of version {_VERSION}")
            return Recording(
                workflow=values["workflow"],
                inputs=values["inputs"],
                status=values["status"],
                workflows=tuple(RecordedWorkflow(**each) for each in values["workflows"]),
                steps=tuple(_step(each) for each in values["steps"]),
                gates=tuple(
                    RecordedGate(**{**each, "selections": tuple(each["selections"])})
                    for each in values["gates"]
                ),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as reason:
            raise RecordingError(f"not a recording: {reason}") from reason


def _step(values: dict[str, Any]) -> RecordedStep:
    tuples = {name: tuple(values[name]) for name in ("iterations", "markers")}
    return RecordedStep(**{**values, **tuples})


async def record(client: Client, run_id: str) -> Recording:
    """Record a run that has ended; attempts that a resume replaced are left out.

    Raises:
        RecordingError: it has not ended, has a `foreach` step, or its definition is not stored
            under its name, as that of a run with a source of its own.
        RunkonClientError: it cannot be read.
    """
    root = await client.get_run(run_id)
    if not root.status.is_terminal:
        raise RecordingError(f"run {run_id} is {root.status}, it has not ended")
    workflows: dict[str, RecordedWorkflow] = {}
    steps: list[RecordedStep] = []
    gates: list[RecordedGate] = []
    waiting = [run_id]
    while waiting:
        run = await client.get_run(waiting.pop(0))
        name = run.workflow_name
        if name not in workflows:
            if not run.workflow_version:
                raise RecordingError(f"{name} has no version: its run had a source of its own")
            stored = await client.get_workflow(name, version=run.workflow_version)
            workflows[name] = RecordedWorkflow(
                name=name,
                source=stored.source,
                output_schemas=dict(stored.output_schemas),
                snippets=dict(stored.snippets),
            )
        handle = client.run(run.id)
        rows = [step async for step in handle.steps()]
        if any(step.role is StepRole.FOREACH for step in rows):
            raise RecordingError(f"{name} has a foreach step, which cannot be replayed")
        steps += [_recorded(name, step) for step in rows]
        gates += [_decided(name, gate) for gate in [each.gate async for each in handle.gates()]]
        waiting += _children(rows)
    return Recording(
        workflow=root.workflow_name,
        inputs=dict(root.inputs),
        status=str(root.status),
        workflows=tuple(workflows.values()),
        steps=tuple(steps),
        gates=tuple(gates),
    )


def _children(rows: list[Step]) -> Iterator[str]:
    yield from dict.fromkeys(step.child_run_id for step in rows if step.child_run_id)


def _recorded(workflow: str, step: Step) -> RecordedStep:
    return RecordedStep(
        workflow=workflow,
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


def _decided(workflow: str, gate: Gate) -> RecordedGate:
    return RecordedGate(
        workflow=workflow,
        name=gate.name,
        iteration=gate.iteration,
        state=str(gate.state or GateState.UNKNOWN),
        feedback=gate.feedback,
        selections=gate.selections,
    )

"""What a finished child run hands up to its parent: its last word, and what its steps said.

One level only: what a child's own children said reaches it by its own rows, and goes no further.
All of it is bounded, whatever the child did: texts that later steps could not be told are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.ids import ALWAYS
from runkon_server.core.model import NOTHING_TOLD
from runkon_server.core.rows import completion_of
from runkon_server.core.variables import remember

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_server.core.records import StepRecord

OUTPUTS_BYTES: Final = 512 * 1024
"""Structured outputs of all steps of a child together; older ones that do not fit are left out."""
_NO_RESULT_ROLES: Final = frozenset({"gate", "reviewer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildResults:
    """What a child run that completed says to its parent; the column `child_results` of a step."""

    context: str = ""
    """Of the last completed step of the body, as are the markers."""
    markers: tuple[str, ...] = ()
    structured_output: str | None = None
    """The newest one of the body: the output of a foreach's item."""
    contexts: str | None = ""
    """Context entries of all steps, JSON objects joined by commas; None: too long to be told."""
    exports: dict[str, str] = field(default_factory=dict)
    prior_output: str | None = None
    prior_output_file: str | None = None
    markers_by_step: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By step key, the newest of each; a key without markers has an empty entry."""
    outputs_by_step: dict[str, str] = field(default_factory=dict)
    """Structured outputs by step key; bounded by `OUTPUTS_BYTES`."""


def results_of(steps: Iterable[StepRecord]) -> ChildResults:
    """What the rows of a completed run say, in program order.

    Gates say nothing, and neither do steps that did not complete. The last word is the body's: the
    always section may speak to later steps, but it is not what the run was started for.
    """
    told = sorted(
        (
            step
            for step in steps
            if step.status == "completed"
            and step.superseded_epoch is None
            and step.role not in _NO_RESULT_ROLES
        ),
        key=lambda step: (step.at, step.retry_count),
    )
    memory = NOTHING_TOLD
    last, output = "", None
    markers: tuple[str, ...] = ()
    by_step: dict[str, tuple[str, ...]] = {}
    for step in told:
        done = completion_of(step)
        memory = remember(memory, frozenset(), step.step_key, 0, done)
        by_step[step.step_key] = done.markers
        if not step.at.startswith(ALWAYS):
            last, markers = done.context, done.markers
            output = done.structured_output or output
    return ChildResults(
        context=last,
        markers=markers,
        structured_output=output,
        contexts=memory.contexts,
        exports=memory.exports,
        prior_output=memory.prior_output,
        prior_output_file=memory.prior_output_file,
        markers_by_step=by_step,
        outputs_by_step=_outputs(told),
    )


def _outputs(told: list[StepRecord]) -> dict[str, str]:
    outputs: dict[str, str] = {}
    seen: set[str] = set()
    room = OUTPUTS_BYTES
    for step in reversed(told):
        if step.step_key in seen:
            continue
        seen.add(step.step_key)
        output = step.structured_output
        if output is not None and (size := len(output.encode())) <= room:
            outputs[step.step_key] = output
            room -= size
    return outputs


def load_results(values: dict[str, Any]) -> ChildResults:
    """The results from plain JSON values: of a stored fact, or of the column."""
    by_step = {key: tuple(markers) for key, markers in values["markers_by_step"].items()}
    return ChildResults(
        **{**values, "markers": tuple(values["markers"]), "markers_by_step": by_step}
    )

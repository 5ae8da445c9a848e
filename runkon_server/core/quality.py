"""Quality gates: a number in a step's output decides them at once; nobody is asked, nothing waits.

Source: engine.md §3.8.1 of the language's specification.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.core import ids
from runkon_server.core.model import Place
from runkon_server.core.outcomes import abort
from runkon_server.core.rows import new_row
from runkon_server.core.variables import output_fields
from runkon_server.dsl.ast import Policy

if TYPE_CHECKING:
    from runkon_server.core.model import Passes
    from runkon_server.core.plan import QualityGateNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

CONFIDENCE_MAX: Final = 100
QUALITY_GATE_FAILED: Final = "QUALITY_GATE_FAILED"


class _Confidence(NamedTuple):
    value: int
    doubt: str | None
    """Why the number is not what the step said."""


def enter(tx: Scratch, node: QualityGateNode, at: str, passes: Passes) -> None:
    """Decide a gate, or take its verdict from its row."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, rows[-1])
    elif tx.may_start():
        _decide(tx, node, at, passes)


def _decide(tx: Scratch, node: QualityGateNode, at: str, passes: Passes) -> None:
    """A failure names no culprit: repeating the gate alone would give the same verdict."""
    state, gate = tx.state, node.gate
    epoch = state.setup.epoch
    step_id = ids.step_id(state.setup.run_id, at, epoch, 0)
    output = state.outputs.get(gate.source)
    if output is None:
        status, text = "failed", f"`{gate.source}` has no result"
    else:
        confidence = _confidence(output)
        has_passed = confidence.value >= gate.threshold
        is_good = has_passed or gate.on_fail is Policy.CONTINUE
        status = "completed" if is_good else "failed"
        text = f"confidence {confidence.value}, threshold {gate.threshold}: "
        text += "passed" if has_passed else "not passed, went on" if is_good else "not passed"
        if confidence.doubt is not None:
            text += f" ({confidence.doubt})"
    row = new_row(node.columns, Place(at, passes, state.position), epoch, 0, status)
    row["result_text"] = text
    state.position += 1
    if status == "failed":
        text = f"quality gate `{gate.name}`: {text}"
        row |= {"step_error": text, "error_code": QUALITY_GATE_FAILED}
    tx.insert_step(step_id, row)
    tx.step_event(f"step_{status}", step_id, row)
    if status == "failed":
        abort(tx, text)


def _confidence(output: str) -> _Confidence:
    fields = output_fields(output) if output else None
    if fields is None:
        return _Confidence(0, "no structured output")
    if "confidence" not in fields:
        return _Confidence(0, "no `confidence` in the output")
    value = fields["confidence"]
    # `isnan` would turn a whole number into a float, and JSON has some that are none.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and math.isnan(value)):
        return _Confidence(0, "`confidence` is no number")
    if not 0 <= value <= CONFIDENCE_MAX:
        return _Confidence(0 if value < 0 else CONFIDENCE_MAX, f"the output says {value}")
    return _Confidence(int(value), None)


def _adopt(tx: Scratch, record: StepRecord) -> None:
    if record.status == "failed":
        abort(tx, record.step_error or "")

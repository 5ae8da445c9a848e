"""What a finished child run hands up."""

from __future__ import annotations

import json
from typing import Any

from runkon_server.core.bubbling import OUTPUTS_BYTES, results_of
from runkon_server.core.records import StepRecord


def step(at: str, key: str, **columns: Any) -> StepRecord:
    """A completed row."""
    values: dict[str, Any] = {"role": "actor", "status": "completed", "position": 0, **columns}
    return StepRecord(id=at, at=at, path=at, step_name=key, step_key=key, **values)


def test_126_127_entries_follow_program_order_and_the_last_step_of_the_body_speaks() -> None:
    """Whatever the order of the rows; an always section adds entries, but not the last word."""
    rows = [
        step("z.0000", "clean", context_out="cleaned", markers_out=("swept",)),
        step("b.0001", "b", context_out="second", markers_out=("n",)),
        step("b.0000", "a", context_out="first", markers_out=("m",), output_file="f"),
    ]
    results = results_of(rows)

    entries = json.loads(f"[{results.contexts}]")
    assert [entry["step"] for entry in entries] == ["a", "b", "clean"]
    assert {entry["iteration"] for entry in entries} == {0}
    assert (results.context, results.markers) == ("second", ("n",))
    assert results.markers_by_step == {"a": ("m",), "b": ("n",), "clean": ("swept",)}
    assert results.prior_output_file == "f"


def test_128_rows_without_output_give_empty_results() -> None:
    """Nothing completed, nothing told; no error."""
    results = results_of([step("b.0000", "a", status="failed", context_out="x")])

    assert results == results_of([])
    assert results.context == ""


def test_superseded_rows_and_gates_say_nothing() -> None:
    """The first were replaced by a resume, the second have no result."""
    rows = [
        step("b.0000", "a", superseded_epoch=2, markers_out=("old",)),
        step("b.0001", "ok", role="gate", context_out="Selected:"),
        step("b.0002", "plan", role="reviewer", context_out="by itself"),
    ]

    assert results_of(rows) == results_of([])


def test_newest_output_of_a_key_counts() -> None:
    """A later pass replaces an earlier one; exports follow the same order."""
    rows = [
        step("b.0000.0000.0000", "a", structured_output='{"x":"1","y":"1"}'),
        step("b.0000.0001.0000", "a", structured_output='{"x":"2"}'),
        step("b.0001", "b"),
    ]
    results = results_of(rows)

    assert results.outputs_by_step == {"a": '{"x":"2"}'}
    assert results.structured_output == results.prior_output == '{"x":"2"}'
    assert results.exports == {"x": "2", "y": "1"}


def test_outputs_are_bounded_and_the_newest_are_kept() -> None:
    """What does not fit is left out, the markers of that step stay."""
    big = json.dumps({"n": "x" * (OUTPUTS_BYTES // 2)})
    rows = [step(f"b.000{n}", f"s{n}", structured_output=big) for n in range(3)]
    results = results_of(rows)

    assert list(results.outputs_by_step) == ["s2"]
    assert set(results.markers_by_step) == {"s0", "s1", "s2"}
    assert results.contexts is None

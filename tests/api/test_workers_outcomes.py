"""What workers report: limits, bad texts, digests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runkon.v1 import types_pb2, workers_pb2
from runkon_server.api.outcomes import parse_report
from runkon_server.core.facts import Outcome, Reported

if TYPE_CHECKING:
    from runkon_server.runtime.commands import TaskReport


def parsed(**outcome: Any) -> TaskReport:
    report = workers_pb2.TaskReport(task_id="t", token="k", **outcome)
    return parse_report(report, lambda: 0.25)


def completed(**fields: Any) -> Reported:
    return parsed(result=types_pb2.StepResult(**fields)).fact


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_a_result_is_taken_whole() -> None:
    """Every field arrives; empty ones are None."""
    fact = completed(
        result_text="text",
        context="context",
        markers=["b", "a"],
        structured_output='{"a": [1.5, null]}',
        output_file="/out",
        metadata={"cost_usd": "0.1"},
    )

    assert fact == Reported(
        task_id="t",
        outcome=Outcome.COMPLETED,
        result_text="text",
        context="context",
        markers=("b", "a"),
        structured_output='{"a": [1.5, null]}',
        output_file="/out",
        metadata={"cost_usd": "0.1"},
    )
    assert completed() == Reported(task_id="t", outcome=Outcome.COMPLETED)


@pytest.mark.parametrize(
    "fields",
    [
        {"result_text": "x" * 1_048_576},
        {"result_text": "é" * 524_288},
        {"result_text": "x" * 1_000_000, "context": "x" * 48_576},
        {"markers": ["m" * 128] * 100},
        {"metadata": {f"k{number}": "" for number in range(64)}},
        {"output_file": "é" * 2048},
        {"structured_output": nested(64)},
        {"structured_output": "[" + ",".join(["[]"] * 200) + "]"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_just_fits_is_taken(fields: dict[str, Any]) -> None:
    """Each limit, exactly."""
    assert completed(**fields).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"result_text": "x" * 1_048_577}, "bytes of output"),
        ({"result_text": "é" * 524_289}, "bytes of output"),
        ({"result_text": "x" * 1_000_000, "context": "x" * 48_577}, "bytes of output"),
        ({"markers": ["m"] * 101}, "markers"),
        ({"markers": ["é" * 65]}, "marker"),
        ({"metadata": {f"k{number}": "" for number in range(65)}}, "metadata"),
        ({"output_file": "é" * 2049}, "output_file"),
        ({"structured_output": nested(65)}, "64 deep"),
        ({"structured_output": nested(100_000)}, "64 deep"),
        ({"structured_output": '{"a":' * 65 + "1" + "}" * 65}, "64 deep"),
    ],
)
def test_what_breaks_a_limit_fails_the_step(fields: dict[str, Any], word: str) -> None:
    """OUTPUT_LIMIT, not to be retried, and nothing of the result is kept."""
    fact = completed(**fields)

    assert (fact.outcome, fact.error_code) == (Outcome.FAILED, "OUTPUT_LIMIT")
    assert not fact.retryable
    assert word in (fact.error or "")
    assert fact.result_text is None


@pytest.mark.parametrize(
    "fields",
    [
        {"result_text": "a\0b"},
        {"context": "\0"},
        {"markers": ["ok", "\0"]},
        {"output_file": "\0"},
        {"metadata": {"k": "\0"}},
        {"metadata": {"\0": "v"}},
        {"structured_output": "{"},
        {"structured_output": "{'a': 1}"},
        {"structured_output": "NaN"},
        {"structured_output": "[Infinity]"},
        {"structured_output": "1e999"},
        {"structured_output": "1" * 5000},
        {"structured_output": r'"\u0000"'},
        {"structured_output": r'{"a\u0000": 1}'},
        {"structured_output": r'"\ud83d"'},
        {"structured_output": r'["\udc00\ud800"]'},
    ],
    ids=str,
)
def test_what_cannot_be_stored_fails_the_step(fields: dict[str, Any]) -> None:
    """OUTPUT_INVALID, not to be retried."""
    fact = completed(**fields)

    assert (fact.outcome, fact.error_code) == (Outcome.FAILED, "OUTPUT_INVALID")
    assert not fact.retryable
    assert fact.error


@pytest.mark.parametrize(
    "value",
    ["\\u0000", "\\\\u0000", "\\", "😀", "a\\ud83d", {"\\u0000": ["\\"]}],
    ids=repr,
)
def test_what_only_looks_bad_is_taken(value: object) -> None:
    """Escaped backslashes before `u0000` stand for a text; a whole pair is a character."""
    text = json.dumps(value)

    assert completed(structured_output=text).structured_output == text


def test_empty_texts_are_no_zero_bytes() -> None:
    """The encoding of an empty element has a zero byte; the result holds none."""
    assert completed(markers=["", ""], metadata={"": ""}).outcome is Outcome.COMPLETED


def test_a_failure_says_whether_to_try_again() -> None:
    """By default another attempt is made, with the jitter drawn for it."""
    silent = parsed(failure=workers_pb2.TaskFailure(message="no", code="E1")).fact
    final = parsed(failure=workers_pb2.TaskFailure(message="no", retryable=False)).fact

    assert (silent.outcome, silent.error, silent.error_code) == (Outcome.FAILED, "no", "E1")
    assert silent.retryable
    assert silent.jitter == 0.25
    assert not final.retryable


def test_a_long_failure_is_cut_not_lost() -> None:
    """64 KiB of the message stay, cut between characters; NUL is replaced."""
    fact = parsed(failure=workers_pb2.TaskFailure(message="\0" + "é" * 40_000)).fact

    assert fact.error == "\ufffd" + "é" * 32_766


def test_a_cancelled_task_is_reported_as_such() -> None:
    """With what was left undone, if anything."""
    plain = parsed(cancelled=workers_pb2.TaskCancelled()).fact
    said = parsed(cancelled=workers_pb2.TaskCancelled(message="half")).fact

    assert (plain.outcome, plain.error) == (Outcome.CANCELLED, None)
    assert said.error == "half"


def test_the_digest_tells_a_repeat_from_a_contradiction() -> None:
    """Same outcome, same digest, whatever the order of metadata; any other outcome, another."""
    one = types_pb2.StepResult(result_text="a", metadata={"a": "1", "b": "2"})
    same = types_pb2.StepResult(metadata={"b": "2", "a": "1"}, result_text="a")
    other = types_pb2.StepResult(result_text="b", metadata={"a": "1", "b": "2"})

    assert parsed(result=one).digest == parsed(result=same).digest
    assert parsed(result=one).digest != parsed(result=other).digest

"""What workers report: limits, bad texts, digests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runkon.v1 import types_pb2, workers_pb2
from runkon_server.api.outcomes import parse_report
from runkon_server.core.facts import (
    Dependency,
    GateDecided,
    GateDecision,
    GatePolled,
    Item,
    ItemsCollected,
    Outcome,
    Reported,
)

if TYPE_CHECKING:
    from runkon_server.runtime.commands import TaskReport


def parsed(**outcome: Any) -> TaskReport:
    report = workers_pb2.TaskReport(task_id="t", token="k", **outcome)
    return parse_report(report, lambda: 0.25, "zoe")


def told(**outcome: Any) -> Reported:
    """The fact of a task that is no look at a gate and no collection of items."""
    fact = parsed(**outcome).fact
    assert isinstance(fact, Reported)
    return fact


def completed(**fields: Any) -> Reported:
    return told(result=types_pb2.StepResult(**fields))


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
    assert completed(raw_output="said").raw_output == "said"
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
        ({"raw_output": "x" * 1_048_577}, "bytes of output"),
        ({"output_file": "é" * 2049}, "output_file"),
        ({"structured_output": nested(65)}, "64 deep"),
        ({"structured_output": nested(100_000)}, "64 deep"),
        ({"structured_output": '{"a":' * 65 + "1" + "}" * 65}, "64 deep"),
    ],
)
def test_what_breaks_a_limit_fails_the_step(fields: dict[str, Any], word: str) -> None:
    """Fault 34: OUTPUT_LIMIT, not to be retried, and nothing of the result is kept."""
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
        {"raw_output": "\0"},
        {"raw_output": "said", "context": "said"},
        {"raw_output": "said", "markers": ["done"]},
        {"raw_output": "said", "structured_output": "{}"},
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
    """Fault 34: OUTPUT_INVALID, not to be retried."""
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
    silent = told(failure=workers_pb2.TaskFailure(message="no", code="E1"))
    final = told(failure=workers_pb2.TaskFailure(message="no", retryable=False))

    assert (silent.outcome, silent.error, silent.error_code) == (Outcome.FAILED, "no", "E1")
    assert silent.retryable
    assert silent.jitter == 0.25
    assert not final.retryable


def test_a_long_failure_is_cut_not_lost() -> None:
    """64 KiB of the message stay, cut between characters; NUL is replaced."""
    fact = told(failure=workers_pb2.TaskFailure(message="\0" + "é" * 40_000))

    assert fact.error == "\ufffd" + "é" * 32_766


def test_a_cancelled_task_is_reported_as_such() -> None:
    """With what was left undone, if anything."""
    plain = told(cancelled=workers_pb2.TaskCancelled())
    said = told(cancelled=workers_pb2.TaskCancelled(message="half"))

    assert (plain.outcome, plain.error) == (Outcome.CANCELLED, None)
    assert said.error == "half"


def test_the_digest_tells_a_repeat_from_a_contradiction() -> None:
    """Same outcome, same digest, whatever the order of metadata; any other outcome, another."""
    one = types_pb2.StepResult(result_text="a", metadata={"a": "1", "b": "2"})
    same = types_pb2.StepResult(metadata={"b": "2", "a": "1"}, result_text="a")
    other = types_pb2.StepResult(result_text="b", metadata={"a": "1", "b": "2"})

    assert parsed(result=one).digest == parsed(result=same).digest
    assert parsed(result=one).digest != parsed(result=other).digest


def item(**fields: Any) -> workers_pb2.Item:
    return workers_pb2.Item(**{"item_id": "a", **fields})


def collected(*items: workers_pb2.Item) -> ItemsCollected | Reported:
    fact = parsed(items=workers_pb2.ItemList(items=items)).fact
    assert isinstance(fact, ItemsCollected | Reported)
    return fact


def test_items_are_taken_in_their_order_with_what_they_wait_for() -> None:
    found = collected(
        item(item_id="b", item_type="ticket", item_ref="#2", context={"title": "T"}),
        item(item_id="a", depends_on=["b", "gone"]),
    )

    assert found == ItemsCollected(
        task_id="t",
        items=(Item("ticket", "b", "#2", {"title": "T"}), Item("", "a")),
        dependencies=(Dependency("b", "a"), Dependency("gone", "a")),
    )
    assert collected() == ItemsCollected(task_id="t")


@pytest.mark.parametrize(
    ("items", "code", "word"),
    [
        ([item()] * 10_001, "OUTPUT_LIMIT", "10001 items"),
        ([item(), item(item_id="")], "OUTPUT_INVALID", "item 1 has no"),
        ([item(item_id="x" * 257)], "OUTPUT_LIMIT", "`item_id`"),
        ([item(item_type="x" * 129)], "OUTPUT_LIMIT", "`item_type`"),
        ([item(item_ref="x" * 1025)], "OUTPUT_LIMIT", "`item_ref`"),
        ([item(item_ref="\0")], "OUTPUT_INVALID", "NUL"),
        ([item(context={"a": "\0"})], "OUTPUT_INVALID", "NUL"),
        ([item(context={"x" * 129: ""})], "OUTPUT_LIMIT", "a name in `context`"),
        ([item(context={"a": "x" * 40_000, "b": "x" * 40_000})], "OUTPUT_LIMIT", "65536"),
        ([item(depends_on=["b"] * 101)], "OUTPUT_LIMIT", "101 others"),
        ([item(depends_on=["x" * 257])], "OUTPUT_LIMIT", "`depends_on`"),
        ([item(depends_on=["b"] * 100)] * 1_001, "OUTPUT_LIMIT", "100100 dependencies"),
    ],
)
def test_items_beyond_a_limit_fail_the_step(
    items: list[workers_pb2.Item], code: str, word: str
) -> None:
    """Not to be retried: the same provider would find the same."""
    fact = collected(*items)

    assert isinstance(fact, Reported)
    assert (fact.outcome, fact.error_code, fact.retryable) == (Outcome.FAILED, code, False)
    assert word in (fact.error or "")


def test_as_many_items_as_are_allowed_are_taken() -> None:
    found = collected(*(item(item_id=str(number)) for number in range(10_000)))

    assert isinstance(found, ItemsCollected)
    assert len(found.items) == 10_000


def looked(task_id: str = "gate#3", **answer: Any) -> TaskReport:
    report = workers_pb2.TaskReport(
        task_id=task_id, token="k", gate_answer=workers_pb2.GateAnswer(**answer)
    )
    return parse_report(report, lambda: 0.25, "zoe")


def test_a_look_that_decides_names_gate_and_principal() -> None:
    approved = looked(approved={"feedback": "fine", "selections": ["a", "b"]})
    rejected = looked(rejected={"reason": "no"})

    assert approved.fact == rejected.fact == GatePolled(task_id="gate#3")
    assert approved.gate_decision == GateDecided(
        gate_id="gate",
        decision=GateDecision.APPROVED,
        feedback="fine",
        selections=("a", "b"),
        decided_by="zoe",
        poll_id="gate#3",
    )
    assert rejected.gate_decision == GateDecided(
        gate_id="gate",
        decision=GateDecision.REJECTED,
        feedback="no",
        decided_by="zoe",
        poll_id="gate#3",
    )


@pytest.mark.parametrize(
    ("selections", "code"),
    [
        (["a", "a"], "OUTPUT_INVALID"),
        (["x" * 40_000, "y" * 40_000], "OUTPUT_LIMIT"),
        ([str(number) for number in range(1_001)], "OUTPUT_LIMIT"),
    ],
)
def test_a_look_that_selects_what_cannot_be_options_has_failed(
    selections: list[str], code: str
) -> None:
    """Nothing is decided, and the step does not get megabytes of what was not there."""
    report_ = looked(approved={"selections": selections})

    assert report_.gate_decision is None
    assert isinstance(report_.fact, Reported)
    assert (report_.fact.outcome, report_.fact.error_code) == (Outcome.FAILED, code)


@pytest.mark.parametrize(
    ("delay", "delay_s"),
    [
        ({}, None),
        ({"delay": {"seconds": 7, "nanos": 500_000_000}}, 7.5),
        ({"delay": {}}, 1.0),
        ({"delay": {"seconds": 86_400}}, 3600.0),
    ],
)
def test_a_look_that_decides_nothing_says_when_to_look_again(
    delay: dict[str, Any], delay_s: float | None
) -> None:
    """Within the limits of the contract; none at all leaves it to the engine."""
    pending = looked(pending={"note": "1 of 2", **delay})

    assert pending.gate_decision is None
    assert pending.fact == GatePolled(task_id="gate#3", delay_s=delay_s, note="1 of 2")

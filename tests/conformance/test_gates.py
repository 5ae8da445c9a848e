"""Statements 88-100: gates that people decide, and gates that compare a number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runkon.v1 import gates_pb2, gates_pb2_grpc
from support.engines import engine_on, rogue_on, start, until, vote
from support.live_api import refusal
from support.stage import Refused

if TYPE_CHECKING:
    from conformance.conftest import Served
    from support.stage import Stage

ASK = 'gate human_review { name = ask prompt = "well?" options = { x = "the X" y = "the Y" } }'
ASK_BRIEFLY = 'call a gate human_review { name = ask timeout = "5m" on_timeout = %s } call b'
QUALITY = "call a gate quality_gate { name = good source = a threshold = 70 } call b"
LENIENT = QUALITY.replace("70", "70 on_fail = continue")


async def test_088_in_a_dry_run_a_gate_approves_by_itself(stage: Stage) -> None:
    await stage.start(f"{ASK} call a", dry_run=True)
    await stage.complete("a")
    assert await stage.end() == "completed"
    row = await stage.row("ask")
    assert (row.status, row.role) == ("completed", "reviewer")
    assert "run_waiting" not in await stage.kinds()


async def test_089_feedback_reaches_the_next_steps(stage: Stage) -> None:
    """As a variable and beside the variables; before the gate there is none."""
    await stage.start(f"call a {ASK} call b call c")
    await stage.complete("a")
    await stage.approve("more tests")
    await stage.complete("b", "c")
    assert await stage.end() == "completed"
    assert stage.given("a").gate_feedback is None
    assert "gate_feedback" not in stage.given("a").inputs
    for name in "bc":
        assert stage.given(name).gate_feedback == "more tests"
        assert stage.given(name).inputs["gate_feedback"] == "more tests"


async def test_090_what_was_selected_is_the_feedback(stage: Stage) -> None:
    """Instead of the words; the row lists the selections."""
    await stage.start(f"{ASK} call a")
    await stage.approve("both, please", selections=["x", "y"])
    await stage.complete("a")
    assert await stage.end() == "completed"
    assert stage.given("a").gate_feedback == "x, y"
    assert (await stage.row("ask")).context == "Selected:\n- x\n- y"


async def test_091_a_rejection_fails_the_run_with_its_words(stage: Stage) -> None:
    """Also without fail-fast: what follows was made to depend on a yes."""
    await stage.start(f"{ASK} call a", fail_fast=False)
    await stage.reject("not like this")
    assert await stage.end() == "failed"
    assert await stage.error() == "not like this"
    assert await stage.names() == ["ask"]
    assert (await stage.row("ask")).status == "failed"
    assert "gate_resolved" in await stage.kinds()


async def test_092_a_gate_that_nobody_decides_fails_the_run(stage: Stage) -> None:
    await stage.start(ASK_BRIEFLY % "fail")
    await stage.complete("a")
    await stage.until_status("waiting")
    await stage.pass_time("gate")
    assert await stage.end() == "failed"
    row = await stage.row("ask")
    assert row.status == "failed"
    assert "timed out" in row.error
    assert await stage.error() == row.error


async def test_092_a_gate_that_nobody_decides_may_be_tolerated(stage: Stage) -> None:
    await stage.start(ASK_BRIEFLY % "continue")
    await stage.complete("a")
    await stage.until_status("waiting")
    await stage.pass_time("gate")
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert (await stage.row("ask")).status == "timed_out"


async def test_093_the_row_of_a_gate_tells_its_decision(stage: Stage) -> None:
    """It waits, was approved, or was rejected with words."""
    await stage.start("gate human_review { name = one } gate human_review { name = two }")
    await stage.until_status("waiting")
    assert await stage.statuses() == ["waiting"]
    await stage.approve("fine")
    await stage.reject("no", gate="two")
    assert await stage.end() == "failed"
    assert [(row.name, row.status) for row in await stage.rows()] == [
        ("one", "completed"), ("two", "failed"),
    ]  # fmt: skip
    assert (await stage.row("two")).error == "no"


async def test_093_a_gate_that_is_not_there_is_not_found(served: Served) -> None:
    """The original says that it is pending; nobody could tell it from one that waits."""
    gate_service = gates_pb2_grpc.GateServiceStub(served.channel)
    unknown = "01M83TZKMH1NMK02KV1JNGK7WE/b.0000/e1/0"
    refused = await refusal(gate_service.GetGate(gates_pb2.GetGateRequest(gate_id=unknown)))
    assert refused.reason == "GATE_NOT_FOUND"


@pytest.mark.parametrize(
    "gate_type", ["human_approval", "human_review", "pr_approval", "pr_checks"]
)
async def test_094_at_a_gate_the_run_waits_and_says_for_what(stage: Stage, gate_type: str) -> None:
    """In one change: who sees the status sees the reason."""
    await stage.start(f"gate {gate_type} {{}} call a")
    await stage.until_status("waiting")
    assert await stage.blocked_on() == gate_type
    assert "run_waiting" in await stage.kinds()
    await stage.approve()
    await stage.until_open("a")
    assert (await stage.status(), await stage.blocked_on()) == ("running", "")


async def test_095_a_waiting_gate_holds_nothing(database: str) -> None:
    """No owner, no lease, nothing in memory; the decision wakes the run although nobody polls."""
    async with (
        engine_on(database, poll_s=3600.0, scan_s=3600.0, linger_s=3600.0) as engine,
        rogue_on(database) as rogue,
    ):
        started = await engine.start_run(start("gate human_review { name = check } call echo"))
        await rogue.parked(started.run_id)
        assert (await rogue.run(started.run_id))["status"] == "waiting"
        await until(lambda: engine.stats.leases_held == 0, "nothing is held")
        await engine.resolve_gate(vote(started.run_id, "ann"))
        assert await rogue.ended(started.run_id) == "completed"


@pytest.mark.parametrize("first", ["approved", "rejected", "timed out"])
async def test_096_a_gate_is_decided_once(stage: Stage, first: str) -> None:
    """Whoever comes second is refused, and nothing changes."""
    await stage.start(f"{ASK} call a")
    await stage.until_status("waiting")
    if first == "approved":
        await stage.approve("fine")
        await stage.until_open("a")
    else:
        await (stage.reject("no") if first == "rejected" else stage.pass_time("gate"))
        await stage.end()
    before = await stage.row("ask")
    for again in (stage.approve, stage.reject):
        with pytest.raises(Refused, match=r"GATE_ALREADY_RESOLVED|GATE_TIMED_OUT"):
            await again("second", who="bob")
    assert await stage.row("ask") == before


async def test_097_only_what_is_offered_can_be_selected(stage: Stage) -> None:
    """A refusal leaves the gate open."""
    await stage.start(f"{ASK} call a")
    with pytest.raises(Refused, match="GATE_SELECTION_INVALID"):
        await stage.approve(selections=["x", "z"])
    assert await stage.status() == "waiting"
    await stage.approve(selections=["y"])
    await stage.complete("a")
    assert await stage.end() == "completed"


async def test_097_without_options_nothing_can_be_selected(stage: Stage) -> None:
    await stage.start("gate human_review { name = ask } call a")
    with pytest.raises(Refused, match="GATE_SELECTION_INVALID"):
        await stage.approve(selections=["x"])
    assert await stage.status() == "waiting"


async def said(stage: Stage, text: str, output: object) -> None:
    """Start a run whose first step reports this."""
    await stage.start(text)
    result: dict[str, Any] = {} if output is None else {"structured_output": json.dumps(output)}
    await stage.complete("a", **result)


@pytest.mark.parametrize("confidence", [80, 70])
async def test_098_enough_confidence_passes(stage: Stage, confidence: int) -> None:
    await said(stage, QUALITY, {"confidence": confidence})
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert (await stage.row("good")).status == "completed"


async def test_098_too_little_confidence_fails_the_run(stage: Stage) -> None:
    await said(stage, QUALITY, {"confidence": 60})
    assert await stage.end() == "failed"
    row = await stage.row("good")
    assert (row.status, row.error_code) == ("failed", "QUALITY_GATE_FAILED")
    assert "60" in await stage.error()
    assert await stage.names() == ["a", "good"]


async def test_098_too_little_confidence_may_be_tolerated(stage: Stage) -> None:
    await said(stage, LENIENT, {"confidence": 60})
    await stage.complete("b")
    assert await stage.end() == "completed"
    row = await stage.row("good")
    assert (row.status, row.error) == ("completed", "")
    assert "60" in row.result_text


@pytest.mark.parametrize(
    ("output", "confidence"),
    [
        (None, 0),
        ({}, 0),
        ({"confidence": "80"}, 0),
        ({"confidence": None}, 0),
        ({"confidence": 150}, 100),
        ({"confidence": 69.9}, 69),
    ],
)
async def test_099_confidence_is_read_with_care(
    stage: Stage, output: object, confidence: int
) -> None:
    await said(stage, LENIENT, output)
    await stage.complete("b")
    assert await stage.end() == "completed"
    text = (await stage.row("good")).result_text
    assert text.startswith(f"confidence {confidence}, threshold 70: ")


async def test_100_a_source_without_a_result_fails_the_gate(stage: Stage) -> None:
    """Also where too little confidence would be tolerated."""
    await stage.start(
        "inputs { flag boolean } if flag { call a } gate quality_gate"
        " { name = good source = a threshold = 0 on_fail = continue } call b"
    )
    assert await stage.end() == "failed"
    assert (await stage.row("good")).status == "failed"
    assert "`a`" in await stage.error()

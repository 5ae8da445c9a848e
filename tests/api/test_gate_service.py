"""GateService on a real engine: gates are found, answered once, and the winner is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from runkon.v1 import gates_pb2, runs_pb2
from runkon.v1.gates_pb2 import (
    GATE_DECISION_APPROVE,
    GATE_DECISION_REJECT,
    GATE_STATE_APPROVED,
    GATE_STATE_PENDING,
    GATE_STATE_REJECTED,
    ResolveGateRequest,
)
from support.live_api import refusal
from support.rows import ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from support.live_api import LiveApi

SOURCE = """workflow gated {
    gate human_review { name = check prompt = "ok?" options = { y = "Yes" n = "No" } }
}"""
QUORUM = "workflow quorum { gate human_approval { approvers = 2 exclude_starter = true } }"


def principal(name: str) -> tuple[tuple[str, str], ...]:
    return (("runkon-principal", name),)


async def open_gate(api: LiveApi, source: str = SOURCE, **fields: Any) -> gates_pb2.Gate:
    """A gate of a new run, when it is pending."""
    request = runs_pb2.StartRunRequest(source=source, **fields)
    run_id = (await api.runs.StartRun(request, metadata=principal("starter"))).run.id
    found: list[gates_pb2.Gate] = []

    async def is_open() -> bool:
        answer = await api.gates.ListGates(gates_pb2.ListGatesRequest(run_id=run_id))
        found[:] = answer.gates
        return bool(found)

    await eventually(is_open, "the gate")
    return found[0]


async def resolve(
    api: LiveApi, gate: gates_pb2.Gate, who: str = "zoe", **fields: Any
) -> gates_pb2.ResolveGateResponse:
    """An approval, unless the fields say otherwise."""
    base: dict[str, Any] = {"gate_id": gate.id, "decision": GATE_DECISION_APPROVE}
    return await api.gates.ResolveGate(ResolveGateRequest(**base | fields), metadata=principal(who))


async def test_a_pending_gate_says_what_is_asked(api: LiveApi) -> None:
    gate = await open_gate(api, labels={"team": "core"})
    alone = (await api.gates.GetGate(gates_pb2.GetGateRequest(gate_id=gate.id))).gate

    assert alone == gate
    assert (gate.state, gate.name, gate.type) == (GATE_STATE_PENDING, "check", "human_review")
    assert (gate.prompt, gate.approvers) == ("ok?", 1)
    assert [(each.key, each.label) for each in gate.options] == [("y", "Yes"), ("n", "No")]
    assert (gate.workflow_name, dict(gate.labels)) == ("gated", {"team": "core"})
    assert gate.deadline_time.ToSeconds() - gate.open_time.ToSeconds() == 86_400


async def test_an_approval_decides_and_is_recorded(api: LiveApi) -> None:
    gate = await open_gate(api)
    answer = await resolve(api, gate, selections=["y"], on_behalf_of="the board")

    assert (answer.gate.state, answer.replayed) == (GATE_STATE_APPROVED, False)
    assert (answer.gate.resolved_by, answer.gate.on_behalf_of) == ("zoe", "the board")
    assert list(answer.gate.selections) == ["y"]
    assert [vote.principal for vote in answer.gate.votes] == ["zoe"]


async def test_the_same_vote_again_is_fine_and_another_one_too_late(api: LiveApi) -> None:
    """By the same person and by another one: the winner is named either way."""
    gate = await open_gate(api)
    await resolve(api, gate)
    again = await resolve(api, gate)
    for who, decision in (("zoe", GATE_DECISION_REJECT), ("adam", GATE_DECISION_REJECT)):
        error = await refusal(resolve(api, gate, who, decision=decision))

        assert (error.code, error.reason) == (
            StatusCode.FAILED_PRECONDITION,
            "GATE_ALREADY_RESOLVED",
        )
        assert error.metadata["resolved_by"] == "zoe"
    assert again.gate.state == GATE_STATE_APPROVED


async def test_a_gate_is_found_by_its_run_and_name(api: LiveApi) -> None:
    """By the run's id and by its key; a run that has no such gate, and one that there is not."""
    gate = await open_gate(api, key="order-1")
    target = gates_pb2.RunGate(run_id=gate.run_id, gate_name="check")
    by_id = await api.gates.ResolveGate(
        ResolveGateRequest(run_gate=target, decision=GATE_DECISION_REJECT, feedback="no")
    )
    target = gates_pb2.RunGate(key="order-1", gate_name="check")
    by_key = await refusal(
        api.gates.ResolveGate(
            ResolveGateRequest(run_gate=target, decision=GATE_DECISION_APPROVE),
            metadata=principal("zoe"),
        )
    )

    assert (by_id.gate.state, by_id.gate.feedback) == (GATE_STATE_REJECTED, "no")
    assert by_key.reason == "GATE_ALREADY_RESOLVED"
    for target, reason in (
        (gates_pb2.RunGate(run_id=gate.run_id, gate_name="other"), "GATE_NOT_FOUND"),
        (gates_pb2.RunGate(key="order-2", gate_name="check"), "RUN_NOT_FOUND"),
    ):
        request = ResolveGateRequest(run_gate=target, decision=GATE_DECISION_APPROVE)
        assert (await refusal(api.gates.ResolveGate(request))).reason == reason


async def test_a_selection_that_is_not_offered_is_refused(api: LiveApi) -> None:
    gate = await open_gate(api)
    error = await refusal(resolve(api, gate, selections=["y", "maybe"]))

    assert (error.code, error.reason) == (
        StatusCode.INVALID_ARGUMENT,
        "GATE_SELECTION_INVALID",
    )
    assert error.fields == ["selections"]
    assert "choose from: y, n" in error.message


async def test_a_quorum_counts_people_and_excludes_who_started(api: LiveApi) -> None:
    gate = await open_gate(api, QUORUM)
    error = await refusal(resolve(api, gate, "starter"))
    first = await resolve(api, gate, "zoe")
    second = await resolve(api, gate, "adam")

    assert (error.code, error.reason) == (
        StatusCode.PERMISSION_DENIED,
        "GATE_STARTER_EXCLUDED",
    )
    assert (first.gate.state, second.gate.state) == (GATE_STATE_PENDING, GATE_STATE_APPROVED)
    assert [vote.principal for vote in second.gate.votes] == ["zoe", "adam"]


async def test_a_request_id_makes_a_vote_safe_to_repeat(api: LiveApi) -> None:
    gate = await open_gate(api)
    first = await resolve(api, gate, request_id="r")
    again = await resolve(api, gate, request_id="r")
    error = await refusal(resolve(api, gate, request_id="r", feedback="other"))

    assert (first.replayed, again.replayed) == (False, True)
    assert (error.code, error.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_the_gate_of_a_cancelled_run_is_closed(api: LiveApi) -> None:
    gate = await open_gate(api)
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=gate.run_id))
    error = await refusal(resolve(api, gate))

    assert (error.code, error.reason) == (StatusCode.FAILED_PRECONDITION, "GATE_CLOSED")


@pytest.mark.parametrize("namespace", ["default", "other"])
async def test_an_unknown_gate_and_another_namespaces_look_the_same(
    api: LiveApi, namespace: str
) -> None:
    gate_id = (await open_gate(api)).id if namespace == "other" else f"{ulid(1)}/b.0000/e1/0"
    get = gates_pb2.GetGateRequest(namespace=namespace, gate_id=gate_id)
    decide = ResolveGateRequest(
        namespace=namespace, gate_id=gate_id, decision=GATE_DECISION_APPROVE
    )
    shown = await refusal(api.gates.GetGate(get))
    resolved = await refusal(api.gates.ResolveGate(decide))

    assert (shown.code, shown.reason) == (StatusCode.NOT_FOUND, "GATE_NOT_FOUND")
    assert resolved.code is StatusCode.NOT_FOUND


async def test_gates_of_any_age_that_a_duration_can_tell_are_listed(api: LiveApi) -> None:
    """PostgreSQL knows no instant 10,000 years ago."""
    gate = await open_gate(api)

    async def listed(seconds: int) -> list[str]:
        wanted = gates_pb2.ListGatesRequest(run_id=gate.run_id, min_age=Duration(seconds=seconds))
        return [each.id for each in (await api.gates.ListGates(wanted)).gates]

    assert await listed(0) == [gate.id]
    assert await listed(315_576_000_000) == []


async def test_gates_are_listed_page_by_page(api: LiveApi) -> None:
    """Three pending ones and a decided one; the tokens lead through both groups."""
    made = [await open_gate(api) for _ in range(4)]
    await resolve(api, made[0])
    seen: list[str] = []
    token = ""
    while True:
        page = await api.gates.ListGates(gates_pb2.ListGatesRequest(page_size=1, page_token=token))
        seen += [gate.id for gate in page.gates]
        token = page.next_page_token
        if not token:
            break
    pending = await api.gates.ListGates(gates_pb2.ListGatesRequest(state=GATE_STATE_PENDING))

    assert seen == [gate.id for gate in (*made[1:], made[0])]
    assert [gate.id for gate in pending.gates] == [gate.id for gate in made[1:]]

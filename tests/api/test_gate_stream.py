"""StreamGates on a real engine: first what waits, then what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from runkon.v1 import gates_pb2, runs_pb2
from runkon.v1.gates_pb2 import (
    GATE_DECISION_APPROVE,
    GATE_STATE_APPROVED,
    GATE_STATE_CANCELLED,
    GATE_STATE_PENDING,
    ResolveGateRequest,
    StreamGatesRequest,
)
from support.feeds import frame_of
from support.live_api import refusal
from support.replicas import read
from support.rows import ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from support.live_api import LiveApi

SOURCE = 'workflow gated { gate human_review { name = check prompt = "ok?" } }'
QUORUM = "workflow quorum { gate human_approval { approvers = 2 } }"


async def start(api: LiveApi, source: str = SOURCE, **fields: Any) -> str:
    """A run that waits at a gate; its id."""
    request = runs_pb2.StartRunRequest(source=source, **fields)
    run_id: str = (await api.runs.StartRun(request)).run.id

    async def is_open() -> bool:
        return bool((await api.gates.ListGates(gates_pb2.ListGatesRequest(run_id=run_id))).gates)

    await eventually(is_open, "the gate")
    return run_id


async def approve(api: LiveApi, gate: gates_pb2.Gate, who: str = "zoe") -> None:
    await api.gates.ResolveGate(
        ResolveGateRequest(gate_id=gate.id, decision=GATE_DECISION_APPROVE),
        metadata=(("runkon-principal", who),),
    )


async def pending_of(call: Any) -> list[gates_pb2.Gate]:
    """The gates of the opening, all chunks."""
    found: list[gates_pb2.Gate] = []
    while True:
        chunk = await frame_of(call, "pending")
        found += chunk.gates
        if chunk.last:
            return found


async def changed_until(call: Any, state: int, run_id: str) -> tuple[gates_pb2.Gate, str]:
    """The first change of the run's gate that shows it in the state, and the frame's cursor."""
    while True:
        frame = await read(call)
        for gate in frame.changed.gates:
            if (gate.run_id, gate.state) == (run_id, state):
                return gate, frame.changed.cursor


async def test_an_inbox_shows_what_waits_and_stays_live(api: LiveApi) -> None:
    """The gate that was there, one that opens, its vote, its decision, and one that is closed."""
    first = await start(api, labels={"team": "core"})
    call = api.gates.StreamGates(StreamGatesRequest())
    await frame_of(call, "header")
    waiting = await pending_of(call)
    second = await start(api, QUORUM)
    opened, _ = await changed_until(call, GATE_STATE_PENDING, second)
    await approve(api, opened, "ada")
    voted, _ = await changed_until(call, GATE_STATE_PENDING, second)
    while not voted.votes:
        voted, _ = await changed_until(call, GATE_STATE_PENDING, second)
    await approve(api, opened, "zoe")
    approved, _ = await changed_until(call, GATE_STATE_APPROVED, second)
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(run_id=first))
    closed, _ = await changed_until(call, GATE_STATE_CANCELLED, first)

    assert [(gate.run_id, gate.name) for gate in waiting] == [(first, "check")]
    assert waiting[0].labels == {"team": "core"}
    assert opened.workflow_name == "quorum"
    assert [vote.principal for vote in voted.votes] == ["ada"]
    assert [vote.principal for vote in approved.votes] == ["ada", "zoe"]
    assert closed.id == waiting[0].id


async def test_an_empty_inbox_says_that_it_is(api: LiveApi) -> None:
    call = api.gates.StreamGates(StreamGatesRequest())
    await frame_of(call, "header")

    assert await pending_of(call) == []


async def test_a_cursor_goes_on_with_the_changes_since(api: LiveApi) -> None:
    """What was decided while nobody listened comes as a change, without a list before it."""
    run_id = await start(api)
    call = api.gates.StreamGates(StreamGatesRequest())
    cursor = (await frame_of(call, "header")).cursor
    (gate,) = await pending_of(call)
    call.cancel()
    await approve(api, gate)

    resumed = api.gates.StreamGates(StreamGatesRequest(cursor=cursor))
    await frame_of(resumed, "header")
    approved, later = await changed_until(resumed, GATE_STATE_APPROVED, run_id)

    assert approved.resolved_by == "zoe"
    assert later not in ("", cursor)


@pytest.mark.parametrize(
    ("wanted", "is_there"),
    [
        ({"type": "human_review"}, True),
        ({"type": "human_approval"}, False),
        ({"workflow_name": "gated"}, True),
        ({"workflow_name": "quorum"}, False),
        ({"labels": {"team": "core"}}, True),
        ({"labels": {"team": "web"}}, False),
        ({"run_id": ulid(7)}, False),
    ],
)
async def test_filters_hold_for_what_waits_and_for_changes(
    api: LiveApi, wanted: dict[str, Any], *, is_there: bool
) -> None:
    """A gate that is left out opens between two that are not: it is not among the changes."""
    await start(api, labels={"team": "core"})
    call = api.gates.StreamGates(StreamGatesRequest(**wanted))
    await frame_of(call, "header")
    waiting = await pending_of(call)
    seen = await api.gates.ListGates(gates_pb2.ListGatesRequest())
    await approve(api, seen.gates[0])

    assert bool(waiting) is is_there
    if is_there:
        await changed_until(call, GATE_STATE_APPROVED, waiting[0].run_id)


async def test_a_cursor_of_another_namespace_is_refused(api: LiveApi) -> None:
    call = api.gates.StreamGates(StreamGatesRequest())
    cursor = (await frame_of(call, "header")).cursor

    refused = await refusal(
        read(api.gates.StreamGates(StreamGatesRequest(cursor=cursor, namespace="other")))
    )

    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID")

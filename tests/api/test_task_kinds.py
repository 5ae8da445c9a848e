"""Scripts, items and looks at gates on a real engine, for a worker that makes plain calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import gates_pb2, types_pb2, workers_pb2
from support.live_work import Hand, ended, put, run_of, start, steps_of, waiting

if TYPE_CHECKING:
    from support.live_api import LiveApi

COMPLETED, FAILED = types_pb2.RUN_STATUS_COMPLETED, types_pb2.RUN_STATUS_FAILED
SCRIPT = """
workflow w {
  inputs { name required }
  script hello {
    run = "echo \\"{{name}}\\""
    env = { WHO = "{{name}}" }
    timeout = 30
  }
  if hello.greeted { call after }
}
"""
BLOCK = """some words
<<<FLOW_OUTPUT>>>
{"markers": ["greeted"], "context": "hi", "who": "Ada"}
<<<END_FLOW_OUTPUT>>>
"""
CHILD = "workflow child { inputs { title required } call work }"
EACH = """
workflow each {
  foreach tickets {
    over = tickets
    max_parallel = 9
    workflow = child
    scope = { project = core }
    filter = { state = open }
    ordered = true
    inputs = { title = "{{item.title}}" }
  }
}
"""
GATE = 'workflow w { gate moon { name = full prompt = "Is it?" options = { y = "Yes" } } }'


async def test_a_script_is_handed_out_without_values_in_its_text(api: LiveApi) -> None:
    """What a value says, it says in the environment only."""
    hand = Hand(api, scripts=True)
    await start(api, SCRIPT, inputs={"name": "$(touch X)"})
    lease = await hand.take()

    work = lease.script
    assert (lease.kind, lease.action) == (workers_pb2.TASK_KIND_SCRIPT, "hello")
    assert "touch" not in work.text
    assert "$(touch X)" in work.environment.values()
    assert work.environment["WHO"] == work.environment["RUNKON_NAME"] == "$(touch X)"
    assert work.timeout.ToSeconds() == 30


async def test_what_a_script_prints_is_interpreted_by_the_server(api: LiveApi) -> None:
    hand = Hand(api, scripts=True)
    run_id = await start(api, SCRIPT, inputs={"name": "Ada"})
    await hand.do(result=types_pb2.StepResult(raw_output=BLOCK))
    await Hand(api).do()
    run, (hello, after) = await ended(api, run_id), await steps_of(api, run_id)

    assert (run.status, after.step_name) == (COMPLETED, "after")
    assert (hello.role, list(hello.markers)) == (types_pb2.STEP_ROLE_SCRIPT, ["greeted"])
    assert (hello.context, hello.result_text) == ("hi", BLOCK)
    assert '"who":"Ada"' in hello.structured_output.replace(" ", "")


async def test_a_worker_without_scripts_is_given_none(api: LiveApi) -> None:
    """Not even one that takes every action."""
    await start(api, SCRIPT, inputs={"name": "Ada"})
    others = Hand(api, actions=["*"], gate_types=["moon"], item_providers=["tickets"])
    waits = asyncio.ensure_future(others.take())
    lease = await Hand(api, scripts=True).take()

    assert lease.kind == workers_pb2.TASK_KIND_SCRIPT
    assert not waits.done()
    waits.cancel()


def items(*found: dict[str, Any]) -> workers_pb2.ItemList:
    return workers_pb2.ItemList(items=[workers_pb2.Item(**each) for each in found])


async def test_items_of_a_worker_become_child_runs_in_their_order(api: LiveApi) -> None:
    """One that depends on another is started when that is over."""
    hand, actions = Hand(api, item_providers=["tickets"]), Hand(api)
    await put(api, CHILD)
    run_id = await start(api, EACH)
    lease = await hand.take()
    found = items(
        {"item_id": "b", "context": {"title": "B"}, "depends_on": ["a", "gone"]},
        {"item_id": "a", "context": {"title": "A"}},
    )
    await hand.report(lease, items=found)
    titles = [(await actions.do()).inputs["title"] for _ in range(2)]

    assert (lease.kind, lease.action) == (workers_pb2.TASK_KIND_ITEMS, "tickets")
    assert (lease.items.provider, lease.items.ordered) == ("tickets", True)
    assert (lease.items.has_scope, dict(lease.items.scope)) == (True, {"project": "core"})
    assert (dict(lease.items.filter), lease.items.items_max) == ({"state": "open"}, 10_000)
    assert titles == ["A", "B"]
    assert (await ended(api, run_id)).status == COMPLETED


async def test_a_provider_that_fails_or_finds_nonsense_fails_the_step(api: LiveApi) -> None:
    hand = Hand(api, item_providers=["tickets"])
    await put(api, CHILD)
    for outcome in (
        {"failure": {"message": "away", "retryable": False}},
        {"items": items({"item_id": ""})},
    ):
        run_id = await start(api, EACH)
        await hand.do(**outcome)
        run, (step,) = await ended(api, run_id), await steps_of(api, run_id)

        assert (run.status, step.status) == (FAILED, types_pb2.STEP_STATUS_FAILED)
        assert step.step_error
        assert run.error


async def test_a_look_may_approve_a_gate(api: LiveApi) -> None:
    """In the name of the worker's principal, with a selection; the run goes on."""
    hand = Hand(api, gate_types=["moon"])
    run_id = await start(api, GATE)
    lease = await hand.take()
    run = await run_of(api, run_id)
    approved = workers_pb2.GateApproved(feedback="it is", selections=["y"])
    await hand.report(lease, gate_answer=workers_pb2.GateAnswer(approved=approved))
    await ended(api, run_id)
    gate_id = lease.gate_poll.gate_id
    gate = (await api.gates.GetGate(gates_pb2.GetGateRequest(gate_id=gate_id))).gate

    poll = lease.gate_poll
    assert (lease.kind, lease.action) == (workers_pb2.TASK_KIND_GATE, "moon")
    assert (poll.gate_name, poll.gate_type, poll.prompt) == ("full", "moon", "Is it?")
    assert [(each.key, each.label) for each in poll.options] == [("y", "Yes")]
    assert run.blocked_on.custom_gate.type == "moon"
    assert (gate.state, gate.resolved_by) == (gates_pb2.GATE_STATE_APPROVED, "robot")
    assert list(gate.selections) == ["y"]


async def test_a_look_may_reject_a_gate(api: LiveApi) -> None:
    hand = Hand(api, gate_types=["moon"])
    run_id = await start(api, GATE)
    rejected = workers_pb2.GateRejected(reason="cloudy")
    await hand.do(gate_answer=workers_pb2.GateAnswer(rejected=rejected))
    run = await ended(api, run_id)

    assert (run.status, run.error) == (FAILED, "cloudy")


async def test_a_look_that_finds_nothing_is_followed_by_another(api: LiveApi) -> None:
    """After the pause that the worker asks for; the lease counts the looks before it."""
    hand = Hand(api, gate_types=["moon"])
    await start(api, GATE)
    pending = workers_pb2.GatePending(delay=Duration(seconds=1), note="half")
    first = await hand.do(gate_answer=workers_pb2.GateAnswer(pending=pending))
    second = await hand.take()

    assert first.gate_poll.gate_id == second.gate_poll.gate_id
    assert (first.attempt, second.attempt) == (0, 1)


async def test_a_person_may_answer_before_the_worker_does(api: LiveApi) -> None:
    """The worker is told to stop looking; its late answer is stale or changes nothing."""
    hand = Hand(api, gate_types=["moon"])
    run_id = await start(api, GATE)
    lease = await hand.take()
    await waiting(api, run_id)
    await api.gates.ResolveGate(
        gates_pb2.ResolveGateRequest(
            gate_id=lease.gate_poll.gate_id, decision=gates_pb2.GATE_DECISION_APPROVE
        )
    )
    run = await ended(api, run_id)

    assert run.status == COMPLETED


@pytest.mark.parametrize(
    "outcome",
    [
        {"items": items({"item_id": "a"})},
        {"gate_answer": workers_pb2.GateAnswer(approved=workers_pb2.GateApproved())},
    ],
    ids=["items", "answer"],
)
async def test_an_outcome_of_another_kind_fails_the_task(
    api: LiveApi, outcome: dict[str, Any]
) -> None:
    """An action is not ended by items or by the answer to a gate, and nobody is hurt."""
    hand = Hand(api)
    run_id = await start(api, "workflow w { call a }")
    await hand.do(**outcome)
    run, (step,) = await ended(api, run_id), await steps_of(api, run_id)

    assert run.status == FAILED
    assert step.error_code == "OUTPUT_INVALID"


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "inline"])
async def test_snippets_and_schema_come_with_their_texts(api: LiveApi, *, is_stored: bool) -> None:
    """The block's snippets before the call's own; placeholders are filled in."""
    hand = Hand(api)
    schema = "fields:\n  verdict: string\n"
    source = (
        "workflow w { inputs { name required }"
        " do { with = [outer] call a { output = review with = [inner] } } }"
    )
    beside: dict[str, Any] = {
        "output_schemas": {"review": schema},
        "snippets": {"outer": "Greet {{name}}.", "inner": "Be brief."},
    }
    if is_stored:
        await put(api, source, **beside)
        run_id = await start(api, workflow="w", inputs={"name": "Ada"})
    else:
        run_id = await start(api, source, inputs={"name": "Ada"}, **beside)
    lease = await hand.take()
    await hand.report(lease, result=types_pb2.StepResult(structured_output='{"verdict": "ok"}'))

    assert [(each.name, each.text) for each in lease.snippets] == [
        ("outer", "Greet Ada."),
        ("inner", "Be brief."),
    ]
    assert (lease.output_schema.name, lease.output_schema.source) == ("review", schema)
    assert (await ended(api, run_id)).status == COMPLETED

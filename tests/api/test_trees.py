"""Child runs and items on a real engine: what the API shows of them while they live and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, types_pb2
from support.live_work import (
    ZOE,
    Hand,
    ended,
    events_of,
    put,
    run_of,
    start,
    steps_of,
    waiting,
)

if TYPE_CHECKING:
    from support.live_api import LiveApi

CHILD = "workflow child { inputs { name required } call work }"
PARENT = 'workflow parent { call workflow child { inputs = { name = "x" } } call after }'
ASKING = "workflow asking { call work gate human_review { name = check } }"
ASKED = "workflow asked { call workflow asking }"
EACH = """
workflow each {
  inputs { names required }
  foreach people {
    over = list
    max_parallel = 2
    workflow = child
    scope = { items = "{{names}}" }
    inputs = { name = "{{item.id}}" }
    on_child_fail = continue
  }
}
"""
COMPLETED, FAILED = types_pb2.RUN_STATUS_COMPLETED, types_pb2.RUN_STATUS_FAILED


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_a_called_workflow_is_a_run_that_knows_its_parent(api: LiveApi) -> None:
    """Both runs, the step between them, and the parent's events tell of each other."""
    hand = Hand(api)
    await put(api, CHILD)
    parent_id = await start(api, PARENT, labels={"team": "core"})
    lease = await hand.take()
    during = await run_of(api, parent_id)
    await hand.report(lease, result=types_pb2.StepResult(context="done"))
    await hand.do()
    parent, child = await ended(api, parent_id), await ended(api, lease.run_id)
    call, _ = await steps_of(api, parent_id)

    assert (child.parent_workflow_run_id, child.root_run_id) == (parent_id, parent_id)
    assert (child.depth, child.parent_step_id, child.started_by) == (1, call.id, "zoe")
    assert dict(child.inputs) == {"name": "x"}
    assert (call.child_run_id, call.role) == (child.id, types_pb2.STEP_ROLE_WORKFLOW)
    assert (call.step_name, call.context) == ("workflow:child", "done")
    place = during.current_step
    assert (place.step_name, place.run_id) == ("work", child.id)
    assert list(place.workflow_chain) == ["parent", "child"]
    events = await events_of(api, parent_id)
    begun = next(each for each in events if isinstance(each, events_pb2.ChildRunStarted))
    over = next(each for each in events if isinstance(each, events_pb2.ChildRunFinished))
    assert (begun.child_run_id, begun.workflow_name) == (child.id, "child")
    assert (begun.step_id, begun.fan_out_item_id) == (call.id, "")
    assert (over.child_run_id, over.status, over.step_id) == (child.id, COMPLETED, call.id)
    assert parent.status == COMPLETED


async def test_metrics_of_children_count_for_the_parent(api: LiveApi) -> None:
    """Time spent by workers is a sum; the run's own time is that of the clock on the wall."""
    hand = Hand(api)
    await put(api, CHILD)
    parent_id = await start(api, PARENT)
    for _ in range(2):
        spent = {"duration_ms": "90000", "cost_usd": "0.5", "input_tokens": "10"}
        await hand.do(result=types_pb2.StepResult(metadata=spent))
    parent = await ended(api, parent_id)

    assert parent.metrics.duration.ToSeconds() == 180
    assert (parent.metrics.cost_usd, parent.metrics.input_tokens) == (1.0, 20)
    assert parent.total_duration.ToSeconds() < 180


async def test_a_parent_waits_at_the_gate_of_its_child(api: LiveApi) -> None:
    """It names gate and child; answering the gate there lets both go on."""
    hand = Hand(api)
    await put(api, ASKING)
    parent_id = await start(api, ASKED)
    await hand.do()
    parent = await waiting(api, parent_id)
    blocked_on = parent.blocked_on
    child = await run_of(api, blocked_on.run_id)

    assert parent.status == child.status == types_pb2.RUN_STATUS_WAITING
    assert child.parent_workflow_run_id == parent_id
    assert blocked_on.human_review.gate_name == "check"
    assert blocked_on.gate_id == child.blocked_on.gate_id
    assert (parent.current_step.step_name, parent.current_step.run_id) == ("check", child.id)
    (call,) = await steps_of(api, parent_id)
    assert call.blocked_on.gate_id == blocked_on.gate_id
    await api.gates.ResolveGate(
        gates_pb2.ResolveGateRequest(
            gate_id=blocked_on.gate_id, decision=gates_pb2.GATE_DECISION_APPROVE
        ),
        metadata=ZOE,
    )
    assert (await ended(api, parent_id)).status == COMPLETED
    (call,) = await steps_of(api, parent_id)
    assert not call.HasField("blocked_on")


async def test_a_foreach_shows_its_items_while_they_run_and_after(api: LiveApi) -> None:
    """Counts and rows agree, page by page and in the events."""
    hand = Hand(api)
    await put(api, CHILD)
    run_id = await start(api, EACH, inputs={"names": '["ada", "bob", "eve"]'})
    first = await hand.take()
    await hand.report(first, result=types_pb2.StepResult(structured_output='{"n": 1}'))
    await hand.fail("no luck")
    await hand.do()
    run = await ended(api, run_id)
    (step,) = await steps_of(api, run_id)
    request = runs_pb2.ListFanOutItemsRequest(step_id=step.id)
    items = (await api.runs.ListFanOutItems(request)).items
    request.status = types_pb2.FAN_OUT_ITEM_STATUS_FAILED
    failed = (await api.runs.ListFanOutItems(request)).items

    assert run.status == COMPLETED
    assert [item.item_id for item in items] == ["ada", "bob", "eve"]
    assert (step.fan_out.total, step.fan_out.completed, step.fan_out.failed) == (3, 2, 1)
    (unlucky,) = failed
    assert "no luck" in unlucky.error
    children = [await run_of(api, item.child_run_id) for item in items]
    assert [child.fan_out_item_id for child in children] == [item.id for item in items]
    assert [child.inputs["name"] for child in children] == ["ada", "bob", "eve"]
    assert all(item.HasField("dispatch_time") and item.HasField("complete_time") for item in items)
    events = await events_of(api, run_id)
    collected = next(e for e in events if isinstance(e, events_pb2.FanOutItemsCollected))
    over = [e for e in events if isinstance(e, events_pb2.FanOutItemCompleted)]
    assert (collected.count, collected.step.id) == (3, step.id)
    assert kinds(events).count("FanOutItemStarted") == len(over) == 3
    assert [sum((e.counts.completed, e.counts.failed)) for e in over] == [1, 2, 3]
    begun = [e.item for e in events if isinstance(e, events_pb2.FanOutItemStarted)]
    assert {(item.id, item.child_run_id) for item in begun} == {
        (item.id, item.child_run_id) for item in items
    }


async def test_an_item_says_at_which_gate_its_child_waits(api: LiveApi) -> None:
    """All gates of a foreach can be found, not only the one that blocks the run.

    The run waits only when every child does.
    """
    hand = Hand(api)
    await put(api, ASKING)
    source = EACH.replace("workflow = child", "workflow = asking").replace(
        'inputs = { name = "{{item.id}}" }', ""
    )
    run_id = await start(api, source, inputs={"names": '["ada", "bob"]'})
    for _ in range(2):
        await hand.do()
    await waiting(api, run_id)
    (step,) = await steps_of(api, run_id)
    request = runs_pb2.ListFanOutItemsRequest(step_id=step.id)
    items = (await api.runs.ListFanOutItems(request)).items
    gates = (await api.gates.ListGates(gates_pb2.ListGatesRequest())).gates
    assert {item.blocked_on.gate_id for item in items} == {gate.id for gate in gates}
    assert {item.blocked_on.run_id for item in items} == {item.child_run_id for item in items}


async def test_a_resumed_parent_resumes_the_child_that_failed(api: LiveApi) -> None:
    """Root, depth and parent stay; the child has an epoch more, as has its parent."""
    hand = Hand(api)
    await put(api, CHILD)
    parent_id = await start(api, PARENT)
    lease = await hand.fail()
    assert (await ended(api, parent_id)).status == FAILED
    await api.runs.ResumeRun(runs_pb2.ResumeRunRequest(run_id=parent_id))
    again = await hand.do()
    await hand.do()
    parent, child = await ended(api, parent_id), await run_of(api, lease.run_id)

    assert again.run_id == lease.run_id
    assert (parent.status, parent.epoch) == (COMPLETED, 2)
    assert (child.status, child.epoch, child.depth) == (COMPLETED, 2, 1)

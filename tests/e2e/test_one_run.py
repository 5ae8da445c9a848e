"""One workflow from its start over its gate to its end, through one replica and through two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_client import ActionOutput, Actions, Client
from runkon_client.values import GateState, GateWaiting, RunStatus
from support.clusters import replicas, stored_events, working

if TYPE_CHECKING:
    from e2e.conftest import Place

    from runkon_client import Task
    from runkon_client.values import RunEvent

SOURCE = """workflow deliver {
  inputs { ticket required loud boolean }
  call plan
  if plan.ready {
    gate human_review {
      name = review
      prompt = "Ship it?"
      options = { now = "Now" later = "Later" }
    }
  }
  call ship
  always { call tell }
}"""

FEEDBACK = "now"
"""What was selected stands in for the words that came with it."""
KINDS = [
    "run_started",
    "step_started",
    "step_completed",
    "gate_waiting",
    "run_waiting",
    "gate_resolved",
    "step_completed",
    "run_unblocked",
    "step_started",
    "step_completed",
    "always_started",
    "step_started",
    "step_completed",
    "metrics_updated",
    "run_finished",
]


def cycle(seen: list[tuple[str, str, str | None]]) -> Actions:
    """The actions of the workflow; what they are given is noted down."""
    actions = Actions()

    @actions.action("plan")
    async def plan(task: Task) -> ActionOutput:
        seen.append((task.action, task.inputs["ticket"], task.gate_feedback))
        return ActionOutput(markers=("ready",), context="planned")

    @actions.fallback
    def rest(task: Task) -> None:
        seen.append((task.action, task.inputs["ticket"], task.gate_feedback))

    return actions


@pytest.mark.parametrize("count", [1, 2], ids=["one replica", "two replicas"])
async def test_a_run_goes_from_its_start_over_its_gate_to_its_end(
    database: str, count: int
) -> None:
    """Started on the first replica, followed and answered on the last, the worker on the first."""
    seen: list[tuple[str, str, str | None]] = []
    with replicas(database, count) as members:
        first, last = members[0].address, members[-1].address
        async with (
            Client(first, principal="ann") as starter,
            Client(last, principal="bob") as watcher,
            working(first, cycle(seen)),
        ):
            await starter.put_workflow(SOURCE)
            run = await starter.start_run("deliver", inputs={"ticket": "T-1"})
            events: list[RunEvent] = []
            async for event in watcher.run(run.id).events():
                events.append(event)
                if isinstance(event, GateWaiting):
                    assert event.gate.prompt == "Ship it?"
                    gate = await watcher.gate(event.gate.id).approve("go on", selections=["now"])
                    assert (gate.state, gate.resolved_by) == (GateState.APPROVED, "bob")
            ended = await starter.run(run.id).wait()
            histories = [await stored_events(each.address, run.id) for each in members]

    assert ended.status is RunStatus.COMPLETED
    assert [event.kind.value for event in events] == KINDS
    assert [event.seq for event in events] == [*range(1, ended.last_seq + 1)]
    assert len(histories[0]) == ended.last_seq
    assert histories == [histories[0]] * count
    assert seen == [("plan", "T-1", None), ("ship", "T-1", FEEDBACK), ("tell", "T-1", FEEDBACK)]


async def test_a_dry_run_approves_its_gates_and_tells_the_workers(
    client: Client, place: Place
) -> None:
    """Nobody answers the gate, and every task knows that nothing may be changed."""
    dry: list[bool] = []
    actions = Actions()

    @actions.fallback
    def note(task: Task) -> ActionOutput:
        dry.append(task.dry_run)
        return ActionOutput(markers=("ready",))

    async with working(place.address, actions, namespace=place.namespace):
        run = await client.start_run(source=SOURCE, inputs={"ticket": "T-1"}, dry_run=True)
        ended = await run.wait()

    assert (ended.status, ended.dry_run) == (RunStatus.COMPLETED, True)
    assert dry == [True, True, True]


async def test_validation_alone_makes_nothing(client: Client) -> None:
    """The answer shows the run as it would be; none is there afterwards."""
    shown = await client.validate_run(source=SOURCE, inputs={"ticket": "T-1"})

    assert (shown.id, shown.workflow_name) == ("", "deliver")
    assert shown.inputs == {"ticket": "T-1", "loud": "false"}
    assert [run async for run in client.list_runs()] == []

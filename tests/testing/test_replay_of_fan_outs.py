"""Recording and replaying runs with `foreach`: items, their child runs, what stops them."""

from __future__ import annotations

import asyncio
import json

import pytest

from runkon_client import ActionOutput, Actions, Client, Task, Worker
from runkon_client.testing import LocalServer, Recording, record, replay
from runkon_client.values import RunStatus
from runkon_client.worker import FinalError, Item, ItemsTask
from testing.workers import working

TICKET = """workflow ticket {
  inputs { id required  title default = "" }
  call plan
  if plan.unclear { gate human_review { } }
  call workflow publish { inputs { id = "{{id}}" } }
}
"""
PUBLISH = "workflow publish { inputs { id required } call push { retries = 2 } }"
SPRINT = """workflow sprint {
  foreach each-ticket {
    over = tickets
    max_parallel = 4
    workflow = ticket
    scope = { project = core }
    inputs = { id = "{{item.id}}" title = "{{item.title}}" }
    ordered = true
  }
  foreach each-note {
    over = list
    max_parallel = 2
    workflow = note
    scope = { items = "[\\"n1\\", {\\"id\\": \\"n2\\"}]" }
    inputs = { id = "{{item.id}}" }
  }
  foreach each-past {
    over = workflow_runs
    max_parallel = 2
    workflow = note
    filter = { status = completed workflow = earlier }
    inputs = { id = "past" }
  }
}
"""
NOTE = "workflow note { inputs { id required } call write }"


def sprint_actions() -> Actions:
    """Answers that differ from item to item."""
    actions = Actions()

    @actions.items("tickets")
    def tickets(task: ItemsTask) -> list[Item]:
        assert task.scope == {"project": "core"}
        return [
            Item(id="A-1", type="bug", context={"title": "one"}),
            Item(id="A-2", context={"title": "two"}, depends_on=("A-1",)),
            Item(id="A-3", ref="the third", context={"title": "three"}),
        ]

    @actions.action("plan")
    def plan(task: Task) -> ActionOutput:
        name = task.inputs["id"]
        return ActionOutput(
            markers=("unclear",) if name == "A-2" else (), context=f"plan of {name}"
        )

    @actions.action("push")
    def push(task: Task) -> str:
        if task.inputs["id"] == "A-3":
            raise FinalError("no such branch", code="NO_BRANCH")
        if task.attempt == 0:
            raise RuntimeError("try once more")
        return f"pushed {task.inputs['id']}"

    @actions.fallback
    def other(task: Task) -> str:
        return f"{task.action} {task.inputs['id']}"

    return actions


async def sprint(server: LocalServer) -> Recording:
    namespace = server.new_namespace()
    worker = Worker(server.address, namespace=namespace, actions=sprint_actions())
    async with Client(server.address, namespace=namespace) as client, working(worker):
        for source in (TICKET, PUBLISH, NOTE, SPRINT, "workflow earlier { }"):
            await client.put_workflow(source)
        await (await client.start_run("earlier")).wait()
        run = await client.start_run("sprint")
        async for listed in client.gates.watch():
            await listed.approve("fine")
            break
        ended = await run.wait()
        assert ended.status is RunStatus.COMPLETED, ended.error
        return await record(client, run.id)


@pytest.fixture(scope="module")
def recording(server: LocalServer) -> Recording:
    """Of one run for all tests that replay it."""
    return asyncio.run(sprint(server))


async def test_a_run_with_foreach_is_replayed(server: LocalServer, recording: Recording) -> None:
    """Items of workers' providers and of the server's, by type and order, each with its child."""
    outcome = await replay(Recording.from_json(recording.to_json()), server)

    assert (outcome.run.status, outcome.differences) == (RunStatus.COMPLETED, ())
    assert {(item.step, item.id, item.status) for item in recording.items} >= {
        ("foreach:each-ticket", "A-2", "completed"),
        ("foreach:each-ticket", "A-3", "failed"),
        ("foreach:each-note", "n2", "completed"),
    }
    assert sum(item.step == "foreach:each-past" for item in recording.items) == 1


async def test_a_workers_changed_answer_is_named(server: LocalServer, recording: Recording) -> None:
    """Of one item's child and of the provider: the step and the item are in the difference."""
    today = Actions()

    @today.action("write")
    def write(task: Task) -> str:
        return "wrote something else" if task.inputs["id"] == "n2" else f"write {task.inputs['id']}"

    @today.items("tickets")
    def tickets(_: ItemsTask) -> list[Item]:
        given = [item for item in recording.items if item.step == "foreach:each-ticket"]
        return [
            Item(id=item.id, type=item.type, ref=item.ref, context=item.context)
            for item in given
            if item.id != "A-1"
        ]

    outcome = await replay(recording, server, actions=today)

    changed = [line for line in outcome.differences if line[:1] in "+-"]
    assert any(
        line.startswith("+note foreach:each-note/n2: write ") and "something else" in line
        for line in changed
    )
    assert not any("each-note/n1" in line for line in changed)
    assert any(line.startswith("-ticket foreach:each-ticket/bug:A-1: plan") for line in changed)
    assert any(line.startswith("-sprint: foreach:each-ticket item bug:A-1") for line in changed)


async def test_what_a_failed_item_stopped_is_stopped_in_the_replay(server: LocalServer) -> None:
    """With `halt`: one item had completed, one was at work and cancelled, one was never begun."""
    source = """workflow all {
      foreach each { over = things max_parallel = 2 workflow = one
        inputs = { id = "{{item.id}}" } on_child_fail = halt }
    }"""
    actions, is_at_work = Actions(), asyncio.Event()

    @actions.items("things")
    def things(_: ItemsTask) -> list[Item]:
        return [Item(id=name) for name in ("quick", "bad", "slow", "never")]

    @actions.action("work")
    async def work(task: Task) -> str:
        match task.inputs["id"]:
            case "bad":
                await is_at_work.wait()
                raise FinalError("broken")
            case "slow":
                is_at_work.set()
                await asyncio.Event().wait()
            case _:
                pass
        return "done"

    namespace = server.new_namespace()
    worker = Worker(server.address, namespace=namespace, actions=actions)
    async with Client(server.address, namespace=namespace) as client, working(worker):
        await client.put_workflow("workflow one { inputs { id required } call work }")
        await client.put_workflow(source)
        run = await client.start_run("all")
        await run.wait()
        recording = await record(client, run.id)

    statuses = {item.id: item.status for item in recording.items}
    outcomes = [await replay(recording, server) for _ in range(2)]

    assert statuses["quick"] == "completed"
    assert statuses["bad"] == "failed"
    assert [(outcome.run.status, outcome.differences) for outcome in outcomes] == [
        (RunStatus.FAILED, ())
    ] * 2


async def test_a_provider_that_failed_fails_in_the_replay(server: LocalServer) -> None:
    actions = Actions()

    @actions.items("things")
    def things(_: ItemsTask) -> list[Item]:
        raise FinalError("no things today")

    namespace = server.new_namespace()
    worker = Worker(server.address, namespace=namespace, actions=actions)
    async with Client(server.address, namespace=namespace) as client, working(worker):
        await client.put_workflow("workflow one { }")
        await client.put_workflow(
            "workflow all { foreach each { over = things max_parallel = 2 workflow = one } }"
        )
        run = await client.start_run("all")
        await run.wait()
        recording = await record(client, run.id)
    outcome = await replay(recording, server)

    assert (outcome.run.status, outcome.differences) == (RunStatus.FAILED, ())


async def test_a_recording_without_foreach_of_before_is_read(server: LocalServer) -> None:
    """Version 1 knew neither items nor what is above a run."""
    namespace = server.new_namespace()
    async with Client(server.address, namespace=namespace) as client:
        await client.put_workflow("workflow w { gate human_review { } }")
        run = await client.start_run("w")
        await run.gate("human_review").approve()
        await run.wait()
        values = json.loads((await record(client, run.id)).to_json())
    del values["items"]
    for each in values["steps"] + values["gates"]:
        del each["above"]
    outcome = await replay(Recording.from_json(json.dumps(values | {"version": 1})), server)

    assert (outcome.run.status, outcome.differences) == (RunStatus.COMPLETED, ())

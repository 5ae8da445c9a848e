"""`runkon_client.testing`: a real server with a clock that tests move."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from runkon_client import ActionOutput, Actions, Client, SyncClient, Task, Worker
from runkon_client.testing import (
    LocalServer,
    Recording,
    RecordingError,
    local_server,
    record,
    replay,
)
from runkon_client.values import GateWaiting, RunStatus, StepRetrying
from runkon_server.api.streaming import Streaming
from runkon_server.cli.local import LocalServerFailedError
from support.waiting import wait_until
from testing.workers import working


def test_a_gate_of_thirty_days_takes_no_time(server: LocalServer) -> None:
    with SyncClient(server.address, namespace=server.new_namespace()) as client:
        before = server.now()
        run = client.start_run(
            source='workflow w { gate human_review { timeout = "720h" on_timeout = continue } }'
        )
        run.gate("human_review").get()
        server.skip(timedelta(days=30, seconds=1))
        ended = run.wait()

        assert ended.status is RunStatus.COMPLETED
        assert timedelta(days=30) < server.now() - before < timedelta(days=30, minutes=5)
        assert ended.ended_at is not None
        assert ended.started_at is not None
        assert ended.ended_at - ended.started_at > timedelta(days=30)


def test_the_clock_is_not_turned_back(server: LocalServer) -> None:
    with pytest.raises(ValueError, match="turned back"):
        server.skip(timedelta(seconds=-1))


async def test_a_task_in_hand_survives_the_skip(server: LocalServer) -> None:
    """Its worker is as alive as before, so nobody else gets it."""
    actions, deliveries = Actions(), []

    @actions.action("slow")
    def slow(task: Task) -> str:
        deliveries.append(task.delivery)
        server.skip(timedelta(hours=5))
        time.sleep(0.3)
        return "done"

    namespace = server.new_namespace()
    worker = Worker(server.address, namespace=namespace, actions=actions)
    async with Client(server.address, namespace=namespace) as client, working(worker):
        run = await client.start_run(source="workflow w { call slow }")
        ended = await run.wait()

    assert (ended.status, deliveries) == (RunStatus.COMPLETED, [0])


TICKET = """workflow ticket {
  inputs { id required }
  call plan { retries = 1 retry_delay = "2m" }
  do { max_iterations = 3 call review } while review.needs_work
  gate human_review { timeout = "48h" options = [merge, drop] }
  call workflow publish { inputs { id = "{{id}}" } }
  gate human_approval { timeout = "1h" on_timeout = continue }
}
"""


async def recorded(server: LocalServer) -> Recording:
    """A run with a retry, a loop, gates that are decided and one that is not, and a child."""
    actions, plans = Actions(), []

    @actions.action("plan")
    def plan(task: Task) -> str:
        plans.append(task.attempt)
        if task.attempt == 0:
            raise RuntimeError("no idea")
        server.skip(timedelta(minutes=0))
        return "the plan"

    @actions.action("review")
    def review(task: Task) -> ActionOutput:
        return ActionOutput(markers=("needs_work",) if task.iteration == 0 else ())

    @actions.fallback
    def other(_: Task) -> str:
        return "ok"

    namespace = server.new_namespace()
    worker = Worker(server.address, namespace=namespace, actions=actions)
    async with Client(server.address, namespace=namespace) as client, working(worker):
        await client.put_workflow("workflow publish { inputs { id required } call push }")
        await client.put_workflow(TICKET)
        run = await client.start_run("ticket", inputs={"id": "T-1"})
        async for event in run.events():
            match event:
                case StepRetrying():
                    server.skip(timedelta(minutes=3))
                case GateWaiting(gate=gate) if gate.name == "human_review":
                    await run.gate("human_review").approve("fine", selections=["merge"])
                case GateWaiting():
                    server.skip(timedelta(hours=2))
                case _:
                    pass
        return await record(client, run.id)


async def test_a_recorded_run_is_replayed_and_compared(server: LocalServer) -> None:
    """The same definitions give the same; another one shows where it goes another way."""
    recording = Recording.from_json((await recorded(server)).to_json())
    same = await replay(recording, server)
    shorter = TICKET.replace("max_iterations = 3", "max_iterations = 1 on_max_iter = continue")
    other = await replay(recording, server, sources={"ticket": shorter})
    longer = TICKET.replace("  call plan {", "  call scout\n  call plan {")
    unknown = await replay(recording, server, sources={"ticket": longer})

    assert recording.status == "completed"
    assert (same.run.status, same.differences) == (RunStatus.COMPLETED, ())
    assert other.run.status is RunStatus.COMPLETED
    assert [line for line in other.differences if line[:2] == "-t"] == [
        "-ticket: review[1] completed"
    ]
    assert unknown.run.status is RunStatus.FAILED
    assert "+ticket: scout failed" in unknown.differences


async def test_what_cannot_be_recorded_is_refused(server: LocalServer) -> None:
    async with Client(server.address, namespace=server.new_namespace()) as client:
        run = await client.start_run(source="workflow w { gate human_review { } }")
        with pytest.raises(RecordingError, match="not ended"):
            await record(client, run.id)
        await run.gate("human_review").approve()
        await run.wait()
        with pytest.raises(RecordingError, match="source of its own"):
            await record(client, run.id)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ("[]", "not a recording"),
        ("{}", "it has no 'version'"),
        ('{"version": 2}', "not a recording"),
        ('{"version": 1}', "it has no 'workflow'"),
    ],
)
def test_a_text_that_is_no_recording_is_refused(text: str, why: str) -> None:
    with pytest.raises(RecordingError, match=why):
        Recording.from_json(text)


def test_a_part_of_the_server_that_fails_is_told_to_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To whatever asks next, and at the end."""

    async def follow(*_: object) -> None:
        await asyncio.sleep(0.1)
        raise OSError("the events cannot be followed")

    monkeypatch.setattr(Streaming, "follow", follow)
    server = local_server().__enter__()
    wait_until(lambda: is_refused(server), "the server has noticed")
    with pytest.raises(LocalServerFailedError, match="cannot be followed"):
        server.skip(timedelta(seconds=1))
    with pytest.raises(LocalServerFailedError, match="cannot be followed") as ended:
        server.stop()
    assert isinstance(ended.value.__cause__, OSError)


def is_refused(server: LocalServer) -> bool:
    try:
        server.now()
    except LocalServerFailedError:
        return True
    return False

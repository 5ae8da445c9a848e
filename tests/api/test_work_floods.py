"""Many reports at once, and tasks of many bytes: neither holds the replica up, nor the worker.

The engine's sessions are scripted.
"""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from runkon.v1 import types_pb2, workers_pb2, workers_pb2_grpc
from runkon_server.api.workers import WorkerService
from runkon_server.core.facts import Reported
from runkon_server.runtime.commands import ACCEPTED, ReportAck
from support.replicas import TASK, FakeReplica, FakeSession, lease, read, serving
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

HELLO = workers_pb2.WorkerHello(worker_id="w-1", actions=["plan"], concurrency=4)
REPORT = workers_pb2.TaskReport(task_id=TASK, token="t", result=types_pb2.StepResult())


class Bench:
    """A served WorkerService and the engine behind it."""

    def __init__(self, replica: FakeReplica, stub: workers_pb2_grpc.WorkerServiceAsyncStub) -> None:
        self.replica = replica
        self.stub = stub

    async def open(self) -> tuple[Any, FakeSession]:
        """A stream that has been welcomed, and its session."""
        call = self.stub.Work()
        await call.write(workers_pb2.WorkRequest(hello=HELLO))
        assert (await read(call)).HasField("welcome")
        return call, self.replica.sessions[-1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    replica = FakeReplica()
    service = WorkerService(replica)

    def add(server: grpc.aio.Server) -> None:
        workers_pb2_grpc.add_WorkerServiceServicer_to_server(service, server)

    async with serving(add) as channel:
        yield Bench(replica, workers_pb2_grpc.WorkerServiceStub(channel))


async def test_a_frame_of_many_reports_lets_others_go_on_in_its_midst(bench: Bench) -> None:
    """Between any two portions of it the event loop comes round."""
    call, session = await bench.open()
    ticking = asyncio.create_task(_tick(session))

    await call.write(workers_pb2.WorkRequest(reports=[REPORT] * 5_000))
    await eventually(lambda: _is_told(session, 5_000), "all reports")
    ticking.cancel()

    told = [kind for kind, group in groupby(session.heard, key=lambda word: word[0])]
    assert told.count("report") == len(session.told("report"))
    assert max(map(len, session.told("report"))) < 500


async def test_a_frame_of_more_reports_than_may_be_unanswered_waits_in_its_midst(
    bench: Bench,
) -> None:
    """What is not read yet takes no memory but the frame's; the rest follows with the answers."""
    call, session = await bench.open()
    ack = ReportAck(task_id=REPORT.task_id, token=REPORT.token, verdict=ACCEPTED)

    await call.write(workers_pb2.WorkRequest(reports=[REPORT] * 30_000))
    await eventually(lambda: _is_told(session, 10_000), "as many as may be unanswered")
    await call.write(workers_pb2.WorkRequest(credit=1))
    assert sum(map(len, session.told("report"))) < 11_000
    while not await _is_told(session, 30_000):
        session.put(acks=[ack] * 5_000)
        await read(call)

    await heard(session, "credit")


async def test_refusals_of_a_flood_come_in_frames_that_fit(bench: Bench) -> None:
    """A report of two bytes gets an answer of 160; 60,000 of them would fit no message."""
    call, _ = await bench.open()
    await call.write(workers_pb2.WorkRequest(reports=[workers_pb2.TaskReport()] * 60_000))

    answered = 0
    while answered < 60_000:
        frame = await read(call)
        assert frame.ByteSize() <= 1024 * 1024
        assert all(ack.status == workers_pb2.ACK_STATUS_REFUSED for ack in frame.acks)
        answered += len(frame.acks)


async def test_poll_tasks_answers_with_what_fits_a_message(bench: Bench) -> None:
    """Ten leases of 1 MB: four come. An answer that cannot be sent would lose all, each time."""
    bench.replica.poll_answer = [
        lease(f"{TASK}{n}", inputs={"x": "y" * 1_000_000}) for n in range(10)
    ]

    answer = await bench.stub.PollTasks(
        workers_pb2.PollTasksRequest(worker_id="w", actions=["*"], max_tasks=10)
    )

    assert [each.task_id for each in answer.leases] == [f"{TASK}{n}" for n in range(4)]
    assert not bench.replica.reports


async def test_poll_tasks_fails_the_step_of_a_lease_too_heavy_for_a_message(bench: Bench) -> None:
    """As the stream does; the worker gets the others."""
    bench.replica.poll_answer = [lease(inputs={"x": "y" * 5_000_000}), lease(f"{TASK}1")]

    answer = await bench.stub.PollTasks(
        workers_pb2.PollTasksRequest(worker_id="w", actions=["*"], max_tasks=2)
    )

    ((_, told),) = bench.replica.reports
    assert [each.task_id for each in answer.leases] == [f"{TASK}1"]
    assert isinstance(told.fact, Reported)
    assert (told.fact.task_id, told.fact.error_code) == (TASK, "INPUT_LIMIT")


async def _tick(session: FakeSession) -> None:
    while True:
        session.heard.append(("tick", None))
        await asyncio.sleep(0)


async def _is_told(session: FakeSession, count: int) -> bool:
    return sum(map(len, session.told("report"))) >= count


async def heard(session: FakeSession, what: str) -> None:
    async def is_there() -> bool:
        return bool(session.told(what))

    await eventually(is_there, what)

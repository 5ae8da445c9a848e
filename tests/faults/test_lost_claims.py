"""PostgreSQL crashes before a claim is on the disk: its worker has lost its lease, no more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc
import pytest

from runkon.v1 import types_pb2, workers_pb2, workers_pb2_grpc
from runkon_client import Client
from runkon_client.values import RunStatus
from runkon_server.store.claiming import Claimant, claim_tasks, open_claims
from support.clusters import ONCE, replicas, rows
from support.postmasters import IMMEDIATE
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.store.claiming import ClaimedTask
    from support.postmasters import Postmaster

pytestmark = pytest.mark.faults

SOURCE: Final = "workflow w { call work }"
TASK: Final = "SELECT state, token, delivery FROM tasks"


async def queued_run(database: str) -> str:
    """A run whose task waits for a worker; the replica that has started it is gone."""
    with replicas(database) as (one,):
        async with Client(one.address, retry=ONCE) as client:
            run = await client.start_run(source=SOURCE)

            async def waits() -> bool:
                return await asyncio.to_thread(rows, database, TASK) == [("queued", None, 0)]

            await eventually(waits, "the task is queued")
            return run.id


async def claim(database: str) -> ClaimedTask:
    """Lease the task to a worker, as a replica does."""
    session = await open_claims(database, 3.0)
    try:
        (task,) = await claim_tasks(
            session,
            "action",
            Claimant("default", "first", [""]),
            names=["work"],
            fallback=False,
            named=(),
            limit=1,
            ttl_s=30.0,
        )
    finally:
        await session.close()
    return task


def succeeded(task_id: str, token: str) -> workers_pb2.ReportTaskRequest:
    """The report of a task that went well."""
    report = workers_pb2.TaskReport(task_id=task_id, token=token, result=types_pb2.StepResult())
    return workers_pb2.ReportTaskRequest(report=report)


def heartbeat(task_id: str, token: str) -> workers_pb2.HeartbeatTaskRequest:
    """A sign of life of whoever works on a task."""
    beat = workers_pb2.TaskHeartbeat(task_id=task_id, token=token)
    return workers_pb2.HeartbeatTaskRequest(heartbeat=beat)


async def test_9_s13_of_two_workers_of_a_claim_that_was_lost_one_is_heard(
    postmaster: Postmaster, database: str
) -> None:
    """The next claim has a token of its own and no lower fence; the first worker is told to stop.

    The server writes its log for such commits every ten seconds from its start on, so that what a
    crash takes back is known.
    """
    run_id = await queued_run(database)
    postmaster.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    try:
        await asyncio.to_thread(postmaster.restart, IMMEDIATE)
        lost = await claim(database)
        await asyncio.to_thread(postmaster.restart, IMMEDIATE)
    finally:
        postmaster.execute("ALTER SYSTEM RESET wal_writer_delay")
        postmaster.execute("SELECT pg_reload_conf()")
    assert rows(database, TASK) == [("queued", None, 0)]

    again = await claim(database)

    assert again.id == lost.id
    assert again.token != lost.token
    assert again.fence >= lost.fence
    with replicas(database) as (one,):
        async with (
            Client(one.address) as client,
            grpc.aio.insecure_channel(one.address) as channel,
        ):
            worker = workers_pb2_grpc.WorkerServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await worker.HeartbeatTask(heartbeat(lost.id, lost.token))
            assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await worker.ReportTask(succeeded(lost.id, lost.token))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            await worker.HeartbeatTask(heartbeat(again.id, again.token))
            await worker.ReportTask(succeeded(again.id, again.token))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await worker.ReportTask(succeeded(lost.id, lost.token))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            ended = await client.run(run_id).wait()
    assert ended.status is RunStatus.COMPLETED
    done = "SELECT count(*) FROM run_events WHERE kind = 'step_completed'"
    assert rows(database, done) == [(1,)]

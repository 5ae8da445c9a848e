"""Workers that tell what they have in hand: what is on its way when a replica ends comes at once.

Two replicas on one database; leases would last far longer than any test waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import types_pb2, workers_pb2
from runkon_server.runtime.commands import WorkerHello
from runkon_server.store.sessions import worker_of
from support.engines import rogue_on
from support.live_api import live_api, refusal
from support.live_work import ended, run_of, start, steps_of
from support.replicas import read
from support.waiting import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from support.engines import Rogue
    from support.live_api import LiveApi

LEASE_S = 600.0
SOURCE = "workflow w { call build }"


@pytest_asyncio.fixture
async def two(database: str) -> AsyncIterator[tuple[LiveApi, LiveApi]]:
    """Two replicas."""
    async with (
        live_api(database, task_lease_s=LEASE_S) as first,
        live_api(database, task_lease_s=LEASE_S) as second,
    ):
        yield first, second


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside them."""
    async with rogue_on(database) as session:
        yield session


@contextlib.asynccontextmanager
async def working(
    api: LiveApi,
    *,
    tokens: Sequence[str] = (),
    tells: bool = True,
    reports: Sequence[workers_pb2.TaskReport] = (),
) -> AsyncIterator[Any]:
    """A stream of the worker `w`, past the welcome, with room for one task."""
    call: Any = api.workers.Work()
    hello = workers_pb2.WorkerHello(
        worker_id="w",
        actions=["build"],
        concurrency=4,
        tells_in_hand=tells,
        tokens_in_hand=tokens,
    )
    await call.write(workers_pb2.WorkRequest(hello=hello, credit=1, reports=reports))
    assert (await read(call)).HasField("welcome")
    try:
        yield call
    finally:
        call.cancel()


async def leased(call: Any) -> workers_pb2.TaskLease:
    """The task of the next frame."""
    frame: workers_pb2.WorkResponse = await read(call)
    (lease,) = frame.leases
    return lease


def done(task_id: str, token: str) -> workers_pb2.TaskReport:
    """It ended well."""
    return workers_pb2.TaskReport(task_id=task_id, token=token, result=types_pb2.StepResult())


async def acked(call: Any) -> workers_pb2.AckStatus.ValueType:
    """What became of a report."""
    frame: workers_pb2.WorkResponse = await read(call)
    (ack,) = frame.acks
    return ack.status


async def lost_on_its_way(api: LiveApi, rogue: Rogue) -> tuple[str, dict[str, Any]]:
    """The id of a run, and its task: leased to `w` by a replica that sends nothing any more."""
    hello = WorkerHello(namespace="default", worker_id="w", actions=frozenset({"build"}))
    api.engine.open_session(hello, lambda: None).add_credit(1)
    run_id = await start(api, SOURCE)
    find = "SELECT * FROM tasks WHERE run_id = %s AND state = 'leased'"
    # It may have gone through the queue.
    await eventually(lambda: rogue.rows(find, run_id), "the task is leased")
    task = await rogue.row(find, run_id)
    assert task["worker_id"] == "w"
    return run_id, task


async def test_a_task_that_never_arrived_is_delivered_when_its_worker_connects_again(
    two: tuple[LiveApi, LiveApi], rogue: Rogue
) -> None:
    """To another replica. It counts as a delivery, and a report under the old token is stale."""
    first, second = two
    run_id, lost = await lost_on_its_way(first, rogue)
    async with working(second) as call:
        lease = await leased(call)

        assert (lease.run_id, lease.delivery) == (run_id, 1)
        assert lease.token != lost["token"]
        reports = [done(lost["id"], lost["token"])]
        await call.write(workers_pb2.WorkRequest(reports=reports))
        assert await acked(call) == workers_pb2.ACK_STATUS_STALE
        await call.write(workers_pb2.WorkRequest(reports=[done(lease.task_id, lease.token)]))
        assert await acked(call) == workers_pb2.ACK_STATUS_ACCEPTED
    assert (await ended(second, run_id)).status == types_pb2.RUN_STATUS_COMPLETED


async def test_a_worker_that_does_not_tell_waits_for_the_lease(
    two: tuple[LiveApi, LiveApi], rogue: Rogue
) -> None:
    """As those written before: the next task it is given is another one."""
    first, second = two
    _, lost = await lost_on_its_way(first, rogue)
    async with working(second, tells=False) as call:
        other = await start(second, SOURCE)

        assert (await leased(call)).run_id == other
    task = await rogue.row("SELECT * FROM tasks WHERE id = %s", lost["id"])
    assert (task["token"], task["delivery"]) == (lost["token"], 0)


async def test_a_task_in_hand_is_not_delivered_again_and_its_lease_begins_anew(
    two: tuple[LiveApi, LiveApi], rogue: Rogue
) -> None:
    """The next task it is given is another one; the first is reported on the new stream."""
    first, second = two
    run_id = await start(first, SOURCE)
    async with working(first) as call:
        had = await leased(call)
    await rogue.rows("UPDATE tasks SET lease_until = now() + interval '5 min'")
    async with working(second, tokens=[had.token]) as call:
        other = await start(second, SOURCE)

        assert (await leased(call)).run_id == other
        task = await rogue.row(
            "SELECT *, lease_until > now() + interval '9 min' AS is_extended FROM tasks"
            " WHERE id = %s",
            had.task_id,
        )
        assert (task["token"], task["delivery"], task["is_extended"]) == (had.token, 0, True)
        await call.write(workers_pb2.WorkRequest(reports=[done(had.task_id, had.token)]))
        assert await acked(call) == workers_pb2.ACK_STATUS_ACCEPTED
    assert (await ended(second, run_id)).status == types_pb2.RUN_STATUS_COMPLETED


async def test_a_report_without_an_answer_at_the_break_is_accepted_once(
    two: tuple[LiveApi, LiveApi],
) -> None:
    """Recorded by the one replica, whose ack is lost, and a duplicate to the other."""
    first, second = two
    run_id = await start(first, SOURCE)
    async with working(first) as call:
        lease = await leased(call)
        report = done(lease.task_id, lease.token)
        await call.write(workers_pb2.WorkRequest(reports=[report]))
        await ended(first, run_id)
    async with working(second, tokens=[lease.token], reports=[report]) as call:
        assert await acked(call) == workers_pb2.ACK_STATUS_DUPLICATE
    (step,) = await steps_of(second, run_id)
    assert step.status == types_pb2.STEP_STATUS_COMPLETED


async def test_a_report_that_was_never_received_comes_with_the_next_hello(
    two: tuple[LiveApi, LiveApi],
) -> None:
    """Its task is in hand until the ack, so it is not taken back."""
    first, second = two
    run_id = await start(first, SOURCE)
    async with working(first) as call:
        lease = await leased(call)
    report = done(lease.task_id, lease.token)
    async with working(second, tokens=[lease.token], reports=[report]) as call:
        assert await acked(call) == workers_pb2.ACK_STATUS_ACCEPTED
    assert (await ended(second, run_id)).status == types_pb2.RUN_STATUS_COMPLETED


async def test_a_worker_that_comes_again_ends_its_older_stream(
    two: tuple[LiveApi, LiveApi],
) -> None:
    """To the same replica; else that stream would be given what it never receives."""
    first, _ = two
    async with working(first) as older, working(first) as newer:
        refused = await refusal(read(older))
        run_id = await start(first, SOURCE)

        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert (await leased(newer)).run_id == run_id


async def polled(api: LiveApi, *, wait_s: int = 10, **fields: Any) -> list[workers_pb2.TaskLease]:
    """What one poll of the worker `w` brings."""
    request = workers_pb2.PollTasksRequest(
        worker_id="w", actions=["build"], max_tasks=10, wait=Duration(seconds=wait_s), **fields
    )
    return list((await api.workers.PollTasks(request)).leases)


async def test_the_tasks_of_a_lost_answer_come_with_the_next_poll(
    two: tuple[LiveApi, LiveApi], rogue: Rogue
) -> None:
    """One task is told and stays; the other was leased, but its answer never arrived."""
    first, second = two
    await start(first, SOURCE)
    (had,) = await polled(first)
    await rogue.rows("UPDATE tasks SET lease_until = now() + interval '5 min'")
    run_id, lost = await lost_on_its_way(first, rogue)

    (lease,) = await polled(second, tells_in_hand=True, tokens_in_hand=[had.token])

    assert (lease.run_id, lease.delivery) == (run_id, 1)
    assert lease.token != lost["token"]
    kept = await rogue.row(
        "SELECT token, lease_until > now() + interval '9 min' AS is_extended FROM tasks"
        " WHERE id = %s",
        had.task_id,
    )
    assert (kept["token"], kept["is_extended"]) == (had.token, True)


async def test_a_poll_that_does_not_wait_takes_back_what_its_worker_lacks(
    two: tuple[LiveApi, LiveApi], rogue: Rogue
) -> None:
    """Then another worker may have it; a poll that does not tell leaves it alone."""
    first, second = two
    _, lost = await lost_on_its_way(first, rogue)
    find = "SELECT token, state FROM tasks WHERE id = %s"
    assert await polled(second, wait_s=0) == []
    assert (await rogue.row(find, lost["id"]))["token"] == lost["token"]

    await polled(second, wait_s=0, tells_in_hand=True)

    assert (await rogue.row(find, lost["id"]))["token"] != lost["token"]


async def test_an_older_poll_of_a_worker_that_tells_answers_at_once(
    two: tuple[LiveApi, LiveApi],
) -> None:
    """Else it would be given tasks that the newer one would take back."""
    first, _ = two
    stats = first.engine.stats
    before = stats.workers_connected
    older = asyncio.create_task(polled(first, wait_s=50, tells_in_hand=True))
    await until(lambda: stats.workers_connected > before, "the older one waits")
    newer = asyncio.create_task(polled(first, wait_s=50, tells_in_hand=True))

    assert await asyncio.wait_for(older, 60) == []
    run_id = await start(first, SOURCE)
    (lease,) = await asyncio.wait_for(newer, 60)
    assert lease.run_id == run_id


async def test_too_long_a_token_in_hand_is_refused_by_the_poll_too(
    two: tuple[LiveApi, LiveApi],
) -> None:
    refused = await refusal(polled(two[0], tells_in_hand=True, tokens_in_hand=["x" * 257]))

    assert (refused.code, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["tokens_in_hand[0]"],
    )


async def test_what_a_dead_replica_executed_itself_is_executed_by_another(
    database: str, rogue: Rogue
) -> None:
    """`sleep` bears the token of its replica; the run is parked, so nobody owns it."""
    async with live_api(database, task_lease_s=LEASE_S, linger_s=0.1, settle_s=0.2) as api:
        run_id = await start(
            api, "workflow w { inputs { seconds required } call sleep }", inputs={"seconds": "3600"}
        )
        await rogue.parked(run_id)
        task = await rogue.row("SELECT * FROM tasks")
        assert task["worker_id"] == worker_of(api.engine.tenure.token)

        await rogue.rows(
            "UPDATE tasks SET worker_id = %s, token = 'another', payload ="
            " replace(payload, '3600', '0')",
            worker_of("ghost"),
        )

        async def is_completed() -> bool:
            return (await run_of(api, run_id)).status == types_pb2.RUN_STATUS_COMPLETED

        await eventually(is_completed, "the run goes on")
        assert (await rogue.row("SELECT * FROM tasks"))["delivery"] == 1


async def test_a_worker_cannot_take_the_name_of_the_server(two: tuple[LiveApi, LiveApi]) -> None:
    """Its tasks would be taken back at once."""
    call: Any = two[0].workers.Work()
    hello = workers_pb2.WorkerHello(worker_id=worker_of("me"), actions=["build"], concurrency=1)
    await call.write(workers_pb2.WorkRequest(hello=hello))

    refused = await refusal(read(call))
    assert (refused.code, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["hello.worker_id"],
    )

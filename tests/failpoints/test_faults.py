"""Faults of the reliability catalogue that need a point to strike at, by their numbers there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from runkon_client import Actions, Client
from runkon_client.values import RunStatus
from runkon_server import errors, failpoints
from runkon_server.runtime.commands import AckStatus, CancelRun
from support.clusters import replicas, rows, working
from support.engines import NAMESPACE, SHORT, Worker, engine_on, rogue_on, start, until, vote
from support.live_api import live_api

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

RUNS: Final = 24
GATED: Final = """
    parallel { call build call echo }
    gate human_approval { name = "check" }
    call build { retries = 1 }"""


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    """No test leaves a point armed."""
    yield
    failpoints.disarm()


async def play(engine: Engine, rogue: Rogue, number: int, at_once: asyncio.Semaphore) -> str:
    """Start a run and approve its gate, both until they are answered; gives its id."""
    async with at_once:  # many at once would be few batches
        return await _play(engine, rogue, number)


async def _play(engine: Engine, rogue: Rogue, number: int) -> str:
    while True:
        with contextlib.suppress(errors.UnavailableError, errors.ConflictError):
            run_id = (await engine.start_run(start(GATED, request_id=f"start-{number}"))).run_id
            break

    async def is_waiting() -> bool:
        return bool((await rogue.run(run_id))["status"] == "waiting")

    while not await is_waiting():  # noqa: ASYNC110 - the database is asked, it has no event
        await asyncio.sleep(0.02)
    while True:
        with contextlib.suppress(errors.UnavailableError, errors.ConflictError):
            await engine.resolve_gate(vote(run_id, "somebody", request_id=f"vote-{number}"))
            return run_id


async def check_many(database: str, armed: str) -> Engine:
    """Play many runs with points armed: all complete, everything was done once."""
    async with rogue_on(database) as rogue, engine_on(database, task_lease_s=2.0) as engine:
        Worker(engine, "build").serve(RUNS)
        failpoints.arm(armed)
        at_once = asyncio.Semaphore(3)
        run_ids = await asyncio.gather(
            *(play(engine, rogue, number, at_once) for number in range(RUNS))
        )
        assert await rogue.all_ended(run_ids) == {"completed"}
        assert len(set(run_ids)) == RUNS
        assert all(failpoints.fired().values()), failpoints.fired()
        failpoints.disarm()
        assert await rogue.row("SELECT count(*) AS n FROM workflow_runs") == {"n": RUNS}
        completed = await rogue.row(
            "SELECT count(*) AS n, count(DISTINCT payload::json -> 'step' ->> 'id') AS steps"
            " FROM run_events WHERE kind = 'step_completed'"
        )
        assert completed == {"n": RUNS * 4, "steps": RUNS * 4}
        await rogue.assert_sound()
    return engine


async def test_fault_7_a_stalled_event_loop_keeps_its_leases(database: str) -> None:
    """The loop of one replica stands still for longer than a lease lasts; nothing is stolen."""
    actions = Actions()
    actions.action("build")(lambda _: "done")
    armed = {"RUNKON_FAILPOINTS": "report.received=sleep(9500)*1"}
    with (
        replicas(database, 1, "--lease-ttl", "8", environment=armed) as (stalled,),
        replicas(database, 1, "--lease-ttl", "8") as (other,),
    ):
        async with Client(other.address) as client, working(stalled.address, actions):
            async with Client(stalled.address) as starter:
                run = await starter.start_run(source="workflow w { call build call build }")
            async with asyncio.timeout(60):
                ended = await client.run(run.id).wait()
        fired = stalled.server.records("failpoint.fired")
        silences = stalled.server.records("lease.loop_stalled")

    assert ended.status is RunStatus.COMPLETED
    assert [record["point"] for record in fired] == ["report.received"]
    assert silences
    assert rows(database, "SELECT generation FROM workflow_runs") == [(1,)]


@pytest.mark.parametrize(
    "point", ["pipeline.answered", "statement.answered", "batch.committed", "batch.written"]
)
async def test_fault_15_lost_answers_change_nothing(database: str, point: str) -> None:
    """Five of a hundred acts at this point are done, and the server never hears of it."""
    engine = await check_many(database, f"seed=5;{point}=ambiguous%5")
    if point.startswith("batch"):
        assert engine.stats.ambiguous_commits > 0


async def test_fault_15_acts_that_fail_before_they_are_done_change_nothing(database: str) -> None:
    """The wrapper that raises instead of executing, every tenth time."""
    await check_many(database, "batch.begin=ambiguous/10;runs.acquire=ambiguous/3")


@pytest.mark.parametrize(
    ("point", "is_committed"), [("batch.committed", True), ("batch.written", False)]
)
async def test_fault_16_a_cancelled_commit_is_never_told_as_undone(
    database: str, rogue: Rogue, point: str, *, is_committed: bool
) -> None:
    """A replica is stopped while a lane waits for COMMIT: its caller is told that nobody knows.

    Asking again with the same request id finds the run, or makes the only one.
    """
    command = start(request_id="r")
    async with engine_on(database) as engine:
        failpoints.arm(f"{point}=block*1")
        asked = asyncio.create_task(engine.start_run(command))
        await until(lambda: failpoints.fired()[point], "the lane is at COMMIT")
        await engine.stop(grace_s=0.05)
        with pytest.raises(errors.OutcomeUnknownError):
            await asyncio.wait_for(asked, 60)
    failpoints.disarm()
    async with engine_on(database) as other:
        answer = await other.start_run(command)
        assert answer.replayed is is_committed
        assert await rogue.ended(answer.run_id) == "completed"
    assert await rogue.row("SELECT count(*) AS n FROM workflow_runs") == {"n": 1}
    await rogue.assert_sound()


async def test_fault_16_a_cancelled_report_is_asked_for_again(database: str, rogue: Rogue) -> None:
    """Whoever reported may do so again elsewhere, and it counts once."""
    async with engine_on(database) as engine, engine_on(database) as other:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        failpoints.arm("batch.committed=block*1")
        answered = asyncio.create_task(worker.answer(lease))
        await until(lambda: failpoints.fired()["batch.committed"], "the lane is at COMMIT")
        await engine.stop(grace_s=0.05)
        assert await asyncio.wait_for(answered, 60) is AckStatus.REFUSED
        failpoints.disarm()
        again = Worker(other, "build")
        assert await again.answer(lease) in {AckStatus.ACCEPTED, AckStatus.DUPLICATE}
        assert await rogue.ended(run_id) == "completed"
        assert (await rogue.kinds(run_id)).count("step_completed") == 1
        await rogue.assert_sound()


async def test_fault_16_a_caller_who_goes_away_at_commit_has_his_run(
    engine: Engine, rogue: Rogue
) -> None:
    """The call is cancelled while its batch is committed; the same request finds the run."""
    command = start(request_id="r")
    failpoints.arm("batch.committed=block*1")
    asked = asyncio.create_task(engine.start_run(command))
    await until(lambda: failpoints.fired()["batch.committed"], "the lane is at COMMIT")
    asked.cancel()
    failpoints.disarm()
    answer = await engine.start_run(command)
    assert answer.replayed
    assert await rogue.ended(answer.run_id) == "completed"
    assert await rogue.row("SELECT count(*) AS n FROM workflow_runs") == {"n": 1}


async def test_a_worker_whose_session_was_closed_comes_back(database: str) -> None:
    """The server gives a session up while its stream is open: the stream has to end as well."""
    actions = Actions()
    actions.action("build")(lambda _: "done")
    async with live_api(database, **SHORT) as api, working(api.address, actions):
        failpoints.arm("task.pushed=ambiguous*1")
        async with Client(api.address) as client, asyncio.timeout(60):
            run = await client.start_run(source="workflow w { call build }")
            assert (await run.wait()).status is RunStatus.COMPLETED
    assert failpoints.fired() == {"task.pushed": 1}


async def test_what_was_queued_when_a_replica_stops_is_told_so(engine: Engine) -> None:
    """The lanes are blocked, so the queue is never looked at: nobody waits for ever."""
    failpoints.arm("batch.begin=block")
    first = asyncio.create_task(engine.start_run(start()))
    await until(lambda: failpoints.fired()["batch.begin"], "a lane is busy")
    second = asyncio.create_task(engine.start_run(start()))
    await until(lambda: failpoints.fired()["batch.begin"] == 2, "the other lane is busy")
    run_id = "01" + "0" * 24
    last = [
        asyncio.create_task(
            engine.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="p"))
        )
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    await engine.stop(grace_s=0.05)
    answers = await asyncio.wait_for(
        asyncio.gather(first, second, *last, return_exceptions=True), 60
    )
    assert all(isinstance(each, errors.UnavailableError) for each in answers), answers


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "55P03"])
async def test_fault_19_a_conflict_is_tried_again(database: str, sqlstate: str) -> None:
    """Deadlocks, serialization failures and lock timeouts in five batches of a hundred."""
    engine = await check_many(database, f"seed=1;write.counters=raise({sqlstate})%5")
    # A batch that waits too long for a lock is taken apart; a single entry of it is tried again.
    assert engine.stats.commit_retries > 0 or sqlstate == "55P03"
    assert engine.stats.commit_refusals == 0


async def test_fault_19_a_conflict_that_lasts_is_told_after_a_bounded_number_of_tries(
    engine: Engine, rogue: Rogue
) -> None:
    failpoints.arm("batch.locked=raise(40P01)")
    with pytest.raises(errors.ConflictError):
        await asyncio.wait_for(engine.start_run(start()), 60)
    assert 2 <= failpoints.fired()["batch.locked"] <= 20
    failpoints.disarm()
    answer = await engine.start_run(start())
    assert await rogue.ended(answer.run_id) == "completed"
    assert await rogue.row("SELECT count(*) AS n FROM workflow_runs") == {"n": 1}

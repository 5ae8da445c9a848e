"""Tasks: what a report is worth, lost workers, credit, order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from runkon_server import errors, failpoints
from runkon_server.core.facts import Outcome
from runkon_server.runtime.commands import (
    AckStatus,
    CancelRun,
    RunStarted,
    TaskHeartbeat,
    WorkerHello,
)
from support.engines import NAMESPACE, Worker, engine_on, report, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue


async def cancel(engine: Engine, run_id: str) -> None:
    await engine.cancel_run(CancelRun(namespace=NAMESPACE, run_id=run_id, principal="somebody"))


async def test_a_report_counts_once(engine: Engine, rogue: Rogue) -> None:
    """Fault 33: the same word again, another one, a foreign token; a second task keeps it going."""
    worker = Worker(engine, "build").credit(2)
    run_id = (await engine.start_run(start("call build call build"))).run_id
    lease = await worker.lease()

    assert await worker.answer(lease) is AckStatus.ACCEPTED
    assert await worker.answer(lease) is AckStatus.DUPLICATE
    assert await worker.answer(lease, digest="other") is AckStatus.REFUSED
    assert await worker.answer(lease, token="foreign") is AckStatus.REFUSED
    assert engine.stats.tasks_reported == {"accepted": 1, "duplicate": 1, "refused": 2}

    assert await worker.answer(await worker.lease(1)) is AckStatus.ACCEPTED
    assert await rogue.ended(run_id) == "completed"
    assert await worker.answer(lease) is AckStatus.DUPLICATE
    await rogue.assert_sound()


async def test_reports_of_one_task_at_once_count_once(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(1)
    run_id = (await engine.start_run(start("call build"))).run_id
    lease = await worker.lease()

    worker.session.report([report(lease), report(lease), report(lease, digest="other")])
    await worker.ack(2)

    assert sum(ack.verdict.status is AckStatus.ACCEPTED for ack in worker.acks) == 1
    assert await rogue.ended(run_id) == "completed"


async def test_a_report_of_another_namespace_is_unknown(engine: Engine) -> None:
    """Fault 33: a token does not open another namespace."""
    worker = Worker(engine, "build").credit(1)
    await engine.start_run(start("call build"))
    lease = await worker.lease()

    with pytest.raises(errors.TaskNotFoundError):
        await engine.report_task("elsewhere", report(lease))


async def test_a_report_reaches_a_run_owned_elsewhere(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as owner, engine_on(database) as other:
        worker = Worker(owner, "build").credit(1)
        run_id = (await owner.start_run(start("call build"))).run_id
        lease = await worker.lease()

        answer = await other.report_task(NAMESPACE, report(lease))

        assert answer.verdict.status is AckStatus.ACCEPTED
        assert await rogue.ended(run_id) == "completed"
        assert other.stats.runs_acquired == 0
        await rogue.assert_sound()


async def test_a_report_wakes_a_parked_run(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(1)
    run_id = (await engine.start_run(start("call build call echo"))).run_id
    lease = await worker.lease()
    await rogue.parked(run_id)

    assert await worker.answer(lease, context="made it") is AckStatus.ACCEPTED

    assert await rogue.ended(run_id) == "completed"
    step = await rogue.row("SELECT context_out FROM workflow_run_steps WHERE step_name = 'build'")
    assert step == {"context_out": "made it"}
    await rogue.assert_sound()


async def test_a_cancelled_task_may_still_say_how_it_ended(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(1)
    run_id = (await engine.start_run(start("call build"))).run_id
    lease = await worker.lease()

    await cancel(engine, run_id)
    await until(lambda: worker.cancels, "the worker is told to stop")

    assert worker.cancels[0].task_id == lease.task_id
    assert await worker.answer(lease, outcome=Outcome.CANCELLED) is AckStatus.ACCEPTED
    assert await rogue.ended(run_id) == "cancelled"
    await rogue.assert_sound()


async def test_a_cancelled_task_that_nobody_has_is_settled(engine: Engine, rogue: Rogue) -> None:
    run_id = (await engine.start_run(start("call build"))).run_id

    await cancel(engine, run_id)

    assert await rogue.ended(run_id) == "cancelled"
    await rogue.assert_sound()


async def test_a_lost_worker_is_replaced_until_there_were_too_many(
    database: str, rogue: Rogue
) -> None:
    """Faults 30, 32 and 35: leases are made to run out by SQL; the old worker's word is stale."""
    async with engine_on(database, deliveries_max=3) as engine:
        worker = Worker(engine, "build").credit(10)
        run_id = (await engine.start_run(start("call build"))).run_id

        for delivery in range(3):
            lease = await worker.lease(delivery)
            assert lease.delivery == delivery
            assert lease.idempotency_key == worker.leases[0].idempotency_key
            await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
            if delivery == 1:
                assert await worker.answer(worker.leases[0]) is AckStatus.STALE

        assert await rogue.ended(run_id) == "failed"
        step = await rogue.row("SELECT status, error_code FROM workflow_run_steps")
        assert step == {"status": "failed", "error_code": "WORKER_LOST"}
        assert await worker.answer(worker.leases[-1]) is not AckStatus.ACCEPTED
        await rogue.assert_sound()


async def test_32_a_lost_task_is_looked_for_when_its_lease_runs_out(
    database: str, rogue: Rogue
) -> None:
    """Without it the next look would be minutes away."""
    async with engine_on(database, scan_s=600.0, task_lease_s=1.0) as engine:
        worker = Worker(engine, "build").credit(2)
        await engine.start_run(start("call build"))
        await worker.lease()
        engine._scanner.look_for_tasks()

        assert (await worker.lease(1)).delivery == 1
        await rogue.assert_sound()


async def test_heartbeats_extend_a_lease_and_say_when_it_is_over(
    engine: Engine, rogue: Rogue
) -> None:
    """Two calls at once about one task, and one with a token of old in the same statement.

    The lease has two thirds of its time left, so that a slow machine does not lose it meanwhile.
    """
    worker = Worker(engine, "build").credit(1)
    await engine.start_run(start("call build"))
    lease = await worker.lease()
    shortened = "UPDATE tasks SET lease_until = lease_until - interval '10 s' RETURNING lease_until"
    before = (await rogue.row(shortened))["lease_until"]
    beat = TaskHeartbeat(task_id=lease.task_id, token=lease.token)

    answers = await asyncio.wait_for(
        asyncio.gather(
            engine.heartbeat_task(NAMESPACE, beat),
            engine.heartbeat_task(NAMESPACE, beat),
            engine.heartbeat_task(NAMESPACE, replace(beat, token="of old")),
            engine.heartbeat_task("elsewhere", beat),
        ),
        60,
    )

    assert [answer.known for answer in answers] == [True, True, False, False]
    assert (await rogue.row("SELECT lease_until FROM tasks"))["lease_until"] > before


async def test_credit_neither_leaks_nor_is_overdrawn(engine: Engine, rogue: Rogue) -> None:
    """40 runs of two tasks for a credit of 3: never more than 3 are out, and 3 are left."""
    worker = Worker(engine, "build").credit(3)
    outcomes = await engine.start_runs([start("call build call build")] * 40)
    ids = [each.run_id for each in outcomes if isinstance(each, RunStarted)]

    for number in range(80):
        lease = await worker.lease(number)
        assert len(worker.leases) - number <= 3
        worker.session.report([report(lease)])
        worker.session.add_credit(1)

    assert await rogue.all_ended(ids) == {"completed"}
    assert len(worker.leases) == 80
    await until(lambda: worker.session.credit == 3, "all credit is back")


async def test_a_refused_decision_gives_its_credit_back(engine: Engine, rogue: Rogue) -> None:
    """The run is stolen by SQL, so the decision that had assigned the next task is lost."""
    worker = Worker(engine, "build").credit(2)
    run_id = (await engine.start_run(start("call build call build"))).run_id
    lease = await worker.lease()
    await rogue.rows(
        "UPDATE workflow_runs SET owner_token = 'thief', generation = generation + 1,"
        " lease_until = now() + interval '1 hour' WHERE id = %s",
        run_id,
    )

    assert await worker.answer(lease) is AckStatus.ACCEPTED
    # The report counts before anything is decided on it.
    await until(lambda: engine.stats.leases_lost == 1, "the decision is refused")

    await until(lambda: worker.session.credit == 1, "the credit is back")
    assert len(worker.leases) == 1


async def test_a_named_worker_goes_before_a_fallback(engine: Engine) -> None:
    fallback = Worker(engine, "*").credit(5)
    named = Worker(engine, "build").credit(1)

    await engine.start_run(start("call build"))
    await named.lease()
    await engine.start_run(start("call test"))
    await fallback.lease()

    assert [lease.action for lease in named.leases] == ["build"]
    assert [lease.action for lease in fallback.leases] == ["test"]


async def test_what_is_queued_goes_before_what_is_new(engine: Engine) -> None:
    """Two tasks wait for the first credit; a third is made while credit is there."""
    ids = [(await engine.start_run(start("call build"))).run_id for _ in range(2)]
    worker = Worker(engine, "build").credit(1)
    await worker.lease()
    ids.append((await engine.start_run(start("call build"))).run_id)
    worker.credit(2)
    await worker.lease(2)

    assert [lease.run_id for lease in worker.leases] == ids


async def test_what_was_lost_goes_before_what_is_new(database: str, rogue: Rogue) -> None:
    """Nobody polls. The credit comes when the lost task is in the queue, and is asked for at once.

    So it is when a worker reports: the next step is decided before any look into the queue ends.
    """
    async with engine_on(database, poll_s=3600.0) as engine:
        worker = Worker(engine, "build").credit(1)
        await engine.start_run(start("call build"))
        lost = await worker.lease()
        await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
        await until(lambda: engine.stats.tasks_redelivered == 1, "it is in the queue")

        worker.credit(1)
        assert engine._dispatcher.reserve(NAMESPACE, "", "action", "build") is None

        again = await worker.lease(1)
        assert (again.task_id, again.delivery) == (lost.task_id, 1)


async def test_a_queue_made_elsewhere_is_emptied_without_polling(database: str) -> None:
    """A worker with a credit of one beside a replica that only queues; polls are rare."""
    async with engine_on(database) as other, engine_on(database, poll_s=3600.0) as engine:
        await other.start_runs([start("call build")] * 12)
        worker = Worker(engine, "build").serve(credit=1)

        await worker.lease(11)


async def test_a_drained_worker_gets_nothing_more(engine: Engine, rogue: Rogue) -> None:
    """Neither by late credit nor by a task that was on its way; that goes to somebody else."""
    drained = Worker(engine, "build").credit(1)
    call = asyncio.create_task(engine.start_run(start("call build")))
    async with asyncio.timeout(60):
        while drained.session.credit:  # noqa: ASYNC110 - it is taken for some turns of the loop only
            await asyncio.sleep(0)
    drained.session.drain()
    drained.credit(5)
    await call
    other = Worker(engine, "build").credit(2)

    lease = await other.lease()

    assert lease.delivery == 0
    assert drained.leases == []
    await engine.start_run(start("call build"))
    await other.lease(1)
    assert drained.leases == []
    assert (await rogue.row("SELECT count(*) AS n FROM tasks WHERE state = 'leased'"))["n"] == 2


async def test_a_poll_strands_no_task(database: str, rogue: Rogue) -> None:
    """Polls return with the first task while others are on their way to them."""
    async with engine_on(database) as engine:
        hello = WorkerHello(namespace=NAMESPACE, worker_id="poller", actions=frozenset({"build"}))
        poll = asyncio.create_task(engine.poll_tasks(hello, max_tasks=10, wait_s=60))
        await asyncio.sleep(0)
        outcomes = await asyncio.gather(*(engine.start_run(start("call build")) for _ in range(30)))
        seen = 0
        while seen < 30:
            leases = await asyncio.wait_for(poll, 90)
            assert leases, "a task is stranded"
            seen += len(leases)
            for lease in leases:
                await engine.report_task(NAMESPACE, report(lease))
            poll = asyncio.create_task(engine.poll_tasks(hello, max_tasks=10, wait_s=60))
        poll.cancel()
        assert await rogue.all_ended([each.run_id for each in outcomes]) == {"completed"}


async def test_a_worker_who_leaves_gives_unseen_tasks_back(engine: Engine) -> None:
    """The outbox had not been taken when the stream ended."""
    hello = WorkerHello(namespace=NAMESPACE, worker_id="short", actions=frozenset({"build"}))
    arrived = asyncio.Event()
    session = engine.open_session(hello, arrived.set)
    session.add_credit(1)
    await engine.start_run(start("call build"))
    await asyncio.wait_for(arrived.wait(), 60)

    session.close()

    lease = await Worker(engine, "build").credit(1).lease()
    assert lease.delivery == 0


async def test_progress_becomes_an_event(engine: Engine, rogue: Rogue) -> None:
    worker = Worker(engine, "build").credit(1)
    run_id = (await engine.start_run(start("call build"))).run_id
    lease = await worker.lease()
    beat = TaskHeartbeat(task_id=lease.task_id, token=lease.token, progress="half")

    worker.session.heartbeat([beat, beat])

    async def told() -> bool:
        return (await rogue.kinds(run_id)).count("step_progress") == 1

    await eventually(told, "the progress is told")
    said = await rogue.row("SELECT payload FROM run_events WHERE kind = 'step_progress'")
    progress = json.loads(said["payload"])
    assert (progress["step_name"], progress["iteration"]) == ("build", 0)
    assert progress["progress"] == "half"


async def test_heartbeats_of_an_outage_do_not_pile_up(engine: Engine) -> None:
    """Workers beat on while nothing can be written; of each task the last one is kept."""
    worker = Worker(engine, "build").credit(1)
    await engine.start_run(start("call build"))
    lease = await worker.lease()
    beat = TaskHeartbeat(task_id=lease.task_id, token=lease.token)
    failpoints.arm("beats.extended=ambiguous")
    try:
        given_up = asyncio.create_task(engine.heartbeat_task(NAMESPACE, beat))
        for _ in range(20):
            worker.session.heartbeat([beat] * 5)
            await asyncio.sleep(0)
        given_up.cancel()
        waits = asyncio.create_task(engine.heartbeat_task(NAMESPACE, beat))
        await until(lambda: len(engine._dispatcher._beats) == 2, "one of each is left")
    finally:
        failpoints.disarm()

    assert (await asyncio.wait_for(waits, 60)).known


async def test_a_late_report_does_not_cut_off_whoever_has_the_task_now(
    engine: Engine, rogue: Rogue
) -> None:
    """Nobody sends heartbeats: the second worker is told to stop as soon as somebody asks."""
    slow, quick = Worker(engine, "build").credit(1), Worker(engine, "build")
    run_id = (await engine.start_run(start("call build"))).run_id
    lease = await slow.lease()
    quick.credit(1)
    await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
    await quick.lease()

    assert await slow.answer(lease) is AckStatus.STALE
    assert slow.session.tasks == {}
    await cancel(engine, run_id)

    await until(lambda: quick.cancels, "the worker that has the task is told to stop")


async def test_a_session_forgets_what_it_has_lost(engine: Engine, rogue: Rogue) -> None:
    """One that never reports it, in a stream that lasts for months, would add up."""
    worker = Worker(engine, "build").credit(1)
    await engine.start_run(start("call build"))
    lease = await worker.lease()
    beat = TaskHeartbeat(task_id=lease.task_id, token=lease.token)
    await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
    await until(lambda: engine.stats.tasks_redelivered, "it is in the queue again")

    worker.session.heartbeat([beat])
    await until(lambda: worker.cancels, "the worker hears of it")

    assert worker.cancels[0].reason == "lease_lost"
    assert (worker.session.tasks, engine._dispatcher._holders) == ({}, {})

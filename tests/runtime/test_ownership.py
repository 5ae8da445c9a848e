"""Leases: fences, parking, facts for other owners, hand-over, lost sessions."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from runkon_server import failpoints
from runkon_server.core.facts import CancelAsked, Outcome, dump_fact
from runkon_server.runtime.commands import AckStatus, RunStarted
from support.engines import BRIEF, Worker, engine_on, rogue_on, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

CANCEL = """
WITH run AS (
    UPDATE workflow_runs SET status = 'cancelling', fact_seq = fact_seq + 1
    WHERE id = %s RETURNING id, fact_seq)
INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)
SELECT id, fact_seq, 'cancel_asked', %s, now() FROM run"""
"""What another replica does whose hint is lost."""
STORE = """
WITH run AS (
    UPDATE workflow_runs SET fact_seq = fact_seq + 1 WHERE id = %s RETURNING id, fact_seq)
INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)
SELECT id, fact_seq, %s, %s, now() FROM run"""
FACT = dump_fact(CancelAsked(reason="elsewhere", force=True))
STEAL = """
UPDATE workflow_runs SET owner_token = 'thief', generation = generation + 1,
    lease_until = now() + interval '1 hour' WHERE id = %s"""


async def started(engine: Engine, body: str) -> str:
    return (await engine.start_run(start(body))).run_id


async def test_a_stolen_run_is_left_alone(engine: Engine, rogue: Rogue) -> None:
    """The old owner's decision changes no row; the report it held goes to the thief as a fact."""
    worker = Worker(engine, "build").credit(1)
    run_id = await started(engine, "call build call echo")
    lease = await worker.lease()
    before = await rogue.rows("SELECT * FROM workflow_run_steps"), await rogue.kinds(run_id)
    await rogue.rows(STEAL, run_id)

    assert await worker.answer(lease) is AckStatus.ACCEPTED

    assert (await rogue.rows("SELECT * FROM workflow_run_steps"), await rogue.kinds(run_id)) == (
        before
    )
    run = await rogue.run(run_id)
    assert (run["owner_token"], run["fact_seq"], run["applied_fact_seq"]) == ("thief", 2, 1)
    assert engine.stats.leases_lost == 1

    await rogue.rows("UPDATE workflow_runs SET lease_until = now() WHERE id = %s", run_id)
    assert await rogue.ended(run_id) == "completed"
    await rogue.assert_sound()


async def test_the_renewal_notices_a_stolen_run(engine: Engine, rogue: Rogue) -> None:
    """The worker's task keeps the run in memory; nothing is decided on it."""
    Worker(engine, "build").credit(1)
    run_id = await started(engine, "call build")

    await rogue.rows(STEAL, run_id)
    await until(lambda: engine.stats.leases_held == 0, "the run is dropped")

    assert (await rogue.run(run_id))["owner_token"] == "thief"


async def test_a_fact_is_found_without_a_hint(database: str, rogue: Rogue) -> None:
    """The run waits for a worker in its owner's memory; nobody notifies."""
    async with engine_on(database, linger_s=60.0) as engine:
        Worker(engine, "build").credit(1)
        run_id = await started(engine, "call build")

        await rogue.rows(CANCEL, run_id, FACT)

        assert await rogue.ended(run_id) == "cancelled"
        assert engine.stats.leases_lost == 0


async def test_a_fact_that_nobody_understands_holds_up_its_run_only(
    database: str, rogue: Rogue
) -> None:
    """It is read in one query with that of another run, which goes on; nobody polls."""
    async with engine_on(database, poll_s=3600.0, linger_s=60.0) as engine:
        Worker(engine, "build").credit(2)
        ids = [await started(engine, "call build") for _ in range(2)]
        for run_id, kind, payload in zip(
            ids, ("of_tomorrow", "cancel_asked"), ("{}", FACT), strict=True
        ):
            await rogue.rows(STORE, run_id, kind, payload)

        await rogue.rows("SELECT pg_notify('runkon', %s)", json.dumps({"s": "x", "f": ids}))

        assert await rogue.ended(ids[1]) == "cancelled"
        assert (await rogue.run(ids[0]))["status"] == "running"


async def test_a_fact_during_parking_is_not_lost(database: str, rogue: Rogue) -> None:
    """The fact is recorded while the parking decision waits for the lock; nothing polls."""
    async with (
        engine_on(database, poll_s=3600.0, scan_s=3600.0, linger_s=3600.0) as engine,
        rogue_on(database) as other,
    ):
        worker = Worker(engine, "build").credit(1)
        run_id = await started(engine, "call build")
        await worker.lease()
        async with other.conn.transaction():
            await other.rows(CANCEL, run_id, FACT)

            async def is_waited_for() -> bool:
                engine._registry.actors[run_id].park_if_idle()  # not earlier than the fact
                waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
                return bool(await rogue.rows(waiting))

            await eventually(is_waited_for, "parking waits for the lock")

        assert await rogue.ended(run_id) == "cancelled"
        assert engine.stats.runs_parked == 0


async def test_a_fact_told_twice_is_applied_once(database: str, rogue: Rogue) -> None:
    """The owner hears of every fact again and again while it decides on them."""
    async with engine_on(database, poll_s=0.01) as engine, rogue_on(database) as other:
        worker = Worker(engine, "build").credit(1)
        run_id = await started(engine, "call build")
        await worker.lease()
        for _ in range(20):
            await other.rows(CANCEL, run_id, dump_fact(CancelAsked(reason="again")))
            await other.rows("SELECT pg_notify('runkon', %s)", f'{{"s":"x","f":["{run_id}"]}}')
        before = engine.stats.batches

        async def applied() -> bool:
            run = await rogue.run(run_id)
            return bool(run["fact_seq"] == run["applied_fact_seq"])

        await eventually(applied, "all are applied")
        assert engine.stats.batches - before < 60


async def test_a_timer_that_is_gone_is_given_up(engine: Engine, rogue: Rogue) -> None:
    """Its row is deleted by SQL: it fires, is refused, and does not come again."""
    worker = Worker(engine, "build").credit(1)
    run_id = await started(engine, 'call build { timeout = "1s" }')
    lease = await worker.lease()
    await rogue.rows("DELETE FROM timers WHERE run_id = %s", run_id)
    before = engine.stats.entries

    await rogue.parked(run_id)

    assert engine.stats.entries - before < 10
    assert await worker.answer(lease) is AckStatus.ACCEPTED
    assert await rogue.ended(run_id) == "completed"


async def test_a_retry_survives_the_replica(database: str, rogue: Rogue) -> None:
    async with engine_on(database) as first:
        worker = Worker(first, "build").credit(1)
        run_id = await started(first, 'call build { retries = 1 retry_delay = "1s" }')
        lease = await worker.lease()
        await worker.answer(lease, outcome=Outcome.FAILED, error="once")
    assert (await rogue.row("SELECT kind FROM timers"))["kind"] == "retry"

    async with engine_on(database) as second:
        Worker(second, "build").serve()

        assert await rogue.ended(run_id) == "completed"
        await rogue.assert_sound()


async def test_a_stopping_replica_hands_everything_over(database: str, rogue: Rogue) -> None:
    """Leases of an hour: the other can have the runs only by the hand-over."""
    async with engine_on(database, lease_ttl_s=3600.0, lease_refresh_s=60.0) as first:
        outcomes = await first.start_runs([start("call build call echo")] * 30)
        ids = [each.run_id for each in outcomes if isinstance(each, RunStarted)]
        async with asyncio.timeout(30):  # the next renewal would be half a minute after that
            await first.stop()

    owned = "SELECT count(*) AS n FROM workflow_runs WHERE owner_token IS NOT NULL"
    assert (await rogue.row(owned))["n"] == 0
    async with engine_on(database) as second:
        Worker(second, "build").serve()

        assert await rogue.all_ended(ids) == {"completed"}
        assert second.stats.steals == 0
        await rogue.assert_sound()


async def test_two_replicas_finish_what_a_third_left(database: str, rogue: Rogue) -> None:
    """The runs are orphaned by SQL, with a lease that has run out; both take them."""
    async with engine_on(database) as dead:
        outcomes = await dead.start_runs([start("call build call echo")] * 40)
        ids = [each.run_id for each in outcomes if isinstance(each, RunStarted)]
    await rogue.rows("UPDATE workflow_runs SET owner_token = 'dead', lease_until = now()")

    async with engine_on(database) as one, engine_on(database) as two:
        for engine in (one, two):
            Worker(engine, "build").serve()

        assert await rogue.all_ended(ids) == {"completed"}
        assert one.stats.steals + two.stats.steals == 40
        generations = await rogue.rows("SELECT DISTINCT generation FROM workflow_runs")
        assert all(row["generation"] >= 2 for row in generations)
        await rogue.assert_sound()


async def test_a_run_that_cannot_be_read_does_not_hold_others_up(
    engine: Engine, rogue: Rogue
) -> None:
    """Its definition is gone, and it is taken first."""
    outcomes = await engine.start_runs(
        [start("call build call echo", inputs={"n": "0"}), *([start("call build")] * 10)]
    )
    bad, *good = [each.run_id for each in outcomes if isinstance(each, RunStarted)]
    for run_id in (bad, *good):
        await rogue.parked(run_id)
    await rogue.rows("UPDATE run_details SET content_hash = 'gone' WHERE run_id = %s", bad)
    await rogue.rows(
        "UPDATE workflow_runs SET ready_at = now() - (id = %s)::int * interval '1 hour'", bad
    )
    worker = Worker(engine, "build")

    worker.serve(credit=20)

    assert await rogue.all_ended(good) == {"completed"}
    assert (await rogue.run(bad))["status"] == "running"


async def test_every_session_is_lost_under_load(database: str, rogue: Rogue) -> None:
    """All backends but ours are terminated, five times, while runs start and go on."""
    ids: list[str] = []
    async with engine_on(database, **BRIEF) as one, engine_on(database, **BRIEF) as two:
        for engine in (one, two):
            Worker(engine, "build").serve(20)

        async def load(engine: Engine) -> None:
            for number in range(60):
                outcomes = await engine.start_runs([start("call build call echo call build")] * 3)
                ids.extend(each.run_id for each in outcomes if isinstance(each, RunStarted))
                await asyncio.sleep(0.01 * (number % 3))

        loads = asyncio.gather(load(one), load(two))
        for _ in range(5):
            await asyncio.sleep(0.2)
            with_others = "pid <> pg_backend_pid() AND datname = current_database()"
            await rogue.rows(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {with_others}"
            )
        await loads

        assert len(ids) >= 180
        assert await rogue.all_ended(ids) == {"completed"}
        await until(lambda: one.database_is_up, "it has sessions again")
        for run_id in ids:
            kinds = await rogue.kinds(run_id)
            assert kinds.count("run_finished") == 1
        await rogue.assert_sound()


async def test_a_replica_without_its_database_says_so(database: str) -> None:
    async with engine_on(database) as engine:
        await until(lambda: engine.database_is_up, "it is up")
        name = database.rpartition("/")[2]
        admin = await psycopg.AsyncConnection.connect(
            database.replace(f"/{name}", "/postgres"), autocommit=True
        )
        async with admin:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            await until(lambda: not engine.database_is_up, "it says so")
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        await until(lambda: engine.database_is_up, "it is up again")


async def test_renewals_that_end_unexpectedly_end_the_replica(database: str) -> None:
    """Like every other loop of it. They ended without a word, and left one that loses all runs."""
    async with engine_on(database, lease_refresh_s=0.1) as engine:
        failpoints.arm("leases.renew=raise*1")
        try:
            with pytest.raises(failpoints.FailpointError):
                await asyncio.wait_for(engine.wait_failed(), 60)
        finally:
            failpoints.disarm()

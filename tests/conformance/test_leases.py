"""Statements 12 and 20-33: who may write, and for how long.

A lease is a matter between replicas: most of it no caller can see.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from runkon_server.core.facts import Outcome
from runkon_server.runtime.commands import AckStatus
from runkon_server.store import claims
from runkon_server.store.database import connect_lessor
from support.engines import Worker, engine_on, rogue_on, start, until
from support.rows import add_run, engine_of, ulid
from support.stage import Refused
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from support.engines import Rogue
    from support.stage import Stage

TTL_S: Final = 30.0
STEAL: Final = """
UPDATE workflow_runs SET owner_token = 'thief', generation = generation + 1,
    lease_until = now() + interval '1 hour' WHERE id = %s"""
ROWS: Final = (
    "SELECT id, status, phase, last_seq, applied_fact_seq, generation FROM workflow_runs",
    "SELECT * FROM workflow_run_steps ORDER BY at, retry_count",
    "SELECT * FROM workflow_run_step_fan_out_items",
    "SELECT run_id, seq, kind FROM run_events ORDER BY seq",
    "SELECT * FROM timers",
    "SELECT run_id, id FROM tasks",
)
"""What only the owner of a run writes."""


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside the replicas."""
    async with rogue_on(database) as session:
        yield session


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection as a replica's scanner has it."""
    async with engine_of(database) as pool, pool.connect() as connection:
        yield connection


async def owned(conn: AsyncConnection, rogue: Rogue, lease: str) -> dict[str, Any]:
    """A run of the replica `me` whose lease ends in so long."""
    await add_run(conn, ulid(1), generation=4)
    await rogue.rows(
        "UPDATE workflow_runs SET owner_token = 'me', lease_until = now() + %s::interval", lease
    )
    return await rogue.run(ulid(1))


async def acquire(conn: AsyncConnection, token: str) -> list[str]:
    """The runs that a replica is granted."""
    return [run for run, _ in await claims.acquire(conn, token=token, ttl_s=TTL_S, limit=10)]


async def written(rogue: Rogue) -> list[list[dict[str, Any]]]:
    """Everything that owners have written."""
    return [await rogue.rows(statement) for statement in ROWS]


async def test_012_a_stale_generation_writes_nothing(database: str, rogue: Rogue) -> None:
    """Not an end, a next step or a retry, when owner and token look the same to the old one.

    The report that it held is not lost: it waits as a fact for the new owner.
    """
    async with engine_on(database, lease_refresh_s=3600.0, lease_ttl_s=7200.0) as engine:
        worker = Worker(engine, "build").credit(3)
        bodies = ("call build call echo", "call build { retries = 1 }", "call build")
        outcomes = (Outcome.COMPLETED, Outcome.FAILED, Outcome.COMPLETED)
        runs = [(await engine.start_run(start(body))).run_id for body in bodies]
        leases = [await worker.lease(number) for number in range(3)]
        await rogue.rows("UPDATE workflow_runs SET generation = generation + 1")
        before = await written(rogue)
        for lease, outcome in zip(leases, outcomes, strict=True):
            assert await worker.answer(lease, outcome=outcome) is AckStatus.ACCEPTED
        await until(lambda: engine.stats.leases_lost == 3, "all are given up")
        assert await written(rogue) == before
        for run_id in runs:
            run = await rogue.run(run_id)
            assert run["fact_seq"] == run["applied_fact_seq"] + 1


async def test_020_a_run_without_an_owner_is_granted(conn: AsyncConnection, rogue: Rogue) -> None:
    """As its first generation."""
    await add_run(conn, ulid(1), ready_at=(await rogue.row("SELECT now()"))["now"])
    assert await acquire(conn, "me") == [ulid(1)]
    run = await rogue.run(ulid(1))
    assert (run["generation"], run["owner_token"]) == (1, "me")


async def test_021_a_renewal_keeps_the_generation(
    database: str, conn: AsyncConnection, rogue: Rogue
) -> None:
    """The lease ends later; also one that has run out, if nobody came meanwhile."""
    for lease in ("1 second", "-1 second"):
        await rogue.rows("DELETE FROM workflow_runs")
        await rogue.rows("DELETE FROM run_details")
        before = await owned(conn, rogue, lease)
        with connect_lessor(database, TTL_S) as lessor:
            assert claims.renew(lessor, token="me", ttl_s=TTL_S, run_ids=[ulid(1)]).ours == {
                ulid(1)
            }
        after = await rogue.run(ulid(1))
        assert after["generation"] == before["generation"]
        assert after["lease_until"] > before["lease_until"]


async def test_022_a_live_lease_is_left_alone(conn: AsyncConnection, rogue: Rogue) -> None:
    before = await owned(conn, rogue, "1 minute")
    assert await acquire(conn, "other") == []
    assert await rogue.run(ulid(1)) == before


async def test_023_a_lease_that_ran_out_changes_hands(conn: AsyncConnection, rogue: Rogue) -> None:
    before = await owned(conn, rogue, "-1 second")
    assert await acquire(conn, "other") == [ulid(1)]
    after = await rogue.run(ulid(1))
    assert (after["owner_token"], after["generation"]) == ("other", before["generation"] + 1)


async def test_024_an_unknown_run_is_not_granted(database: str, conn: AsyncConnection) -> None:
    """And nothing fails."""
    assert await acquire(conn, "me") == []
    with connect_lessor(database, TTL_S) as lessor:
        assert claims.renew(lessor, token="me", ttl_s=TTL_S, run_ids=[ulid(1)]).ours == set()


async def test_025_of_many_who_want_a_run_one_gets_it(
    database: str, conn: AsyncConnection, rogue: Rogue
) -> None:
    await add_run(conn, ulid(1), ready_at=(await rogue.row("SELECT now()"))["now"])

    async def wish(token: str) -> list[str]:
        async with engine_of(database) as pool, pool.connect() as connection:
            return await acquire(connection, token)

    granted = await asyncio.gather(*(wish(f"replica-{number}") for number in range(8)))
    assert sorted(map(len, granted)) == [0] * 7 + [1]
    assert (await rogue.run(ulid(1)))["generation"] == 1


async def test_026_a_run_that_goes_on_cannot_be_resumed(stage: Stage) -> None:
    """The resume is refused and leaves no trace; so is the second of two."""
    await stage.start("call a call b")
    await stage.complete("a")
    await stage.until_open("b")
    before = await stage.rows()
    with pytest.raises(Refused, match=r"RUN_STATE|RESUME_REFUSED"):
        await stage.resume()
    assert await stage.rows() == before
    await stage.fail("b")
    assert await stage.end() == "failed"
    await stage.resume()
    with pytest.raises(Refused, match=r"RUN_STATE|RESUME_REFUSED"):
        await stage.resume()
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert (await stage.kinds()).count("run_resumed") == 1


async def test_027_a_step_may_last_longer_than_a_lease(database: str, rogue: Rogue) -> None:
    """The lease is extended meanwhile, by the same owner in the same generation."""
    async with (
        engine_on(database, lease_ttl_s=5.0, lease_refresh_s=0.2, linger_s=60.0) as engine,
        engine_on(database),
    ):
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        first = await rogue.run(run_id)

        async def has_run_out() -> bool:
            now = (await rogue.row("SELECT clock_timestamp()"))["clock_timestamp"]
            return bool(now > first["lease_until"])

        await eventually(has_run_out, "the first lease is over")
        run = await rogue.run(run_id)
        assert (run["owner_token"], run["generation"]) == (first["owner_token"], 1)
        assert run["lease_until"] > first["lease_until"]
        await worker.answer(lease)
        assert await rogue.ended(run_id) == "completed"


async def test_028_a_replica_that_lost_a_run_starts_nothing_of_it(
    database: str, rogue: Rogue
) -> None:
    """It notices at its next renewal, while the step still runs."""
    async with engine_on(database) as engine:
        worker = Worker(engine, "build", "deploy").credit(3)
        run_id = (await engine.start_run(start("call build call deploy call deploy"))).run_id
        lease = await worker.lease()
        await rogue.rows(STEAL, run_id)
        await until(lambda: engine.stats.leases_held == 0, "the run is dropped")
        await worker.answer(lease)
        assert [each.action for each in worker.leases] == ["build"]
        assert len(await rogue.rows("SELECT 1 FROM workflow_run_steps")) == 1


async def test_029_a_loss_may_be_noticed_at_the_write_only(database: str, rogue: Rogue) -> None:
    async with engine_on(database, lease_refresh_s=3600.0, lease_ttl_s=7200.0) as engine:
        worker = Worker(engine, "build", "deploy").credit(3)
        run_id = (await engine.start_run(start("call build call deploy"))).run_id
        lease = await worker.lease()
        await rogue.rows(STEAL, run_id)
        assert engine.stats.leases_held == 1
        await worker.answer(lease)
        await until(lambda: engine.stats.leases_held == 0, "the run is dropped")
        assert engine.stats.leases_lost == 1
        assert [each.action for each in worker.leases] == ["build"]


async def test_030_a_renewal_that_fails_is_tried_again(database: str, rogue: Rogue) -> None:
    """Every session of the replica is ended once; the run stays where it is."""
    async with engine_on(database, lease_refresh_s=0.1, linger_s=60.0) as engine:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        await rogue.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        cut = await rogue.run(run_id)

        async def is_renewed() -> bool:
            return bool((await rogue.run(run_id))["lease_until"] > cut["lease_until"])

        await eventually(is_renewed, "a later renewal works")
        await worker.answer(lease)
        assert await rogue.ended(run_id) == "completed"
        run = await rogue.run(run_id)
        assert run["generation"] == 1
        assert engine.stats.leases_lost == 0


async def test_031_after_a_loss_the_old_owner_changes_no_row(database: str, rogue: Rogue) -> None:
    """Neither a report, nor a timer, nor the end of a block makes it write."""
    async with engine_on(database, lease_refresh_s=3600.0, lease_ttl_s=7200.0) as engine:
        worker = Worker(engine, "build", "deploy").credit(9)
        body = 'parallel { call build call deploy { retries = 1 retry_delay = "1ms" } } call build'
        run_id = (await engine.start_run(start(body))).run_id
        first, second = await worker.lease(0), await worker.lease(1)
        await rogue.rows(STEAL, run_id)
        before = await written(rogue)
        await worker.answer(first, outcome=Outcome.FAILED, error="no disk")
        await worker.answer(second)
        assert await written(rogue) == before
        run = await rogue.run(run_id)
        assert (run["owner_token"], run["fact_seq"] - run["applied_fact_seq"]) == ("thief", 2)


async def test_032_a_failed_run_can_be_resumed_at_once(stage: Stage) -> None:
    """Nobody has to wait until the lease of its last owner runs out."""
    await stage.start("call a")
    await stage.fail("a")
    assert await stage.end() == "failed"
    await stage.resume()
    await stage.complete("a")
    assert await stage.end() == "completed"
    assert [row.epoch for row in await stage.rows()] == [1, 2]


async def test_033_nothing_is_renewed_for_runs_that_have_ended(database: str, rogue: Rogue) -> None:
    """However many there were: nothing of them is held, and no row changes any more."""
    async with engine_on(database, lease_refresh_s=0.05) as engine:
        ids = [(await engine.start_run(start())).run_id for _ in range(20)]
        assert await rogue.all_ended(ids) == {"completed"}
        await until(lambda: engine.stats.leases_held == 0, "nothing is held")
        leases = "SELECT count(*) AS n FROM workflow_runs WHERE lease_until IS NOT NULL"
        assert (await rogue.row(leases))["n"] == 0
        versions = "SELECT id, xmin::text FROM workflow_runs ORDER BY id"
        before = await rogue.rows(versions)
        noted = (await rogue.row("SELECT clock_timestamp()"))["clock_timestamp"]

        async def has_passed() -> bool:
            past = "SELECT clock_timestamp() - %s > interval '0.3 s' AS past"
            return bool((await rogue.row(past, noted))["past"])

        await eventually(has_passed, "some renewals are due")
        assert await rogue.rows(versions) == before

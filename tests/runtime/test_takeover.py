"""Runs whose owner's session is gone change hands at once; a replica that lost its own gives up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import structlog

from runkon_server import errors
from runkon_server.runtime.engine import Engine, EngineConfig
from runkon_server.store import sessions
from support.engines import (
    Worker,
    be_patient_with_locks,
    engine_on,
    start,
    until,
    vote,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.engines import Rogue

NEVER: dict[str, Any] = {"lease_ttl_s": 3600.0, "lease_refresh_s": 60.0, "linger_s": 600.0}
"""Leases that do not run out within a test, of runs that are not parked."""
ORPHAN = "UPDATE workflow_runs SET owner_token = 'ghost', lease_until = now() + interval '1 h'"
LOCKED = """
SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = %s::bigint::oid
AND objid = %s::bigint::oid"""
CUT_LISTENERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid IN (SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND classid = %s::bigint::oid)"""


@pytest.fixture
def patient_locks() -> None:
    """Nobody is patient here, unless a test says so."""


@asynccontextmanager
async def no_new_sessions(database: str) -> AsyncIterator[None]:
    """Sessions that are open stay open, others are refused."""
    name = database.rpartition("/")[2]
    admin = database.replace(f"/{name}", "/postgres")
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as conn:
        await conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            yield
        finally:
            await conn.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


async def left_behind(database: str, rogue: Rogue, count: int = 1) -> list[str]:
    """Runs that a process owned which is no more; their leases would last an hour."""
    async with engine_on(database) as dead:
        started = [await dead.start_run(start("call build")) for _ in range(count)]
    await rogue.rows(ORPHAN)
    return [each.run_id for each in started]


async def test_the_runs_of_a_dead_owner_are_taken_before_their_leases_run_out(
    database: str, rogue: Rogue
) -> None:
    """By a new generation, without a mark against the runs, and nobody locks in the dead's name."""
    run_ids = await left_behind(database, rogue, 3)

    async with engine_on(database, **NEVER, settle_s=0.2) as engine:
        Worker(engine, "build").serve()

        assert await rogue.all_ended(run_ids) == {"completed"}
        assert (engine.stats.orphans, engine.stats.steals) == (3, 0)
        for run_id in run_ids:
            run = await rogue.run(run_id)
            assert (run["generation"], run["infra_attempts"]) == (2, 0)
        assert not await rogue.rows(LOCKED, sessions.ADVISORY_CLASS, sessions.key_of("ghost"))
        await rogue.assert_sound()


async def test_a_live_owner_keeps_its_runs_while_a_dead_one_loses_them(
    database: str, rogue: Rogue
) -> None:
    """The same looks that find one gone find the other there."""
    (orphan,) = await left_behind(database, rogue)
    async with engine_on(database, **NEVER) as owner:
        worker = Worker(owner, "build").credit(1)
        run_id = (await owner.start_run(start("call build"))).run_id
        lease = await worker.lease()
        async with engine_on(database, **NEVER, settle_s=0.2) as other:
            await until(lambda: other.stats.orphans == 1, "the dead one is found")

            assert (await rogue.run(run_id))["owner_token"] == owner.tenure.token
            assert (await rogue.run(orphan))["owner_token"] == other.tenure.token
            await worker.answer(lease)
            assert await rogue.ended(run_id) == "completed"
            assert (await rogue.run(run_id))["generation"] == 1


async def test_a_dropped_listener_locks_again_under_the_same_token(
    database: str, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other replica looks on; the run stays where it is.

    Both are as patient as a session on a busy machine may need them to be.
    """
    be_patient_with_locks(monkeypatch)
    async with engine_on(database, **NEVER) as owner, engine_on(database, **NEVER, settle_s=0.0):
        worker = Worker(owner, "build").credit(1)
        run_id = (await owner.start_run(start("call build"))).run_id
        lease = await worker.lease()
        token = owner.tenure.token
        key = sessions.ADVISORY_CLASS, sessions.key_of(token)

        for _ in range(3):
            await rogue.rows(CUT_LISTENERS, sessions.ADVISORY_CLASS)

            async def is_locked() -> bool:
                return bool(await rogue.rows(LOCKED, *key))

            await eventually(is_locked, "it locks again")

        assert owner.tenure.token == token
        await worker.answer(lease)
        assert await rogue.ended(run_id) == "completed"
        assert (await rogue.run(run_id))["generation"] == 1
        assert owner.stats.leases_lost == 0


async def test_a_replica_that_cannot_lock_again_stops_and_takes_a_new_token(
    database: str, rogue: Rogue
) -> None:
    """Only its listener is cut; the sessions by which it could decide and renew are open."""
    async with engine_on(database, **NEVER, lanes=1) as engine:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build call echo"))).run_id
        lease = await worker.lease()
        token = engine.tenure.token
        async with no_new_sessions(database):
            await rogue.rows(CUT_LISTENERS, sessions.ADVISORY_CLASS)
            await until(lambda: engine.tenure.token != token, "it gives its token up")

            assert engine.stats.leases_held == 0
            with pytest.raises(errors.DatabaseUnavailableError):
                await engine.start_run(start())
            await worker.answer(lease)  # any replica records that
            assert (await rogue.run(run_id))["applied_fact_seq"] == 1

        assert await rogue.ended(run_id) == "completed"
        assert (await rogue.run(run_id))["generation"] == 2
        assert engine.tenure.former == set()
        echo = await rogue.row("SELECT worker_id FROM tasks WHERE action = 'echo'")
        assert echo["worker_id"] == sessions.worker_of(engine.tenure.token)
        await rogue.assert_sound()


async def test_a_run_that_waits_is_not_taken_by_a_replica_without_a_lock(
    database: str, rogue: Rogue
) -> None:
    """A vote is recorded, for that needs no lease; the run goes on with who may own it."""
    async with engine_on(database, **NEVER, lanes=1, poll_s=3600.0) as engine:
        run_id = (await engine.start_run(start("gate human_approval { name = check }"))).run_id
        await rogue.parked(run_id)
        token = engine.tenure.token
        async with no_new_sessions(database):
            await rogue.rows(CUT_LISTENERS, sessions.ADVISORY_CLASS)
            await until(lambda: engine.tenure.token != token, "it gives its token up")
            await engine.resolve_gate(vote(run_id, "ann"))
            run = await rogue.run(run_id)
            assert run["owner_token"] is None
            assert run["ready_at"] is not None

        assert await rogue.ended(run_id) == "completed"


async def test_a_loss_of_an_earlier_generation_is_no_loss(database: str, rogue: Rogue) -> None:
    """The renewal's word may be older than the run in memory, which was taken again meanwhile."""
    async with engine_on(database, **NEVER) as engine:
        worker = Worker(engine, "build").credit(1)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()

        engine._registry.lost({run_id: 0})
        assert engine.stats.leases_held == 1
        await worker.answer(lease)
        assert await rogue.ended(run_id) == "completed"


async def test_a_replica_that_is_refused_its_first_session_tries_again(database: str) -> None:
    """As on a restart amid a fail-over: found by the chaos rig on a busy machine."""
    engine = Engine(EngineConfig(dsn=database))
    with structlog.testing.capture_logs() as logs:
        async with no_new_sessions(database):
            starting = asyncio.create_task(engine.start())
            await until(lambda: "database.awaited" in {each["event"] for each in logs}, "it waits")
            assert not starting.done()
        await starting
    await engine.stop()


async def test_a_full_replica_takes_up_no_more(database: str, rogue: Rogue) -> None:
    """It holds two, of five that are ready; when those are over it takes others."""
    run_ids = await left_behind(database, rogue, 5)
    await rogue.rows(
        "UPDATE workflow_runs SET owner_token = NULL, lease_until = NULL, ready_at = now()"
    )
    held = "SELECT count(*) AS n FROM workflow_runs WHERE owner_token IS NOT NULL"
    async with engine_on(database, **NEVER, held_max=2) as engine:
        await until(lambda: engine.stats.leases_held == 2, "it is full")
        engine._scanner.look_for_runs()
        assert (await rogue.row(held))["n"] == 2
        worker = Worker(engine, "build").serve(1)
        assert await rogue.all_ended(run_ids) == {"completed"}
        assert len(worker.leases) == 5

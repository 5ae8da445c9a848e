"""Tasks that are taken back from workers which do not have them: which, and who goes first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from runkon_server.store import arrivals, claims
from runkon_server.store.arrivals import TakenBack
from runkon_server.store.claims import Requeued
from runkon_server.store.database import connect_listener
from runkon_server.store.sessions import lock_session, look_around, worker_of
from support.engines import rogue_on
from support.rows import add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from support.engines import Rogue

WAITS = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%c.fate%%'"


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection as the engine gets it, on a database with one run."""
    async with engine_of(database) as engine, engine.connect() as connection:
        await add_run(connection, ulid(0))
        yield connection


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside it."""
    async with rogue_on(database) as session:
        yield session


async def lease(rogue: Rogue, name: str, **columns: object) -> None:
    """A task whose token is its name, leased for a minute to the worker `w`."""
    values = {
        "run_id": ulid(0),
        "id": f"{ulid(0)}/{name}#0",
        "namespace": "default",
        "step_id": f"{ulid(0)}/{name}",
        "kind": "action",
        "action": name,
        "state": "leased",
        "token": name,
        "worker_id": "w",
        "payload": "{}",
        "created_at": "2026-03-01",
    } | columns
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    await rogue.rows(
        f"INSERT INTO tasks ({names}, lease_until) VALUES ({marks}, now() + interval '1 min')",
        *values.values(),
    )


async def states(rogue: Rogue) -> dict[str, tuple[Any, ...]]:
    """By the names of the tasks: state, token, delivery, whole minutes of the lease left."""
    rows = await rogue.rows(
        "SELECT action, state, token, delivery, floor(extract(epoch FROM lease_until - now()) / 60)"
        " AS minutes FROM tasks"
    )
    return {
        row["action"]: (row["state"], row["token"], row["delivery"], row["minutes"]) for row in rows
    }


def again(action: str, namespace: str = "default") -> Requeued:
    """What such a task asks for that is in the queue again."""
    return Requeued(namespace, "", "action", action)


async def take_back(conn: AsyncConnection, *tokens: str) -> TakenBack:
    """The worker `w` arrives with these in hand."""
    return await arrivals.take_back(conn, {("default", "w"): tokens}, deliveries_max=3, ttl_s=600.5)


async def test_what_a_worker_lacks_is_queued_again_and_what_it_has_is_extended(
    conn: AsyncConnection, rogue: Rogue
) -> None:
    """Neither other workers, nor its namesake elsewhere, nor what is over are touched."""
    await lease(rogue, "had")
    await lease(rogue, "lacked", delivery=1)
    await lease(rogue, "other", worker_id="v")
    await lease(rogue, "elsewhere", namespace="far")
    await lease(rogue, "done")
    await rogue.rows("UPDATE tasks SET state = 'done', lease_until = NULL WHERE action = 'done'")

    assert await take_back(conn, "had", "never heard of") == TakenBack([again("lacked")], over=0)

    assert await states(rogue) == {
        "had": ("leased", "had", 0, 10),
        "lacked": ("queued", None, 2, None),
        "other": ("leased", "other", 0, 0),
        "elsewhere": ("leased", "elsewhere", 0, 0),
        "done": ("done", "done", 0, None),
    }
    earlier = await rogue.rows("SELECT action FROM tasks WHERE created_at < '2026-03-01'")
    assert earlier == [{"action": "lacked"}]  # so it goes before its equals
    assert await take_back(conn, "had") == TakenBack([], over=0)


async def test_what_was_told_to_stop_or_lost_too_often_is_left_to_be_settled(
    conn: AsyncConnection, rogue: Rogue
) -> None:
    """The scanner finds both at once."""
    await lease(rogue, "stopped", cancel_requested_at="2026-03-01")
    await lease(rogue, "cursed", delivery=2)
    assert await claims.find_lost(conn, deliveries_max=3) == []

    assert await take_back(conn) == TakenBack([], over=2)

    lost = await claims.find_lost(conn, deliveries_max=3)
    assert {(task.token, task.was_cancelled) for task in lost} == {
        ("stopped", True),
        ("cursed", False),
    }


async def test_a_report_that_is_being_recorded_goes_first(
    conn: AsyncConnection, rogue: Rogue, database: str
) -> None:
    """The statement waits for its transaction, and then leaves the task alone."""
    await lease(rogue, "reported")
    async with rogue_on(database) as other:
        async with other.conn.transaction():
            await other.rows("UPDATE tasks SET state = 'done', lease_until = NULL")
            taking = asyncio.create_task(take_back(conn))

            async def is_waiting() -> bool:
                return bool(await rogue.rows(WAITS))

            await eventually(is_waiting, "the statement waits")
        assert await taking == TakenBack([], over=0)

    assert await states(rogue) == {"reported": ("done", "reported", 0, None)}


async def test_a_row_that_stays_locked_does_not_hold_up_the_others(
    conn: AsyncConnection, rogue: Rogue, database: str
) -> None:
    """It keeps its lease."""
    await lease(rogue, "locked")
    await lease(rogue, "lacked")
    await conn.exec_driver_sql("SET lock_timeout = '20ms'")
    async with rogue_on(database) as other, other.conn.transaction():
        await other.rows("SELECT 1 FROM tasks WHERE action = 'locked' FOR UPDATE")

        assert await take_back(conn) == TakenBack([again("lacked")], over=0)

    assert await states(rogue) == {
        "locked": ("leased", "locked", 0, 0),
        "lacked": ("queued", None, 1, None),
    }


async def test_what_a_replica_executes_itself_is_taken_back_only_when_its_lock_is_gone(
    conn: AsyncConnection, rogue: Rogue, database: str
) -> None:
    """In whatever namespace; the listener sees who works, though he owns no run."""
    await lease(rogue, "near", worker_id=worker_of("ghost"))
    await lease(rogue, "far", worker_id=worker_of("ghost"), namespace="far")
    await lease(rogue, "other", worker_id=worker_of("other"))
    async with (
        await connect_listener(database, 30.0) as watcher,
        await connect_listener(database, 30.0) as listener,
    ):
        await lock_session(listener, "ghost")
        census = await look_around(watcher)

        assert census.owners == {"ghost", "other"}
        assert census.alive() == {"ghost"}
        assert await arrivals.take_back_from(conn, {"ghost"}, deliveries_max=3) == []

        await listener.close()

        async def ghost_is_gone() -> bool:  # its server process ends a little after the connection
            return not (await look_around(watcher)).alive()

        await eventually(ghost_is_gone, "the lock of the closed session is gone")

    taken = await arrivals.take_back_from(conn, {"ghost"}, deliveries_max=3)
    assert sorted(taken) == [again("near"), again("far", "far")]
    found = {name: state[0] for name, state in (await states(rogue)).items()}
    assert found == {"near": "queued", "far": "queued", "other": "leased"}

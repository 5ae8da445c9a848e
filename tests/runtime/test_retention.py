"""What is kept no longer goes, whole trees at a time, and leaves a tombstone; nothing else goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text, update

from runkon_server import errors
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.stats import EngineStats
from runkon_server.runtime.sweeper import Sweeper
from runkon_server.store import purging, retention, tables
from runkon_server.store.feed_floors import expired_below
from runkon_server.store.reads.runs import run_head
from runkon_server.store.transactions import in_transaction
from support.rows import add_events, add_gate, add_run, add_step, add_vote, engine_of, ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

LONG_AGO = datetime.now(UTC) - timedelta(days=40)


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as made:
        yield made


@pytest_asyncio.fixture
async def conn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        yield connection


async def add_ended(
    conn: AsyncConnection,
    number: int,
    *,
    ended_at: datetime = LONG_AGO,
    parent: int | None = None,
    namespace: str = "default",
    status: str = "completed",
) -> str:
    """A run with rows in every table."""
    run_id = await add_run(
        conn,
        ulid(number),
        namespace=namespace,
        status=status,
        ended_at=ended_at,
        last_seq=2,
        parent_workflow_run_id=None if parent is None else ulid(parent),
        details={"labels": {"team": "core"}, "key": f"k{number}"},
    )
    await add_step(conn, run_id, "b.0000")
    await add_events(conn, run_id, ("run_started", {}), ("run_finished", {}))
    gate = await add_gate(conn, run_id, "b.0001", namespace=namespace, state="approved")
    await add_vote(conn, gate, "zoe", decision="approve", at=LONG_AGO)
    await conn.execute(
        insert(tables.run_keys).values(namespace=namespace, key=f"k{number}", run_id=run_id)
    )
    return run_id


async def left(conn: AsyncConnection) -> list[str]:
    return list((await conn.execute(select(tables.runs.c.id).order_by("id"))).scalars())


async def rows_of(conn: AsyncConnection, run_id: str) -> dict[str, int]:
    """How many rows each table has that belong to a run."""
    found = {}
    for table in tables.metadata.tables.values():
        for column in ("run_id", "workflow_run_id"):
            if column in table.c and table is not tables.run_tombstones:
                wanted = text(f"SELECT count(*) FROM {table.name} WHERE {column} = :id")
                found[table.name] = (await conn.execute(wanted, {"id": run_id})).scalar_one()
    return {name: number for name, number in found.items() if number}


def sweeper(engine: AsyncEngine) -> Sweeper:
    return Sweeper(EngineConfig(dsn=""), SystemAmbient(), engine, EngineStats())


async def test_runs_that_ended_long_ago_go_with_all_their_rows(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    old = await add_ended(conn, 1)
    young = await add_ended(conn, 2, ended_at=datetime.now(UTC) - timedelta(days=29))
    live = await add_run(conn, ulid(3), status="running", created_at=LONG_AGO)
    kinds = set(await rows_of(conn, old))
    assert {"run_details", "run_labels", "run_keys", "run_events", "gate_votes"} <= kinds

    assert await sweeper(engine).sweep() == 1

    assert await left(conn) == [young, live]
    assert await rows_of(conn, old) == {}
    assert set(await rows_of(conn, young)) == kinds
    assert await sweeper(engine).sweep() == 0


async def test_a_tombstone_keeps_the_status_and_the_last_sequence(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    """So a cursor at the end is still at the end, and one below is known to have expired."""
    run_id = await add_ended(conn, 1, status="failed")
    await sweeper(engine).sweep()

    head = await run_head(conn, namespace="default", run_id=run_id)

    assert (head.status, head.last_seq, head.oldest_seq) == ("failed", 2, 3)
    with pytest.raises(errors.RunNotFoundError):
        await run_head(conn, namespace="other", run_id=run_id)


async def test_feeds_are_told_up_to_where_events_are_gone(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    """One that has not come so far yet would silently lack them."""
    await add_ended(conn, 1)
    newest = text("SELECT max(xid)::text FROM run_events")
    xid = int((await conn.execute(newest)).scalar_one())

    await sweeper(engine).sweep()

    assert await expired_below(conn, "default") == xid
    assert await expired_below(conn, "other") == 0


async def test_each_namespace_has_its_own_time(engine: AsyncEngine, conn: AsyncConnection) -> None:
    """Its own, the database's, or none at all."""
    kept = await add_ended(conn, 1, namespace="archive")
    gone = await add_ended(conn, 2, namespace="brief", ended_at=datetime.now(UTC))
    default = await add_ended(conn, 3, namespace="other")
    await retention.set_retention(conn, "archive", None)
    await retention.set_retention(conn, "brief", timedelta(0))
    await retention.set_retention(conn, retention.EVERY_NAMESPACE, timedelta(days=50))
    await sweeper(engine).sweep()
    assert await left(conn) == [kept, default]
    assert gone not in await left(conn)

    await retention.unset_retention(conn, retention.EVERY_NAMESPACE)
    await sweeper(engine).sweep()

    assert await left(conn) == [kept]


async def test_a_tree_goes_as_a_whole_or_not_at_all(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    """A child stays as long as its root is kept, a root as long as a run below it lives."""
    root = await add_ended(conn, 1, ended_at=datetime.now(UTC))
    child = await add_ended(conn, 2, parent=1)
    held = await add_ended(conn, 3)
    live = await add_run(conn, ulid(4), parent_workflow_run_id=held)
    await add_ended(conn, 5)
    await add_ended(conn, 6, parent=5)
    await add_ended(conn, 7, parent=6)

    assert await sweeper(engine).sweep() == 3

    assert await left(conn) == [root, child, held, live]


async def test_a_large_tree_loses_its_root_first_and_is_gone_in_the_end(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    """Two runs a transaction; after each, nobody can resume what is half gone."""
    await add_ended(conn, 1)
    for number in range(2, 7):
        await add_ended(conn, number, parent=1 if number < 4 else 2)

    async def first(inside: AsyncConnection) -> int:
        return await purging.purge_trees(inside, [ulid(1)], 2)

    assert await in_transaction(engine, first) == 2
    assert ulid(1) not in await left(conn)
    assert len(await left(conn)) == 4

    assert await sweeper(engine).sweep() == 4

    assert await left(conn) == []
    unswept = select(tables.run_tombstones.c.run_id).where(~tables.run_tombstones.c.is_swept)
    assert (await conn.execute(unswept)).all() == []


async def test_one_replica_sweeps_at_a_time(engine: AsyncEngine, conn: AsyncConnection) -> None:
    await add_ended(conn, 1)
    async with engine.connect() as other:
        await other.execution_options(isolation_level="READ COMMITTED")
        assert await purging.try_sweep_lock(other)

        assert await sweeper(engine).sweep() == 0

        await other.rollback()
    assert await sweeper(engine).sweep() == 1


async def test_request_ids_go_after_a_day_and_tombstones_after_three_months(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    for hours in (24, 26):
        await conn.execute(
            insert(tables.requests).values(
                namespace="default",
                request_id=f"r{hours}",
                method="m",
                digest="d",
                response={},
                created_at=datetime.now(UTC) - timedelta(hours=hours),
            )
        )
    await add_ended(conn, 1)
    await add_ended(conn, 2)
    await sweeper(engine).sweep()
    old = update(tables.run_tombstones).where(tables.run_tombstones.c.run_id == ulid(1))
    await conn.execute(old.values(purged_at=datetime.now(UTC) - timedelta(days=91)))
    await sweeper(engine).sweep()

    assert list((await conn.execute(select(tables.requests.c.request_id))).scalars()) == ["r24"]
    stones = select(tables.run_tombstones.c.run_id)
    assert list((await conn.execute(stones)).scalars()) == [ulid(2)]


async def test_more_trees_than_one_transaction_takes_go_in_one_pass(
    engine: AsyncEngine, conn: AsyncConnection
) -> None:
    """Also past some that have to stay, which are the oldest."""
    for number in range(purging.RUNS_AT_ONCE + 3):
        await add_run(
            conn,
            ulid(number),
            status="completed",
            ended_at=LONG_AGO + timedelta(seconds=number),
        )
    live = await add_run(conn, ulid(9_999), parent_workflow_run_id=ulid(0))

    await sweeper(engine).sweep()

    assert await left(conn) == [ulid(0), live]


async def test_runs_that_are_too_large_to_go_together_go_in_smaller_portions(
    database: str, conn: AsyncConnection
) -> None:
    """Their hundred events take 20 ms each, and a statement may take no more than a second."""
    for number in range(50):
        await add_ended(conn, number)
    await conn.execute(
        text("""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.02); RETURN OLD; END $$""")
    )
    await conn.execute(
        text("""
        CREATE TRIGGER slow BEFORE DELETE ON run_events
            FOR EACH ROW EXECUTE FUNCTION dawdle()""")
    )
    async with engine_of(f"{database}?options=-c%20statement_timeout%3D1000") as hurried:
        assert await sweeper(hurried).sweep() == 50

    assert await left(conn) == []

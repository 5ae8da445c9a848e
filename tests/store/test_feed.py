"""The feed's read: the order of commits, what is held back, filters that look only so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest_asyncio
from sqlalchemy import text

from runkon_server.store.feed_floors import expired_below, raise_floors
from runkon_server.store.reads.feed import (
    START,
    FeedPage,
    FeedPlace,
    FeedQuery,
    events_of_namespace,
    read_horizon,
    system_identifier,
)
from support.rows import add_events, add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

ONE, TWO, THREE = ulid(1), ulid(2), ulid(3)
PROGRESS = ("step_progress", {"step_id": "s", "progress": "on it"})
EVENT = "INSERT INTO run_events VALUES (%s, %s, 1, 'step_progress', now(), 1, DEFAULT, '{}')"


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """Three runs, the last of another workflow, with labels."""
    async with engine_of(database) as engine, engine.connect() as connection:
        await add_run(connection, ONE)
        await add_run(connection, TWO, namespace="other")
        await add_run(
            connection, THREE, workflow_name="x", details={"labels": {"team": "core", "a": "b"}}
        )
        yield connection


async def read(
    conn: AsyncConnection, after: FeedPlace = START, limit: int = 100, **query: Any
) -> FeedPage:
    horizon = await read_horizon(conn)
    span = query.pop("span", 5_000)
    return await events_of_namespace(
        conn,
        FeedQuery(**{"namespace": "default"} | query),
        after=after,
        below=horizon.xid,
        limit=limit,
        span=span,
    )


def names(page: FeedPage) -> list[tuple[str, int]]:
    return [(row.run_id, row.seq) for row in page.rows]


async def settled(conn: AsyncConnection) -> None:
    """Wait until all that is committed is below the horizon; others have transactions as well."""

    async def is_settled() -> bool:
        return (await read_horizon(conn)).held_s is None

    await eventually(is_settled, "the horizon")


async def test_events_come_in_the_order_of_their_commits(conn: AsyncConnection) -> None:
    """Not in that of runs, nor of sequences; those of another namespace do not come."""
    await add_events(conn, THREE, PROGRESS)
    await add_events(conn, ONE, PROGRESS, PROGRESS)
    await add_events(conn, TWO, PROGRESS)
    await add_events(conn, THREE, PROGRESS, first_seq=2)
    await settled(conn)

    page = await read(conn)

    assert names(page) == [(THREE, 1), (ONE, 1), (ONE, 2), (THREE, 2)]
    assert not page.more
    assert names(await read(conn, page.rows[1].place)) == [(ONE, 2), (THREE, 2)]
    assert names(await read(conn, page.examined)) == []


async def test_what_an_older_open_transaction_may_precede_is_held_back(
    conn: AsyncConnection, database: str
) -> None:
    """An event committed meanwhile would be above the older one that is not there yet."""
    await settled(conn)
    async with await psycopg.AsyncConnection.connect(database) as older:
        await older.execute(EVENT, (ONE, 1))
        await add_events(conn, THREE, PROGRESS)

        held = await read_horizon(conn)
        nothing = await read(conn)
        await older.commit()

    await settled(conn)
    assert held.held_s is not None
    assert names(nothing) == []
    assert names(await read(conn)) == [(ONE, 1), (THREE, 1)]


async def test_a_page_goes_on_within_a_transaction(conn: AsyncConnection) -> None:
    """Page by page, one event each, over two transactions of several events."""
    await add_events(conn, ONE, *[PROGRESS] * 3)
    await add_events(conn, THREE, *[PROGRESS] * 2)
    await settled(conn)

    seen, place = [], START
    while True:
        page = await read(conn, place, limit=1)
        if not page.rows:
            break
        seen += names(page)
        place = page.examined

    assert seen == [(ONE, 1), (ONE, 2), (ONE, 3), (THREE, 1), (THREE, 2)]


async def test_a_filter_looks_only_so_far_and_says_how_far(conn: AsyncConnection) -> None:
    """Four events that are looked at and one that is wanted: the pages reach it in the end."""
    await add_events(conn, ONE, *[PROGRESS] * 4)
    await add_events(conn, THREE, PROGRESS)
    await settled(conn)

    first = await read(conn, workflow_name="x", span=3)
    second = await read(conn, first.examined, workflow_name="x", span=3)

    assert (names(first), first.more, first.examined.seq) == ([], True, 3)
    assert (names(second), second.more) == ([(THREE, 1)], False)


async def test_every_filter_must_hold(conn: AsyncConnection) -> None:
    gate: tuple[str, dict[str, Any]] = ("gate_waiting", {"gate": {}})
    await add_events(conn, ONE, PROGRESS, gate)
    await add_events(conn, THREE, gate, PROGRESS)
    await settled(conn)

    assert names(await read(conn, kinds=frozenset({"gate_waiting"}))) == [(ONE, 2), (THREE, 1)]
    assert names(await read(conn, labels=(("team", "core"),))) == [(THREE, 1), (THREE, 2)]
    assert names(await read(conn, labels=(("team", "core"), ("a", "c")))) == []
    found = await read(conn, workflow_name="x", kinds=frozenset({"step_progress"}))
    assert names(found) == [(THREE, 2)]


async def test_retention_leaves_a_floor_per_namespace(conn: AsyncConnection) -> None:
    await add_events(conn, ONE, PROGRESS, PROGRESS)
    await settled(conn)
    last = (await read(conn)).examined.xid

    await raise_floors(conn, [ONE])
    await add_events(conn, THREE, PROGRESS)
    await raise_floors(conn, [])

    assert await expired_below(conn, "default") == last
    assert await expired_below(conn, "other") == 0


async def test_the_feed_reads_its_index(conn: AsyncConnection) -> None:
    """On a table with rows, from anywhere: as many of them as a page looks at."""
    await conn.execute(
        text("INSERT INTO run_events SELECT :id, n, 1, 'step_progress', now(), 1,"
             " (n / 10)::text::xid8, '{}' FROM generate_series(1, 20000) n"),
        {"id": ONE},
    )  # fmt: skip
    await conn.execute(text("ANALYZE run_events"))
    plan = await conn.execute(
        text("EXPLAIN SELECT xid, run_id, seq FROM run_events WHERE xid >= '1000'::xid8 AND xid <"
             " '2000'::xid8 ORDER BY xid, run_id, seq LIMIT 100")
    )  # fmt: skip

    assert "xid_idx" in (shown := "\n".join(row[0] for row in plan)), shown
    assert "Incremental Sort" in shown


async def test_a_cluster_has_an_identity(conn: AsyncConnection) -> None:
    assert await system_identifier(conn) == await system_identifier(conn) > 0

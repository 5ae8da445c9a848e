"""Runs found by filters: what a look at every run would find, in any order and any pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest_asyncio
from sqlalchemy import event, text

from runkon_server.core.filter_parsing import parse_filter
from runkon_server.store.reads.finding import RunQuery, count_runs, find_ids
from support.rows import NOON, add_run, engine_of, ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

STATUSES = ("waiting", "completed", "failed", "running", "pending")
RUNS = 60


def _labels(number: int) -> dict[str, str]:
    return {"team": f"t{number % 4}", "region": f"r{number % 2}"} if number % 7 else {}


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A database of sixty runs of three workflows, with and without labels."""
    async with engine_of(database) as engine, engine.connect() as connection:
        for number in range(RUNS):
            await add_run(
                connection,
                ulid(number),
                status=STATUSES[number % 5],
                workflow_name=f"w{number % 3}",
                created_at=NOON + timedelta(minutes=number),
                started_at=None if number % 5 == 4 else NOON + timedelta(minutes=number),
                priority=number % 4,
                dry_run=number % 2 == 0,
                parent_workflow_run_id=ulid(0) if number % 10 == 9 else None,
                details={
                    "labels": _labels(number),
                    "key": f"k{number}" if number % 6 == 0 else None,
                    "root_run_id": ulid(0) if number % 10 == 9 else None,
                },
            )
        await add_run(connection, ulid(RUNS), namespace="other", status="running")
        yield connection


FILTERS: dict[str, Callable[[int], object]] = {
    "": lambda _: True,
    "status = waiting": lambda n: n % 5 == 0,
    "status != waiting": lambda n: n % 5 != 0,
    "NOT (status = waiting OR status = running)": lambda n: n % 5 not in (0, 3),
    "status = waiting AND status = running": lambda _: False,
    "workflow = w1": lambda n: n % 3 == 1,
    "workflow = w1 AND status = failed": lambda n: n % 3 == 1 and n % 5 == 2,
    "workflow != w1 AND status = failed": lambda n: n % 3 != 1 and n % 5 == 2,
    "workflow = w1 AND workflow = w2": lambda _: False,
    "(workflow = w1 OR workflow = w2) AND (status = failed OR status = completed)": lambda n: (
        n % 3 in (1, 2) and n % 5 in (1, 2)
    ),
    " OR ".join(f"workflow = w{n}" for n in (1, 3, 4, 5, 6)): lambda n: n % 3 == 1,
    "labels.team = t1": lambda n: n % 7 and n % 4 == 1,
    "labels.team != t1": lambda n: not (n % 7 and n % 4 == 1),
    "labels:team": lambda n: n % 7,
    "NOT labels.team:*": lambda n: not n % 7,
    "labels.team = t1 AND status = waiting AND workflow = w0": lambda n: (
        n % 7 and n % 4 == 1 and n % 5 == 0 and n % 3 == 0
    ),
    "labels.team = t1 AND labels.region = r1 AND NOT status = failed": lambda n: (
        n % 7 and n % 4 == 1 and n % 5 != 2
    ),
    "labels.team = t1 AND labels.region = r0": lambda _: False,
    "labels.team = t1 AND labels.team != t2 AND workflow != w0": lambda n: (
        n % 7 and n % 4 == 1 and n % 3
    ),
    f"labels.region = r1 AND parent_workflow_run_id = {ulid(0)}": lambda n: n % 7 and n % 10 == 9,
    "labels.region = r1 AND key:*": lambda _: False,
    "labels.region = r0 AND (key:* OR dry_run = false)": lambda n: n % 7 and n % 6 == 0,
    "labels.team = t1 OR labels.team = t2": lambda n: n % 7 and n % 4 in (1, 2),
    'create_time > "2026-03-01T12:30:00Z"': lambda n: n > 30,
    "create_time <= 2026-03-01T13:30:00+01:00": lambda n: n <= 30,
    "start_time < 2026-03-01T12:30:00Z": lambda n: n < 30 and n % 5 != 4,
    "NOT start_time < 2026-03-01T12:30:00Z": lambda n: not (n < 30 and n % 5 != 4),
    "end_time:*": lambda n: n % 5 in (1, 2),
    "key = k12": lambda n: n == 12,
    "key:*": lambda n: n % 6 == 0,
    "priority >= 2 AND priority < 3": lambda n: n % 4 == 2,
    "dry_run = true": lambda n: n % 2 == 0,
    "-dry_run = true": lambda n: n % 2 == 1,
    f"parent_workflow_run_id = {ulid(0)}": lambda n: n % 10 == 9,
    f"root_run_id = {ulid(0)}": lambda n: n == 0 or n % 10 == 9,
    "create_time > now-1h": lambda _: False,
    "create_time < now-1h": lambda _: True,
}


async def test_every_filter_finds_the_runs_it_describes(conn: AsyncConnection) -> None:
    """Each against a look at the numbers that the runs were made of, and its count as well."""
    for filter_text, meets in FILTERS.items():
        query = RunQuery(namespace="default", wanted=parse_filter(filter_text))
        found = await find_ids(conn, query, limit=100)
        counted = await count_runs(conn, query)

        expected = [ulid(n) for n in reversed(range(RUNS)) if meets(n)]
        assert found.ids == expected, filter_text
        assert found.examined is None
        assert counted == (len(expected), True), filter_text


async def test_pages_join_without_gap_or_repetition(conn: AsyncConnection) -> None:
    """In both orders, with pages shorter than the matches and walks shorter than the pages."""
    for filter_text, meets in FILTERS.items():
        for newest_first in (True, False):
            found, after = [], None
            while True:
                query = RunQuery(
                    namespace="default",
                    wanted=parse_filter(filter_text),
                    after=after,
                    newest_first=newest_first,
                )
                page = await find_ids(conn, query, limit=3, examine=7)
                found += page.ids
                after = page.examined
                if after is None:
                    break

            numbers = reversed(range(RUNS)) if newest_first else range(RUNS)
            assert found == [ulid(n) for n in numbers if meets(n)], filter_text


async def test_a_count_that_looked_at_too_many_says_so(conn: AsyncConnection) -> None:
    for filter_text in ("status = waiting", "dry_run = true", ""):
        query = RunQuery(namespace="default", wanted=parse_filter(filter_text))

        counted = await count_runs(conn, query, examine=5)

        assert not counted.is_exact
        assert counted.number <= 5


async def test_times_relative_to_now_go_by_the_clock_of_the_database(conn: AsyncConnection) -> None:
    """S22: what a replica's own clock says does not matter."""
    now = datetime.now(UTC)
    recent = await add_run(conn, ulid(RUNS + 1), created_at=now - timedelta(minutes=30))
    await add_run(conn, ulid(RUNS + 2), created_at=now - timedelta(minutes=90))

    query = RunQuery(namespace="default", wanted=parse_filter("create_time > now-1h"))

    assert (await find_ids(conn, query, limit=9)).ids == [recent]


async def test_label_rows_say_what_the_runs_own_labels_say(conn: AsyncConnection) -> None:
    """The trigger writes one row per label of every run that is inserted."""
    own = text(
        "SELECT d.namespace, l.key, l.value, d.run_id"
        " FROM run_details d, jsonb_each_text(d.labels) l ORDER BY d.run_id"
    )
    rows = text("SELECT namespace, key, value, run_id FROM run_labels ORDER BY run_id")

    labels = (await conn.execute(own)).all()

    assert len(labels) == 2 * sum(bool(n % 7) for n in range(RUNS))
    assert sorted((await conn.execute(rows)).all()) == sorted(labels)


async def test_every_statement_has_an_index_that_gives_its_order(conn: AsyncConnection) -> None:
    """No sort and no join of whole tables, planned for any parameters.

    Of so small a table the planner would read all, and sort it, unless it is told not to.
    """
    for setting in ("enable_seqscan = off", "enable_bitmapscan = off"):
        await conn.execute(text(f"SET {setting}"))
    await conn.execute(text("SET plan_cache_mode = force_generic_plan"))
    await conn.execute(text("ANALYZE"))
    driver = (await conn.get_raw_connection()).driver_connection
    assert driver is not None
    asked: list[tuple[str, object]] = []

    def note(_conn: object, _cursor: object, sql: str, given: object, *_rest: object) -> None:
        asked.append((sql, given))

    event.listen(conn.sync_connection, "before_cursor_execute", note)
    for filter_text in FILTERS:
        for after in (None, ulid(30)):
            query = RunQuery(namespace="default", wanted=parse_filter(filter_text), after=after)
            await find_ids(conn, query, limit=70)
            await count_runs(conn, query)

    assert len(asked) > 4 * len(FILTERS)
    for sql, given in asked:
        plan = await driver.execute(f"EXPLAIN {sql}", given, prepare=True)
        nodes = "\n".join([row[0] for row in await plan.fetchall()])
        assert not re.search(r"Seq Scan|Hash|Materialize|Sort  ", nodes), nodes

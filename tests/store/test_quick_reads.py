"""Quick reads on real PostgreSQL: the same rows as the pool gives, and what becomes of sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from runkon_server.store.failures import as_domain_error
from runkon_server.store.quick_reads import SESSIONS_MAX, Quick, QuickReads
from runkon_server.store.reads import following, runs, workflows
from support.rows import add_events, add_run, add_step, engine_of, ulid
from support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEASE_TTL_S = 30.0
BACKEND = Quick("SELECT pg_backend_pid()")
ECHO = Quick("SELECT %(word)s::text, pg_backend_pid() FROM pg_sleep(%(seconds)s::float8)")
NUMBERS = Quick("SELECT n, 100 %% 7 FROM unnest(%(numbers)s::int[]) AS n WHERE n <> %(no)s::int")
BROKEN = Quick("SELECT 1 / 0")
SESSION = "SELECT FROM pg_stat_activity WHERE pid = %s"
PREPARED = Quick("SELECT count(*) FROM pg_prepared_statements")


@pytest_asyncio.fixture
async def reads(database: str) -> AsyncIterator[QuickReads]:
    """As a replica has them, but that nobody gives up while a busy machine opens a session."""
    opened = QuickReads(database, LEASE_TTL_S, wait_s=PATIENCE_S)
    yield opened
    await opened.close()


async def backend(reads: QuickReads) -> int:
    ((pid,),) = await reads.fetch(BACKEND)
    found: int = pid
    return found


async def end_backend(database: str, pid: int) -> None:
    """Have PostgreSQL end a session, and wait until it is gone."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        ended = await conn.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        assert await ended.fetchone() == (True,)


async def test_parameters_are_found_by_their_names(reads: QuickReads) -> None:
    """An array of numbers is one; a doubled per cent sign is a single one."""
    assert await reads.fetch(NUMBERS, no=2, numbers=[1, 2, 3]) == [(1, 2), (3, 2)]
    with pytest.raises(KeyError):
        await reads.fetch(NUMBERS, numbers=[1])


async def test_rows_are_those_that_the_pool_gives(reads: QuickReads, database: str) -> None:
    """Runs with and without steps, labels, an end and a namespace of their own; two runs' heads."""
    async with engine_of(database) as engine, engine.connect() as conn:
        plain = await add_run(conn, ulid(1), last_seq=2)
        await add_events(conn, plain, ("step_started", {"a": "é\\"}), ("step_completed", {}))
        await add_step(conn, plain, "b.0001", status="running")
        ended = await add_run(
            conn,
            ulid(2),
            namespace="other",
            status="failed",
            last_seq=9,
            details={"labels": {"team": "a"}, "inputs": {"text": "%(x)s"}, "error": "no"},
        )
        ids, names = [plain, ended, ulid(3)], [("default", plain), ("other", ended)]
        wanted = [("default", "w"), ("default", "x")]

        assert await runs.known_runs(reads, ids) == await runs.runs_by_id(conn, ids)
        assert await runs.run_heads(reads, [*names, ("default", ended)]) == {
            (namespace, run_id): await runs.run_head(conn, namespace=namespace, run_id=run_id)
            for namespace, run_id in names
        }
        assert await workflows.newest_versions(reads, wanted) == await workflows.newest_hashes(
            conn, wanted
        )
        page = await following.page_above(reads, plain, 0, limit=5)
        assert page == await following.events_above(conn, plain, 0, limit=5)
        assert [event.seq for event in page] == [1, 2]
        assert await following.last_seqs(reads, ids) == {plain: 2, ended: 9}


async def test_a_session_is_used_again_also_after_a_statement_that_failed(
    reads: QuickReads,
) -> None:
    first = await backend(reads)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await reads.fetch(BROKEN)
    assert await backend(reads) == first


async def test_a_read_whose_session_was_lost_is_made_again(
    reads: QuickReads, database: str
) -> None:
    """Both idle sessions are ended: the next read does not know, and gets its answer."""
    answers = await asyncio.gather(*(reads.fetch(ECHO, word=w, seconds=0.05) for w in "ab"))
    pids = {pid for ((_, pid),) in answers}
    assert len(pids) == SESSIONS_MAX
    for pid in pids:
        await end_backend(database, pid)

    assert await backend(reads) not in pids


async def test_a_read_that_is_cancelled_leaves_its_answer_to_nobody(reads: QuickReads) -> None:
    slow = asyncio.create_task(reads.fetch(ECHO, word="slow", seconds=30))
    await asyncio.sleep(0)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow

    quick = await asyncio.gather(*(reads.fetch(ECHO, word=w, seconds=0) for w in "abcdef"))
    assert [word for ((word, _),) in quick] == list("abcdef")


async def test_who_does_not_get_a_turn_is_told_that_the_database_is_away(
    database: str,
) -> None:
    """All sessions are busy for longer than a read waits; afterwards there are turns again."""
    reads = QuickReads(database, LEASE_TTL_S, wait_s=0.2)
    slow = [
        asyncio.create_task(reads.fetch(ECHO, word="slow", seconds=30)) for _ in range(SESSIONS_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(psycopg.OperationalError) as refused:
        await backend(reads)
    for each in slow:
        each.cancel()
    await asyncio.wait(slow)

    domain_error = as_domain_error(refused.value)
    assert domain_error is not None
    assert domain_error.reason == "DATABASE_UNAVAILABLE"
    assert await backend(reads)
    await reads.close()


async def test_through_a_pooler_nothing_is_left_in_the_session(database: str) -> None:
    for is_pooled, expected in ((False, 1), (True, 0)):
        reads = QuickReads(database, LEASE_TTL_S, is_pooled=is_pooled)
        ((prepared,),) = await reads.fetch(PREPARED)
        await reads.close()
        assert prepared == expected, is_pooled


async def test_closing_ends_sessions_now_or_when_they_are_given_back(
    reads: QuickReads, database: str
) -> None:
    pid = await backend(reads)
    busy = asyncio.create_task(reads.fetch(ECHO, word="late", seconds=0.1))
    await asyncio.sleep(0)
    await reads.close()

    assert await busy == [("late", pid)]
    assert reads._free == []
    async with (
        asyncio.timeout(PATIENCE_S),
        await psycopg.AsyncConnection.connect(database, autocommit=True) as conn,
    ):
        while (await conn.execute(SESSION, (pid,))).rowcount:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

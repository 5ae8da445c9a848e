"""Round trips of many statements: what comes back, what an error leaves behind, what gets lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
import pytest_asyncio

from runkon_server.store import database as connections
from runkon_server.store.pipeline import Pipeline, encode
from support.engines import rogue_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEASE_TTL_S: Final = 30.0
MANY_BYTES: Final = 12_000_000
"""More than the buffers of a socket hold in either direction."""


@pytest_asyncio.fixture
async def pipeline(database: str) -> AsyncIterator[Pipeline]:
    """A pipeline as the committer opens it."""
    opened = Pipeline(await connections.connect_committer(database, LEASE_TTL_S))
    yield opened
    await opened.close()


async def test_every_statement_has_its_rows_in_the_types_of_the_driver(pipeline: Pipeline) -> None:
    instant = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert await pipeline.run(
        [
            ("SELECT $1::int + 1, $2::text, $3::timestamptz, $4::float8", (1, None, instant, 0.5)),
            ("SELECT 1 WHERE false", ()),
            ("SELECT jsonb_build_object('a', n) FROM generate_series(1, 2) AS n", ()),
        ]
    ) == [[(2, None, instant, 0.5)], [], [({"a": 1},), ({"a": 2},)]]


async def test_texts_of_an_array_arrive_as_they_were(pipeline: Pipeline) -> None:
    texts = ["", "NULL", 'a "quoted" one', "back\\slash", "{brace},comma", "line\nfeed", "é😀"]
    ((rows,),) = await pipeline.run([("SELECT $1::text[]", (texts,))])
    assert rows == (texts,)


async def test_after_an_error_nothing_more_is_executed_until_a_rollback(pipeline: Pipeline) -> None:
    """Also: the statement behind the error was not prepared, and is when it comes again."""
    await pipeline.run([("CREATE TABLE things (n int PRIMARY KEY)", ())])
    add = ("INSERT INTO things VALUES ($1::int)", (1,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        await pipeline.run([("BEGIN", ()), add, add, ("SELECT 'never'", ())])
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await pipeline.run([("SELECT 'refused'", ())])
    assert not pipeline.is_lost
    answers = await pipeline.run([("ROLLBACK", ()), ("SELECT 'never'", ()), ("TABLE things", ())])
    assert answers == [[], [("never",)], []]


async def test_who_asked_is_told_of_a_trip_before_it_returns_unless_a_statement_failed(
    pipeline: Pipeline,
) -> None:
    """A COMMIT that was answered is told at once; one behind an error never was."""
    told: list[str] = []
    trip = asyncio.create_task(
        pipeline.run([("SELECT 1", ())], executed=lambda: told.append(f"{trip.done()}"))
    )
    await trip
    with pytest.raises(psycopg.errors.DivisionByZero):
        await pipeline.run(
            [("BEGIN", ()), ("SELECT 1 / 0", ()), ("COMMIT", ())],
            executed=lambda: told.append("failed"),
        )

    assert told == ["False"]


async def test_what_goes_behind_is_a_transaction_of_its_own_that_nobody_waits_for(
    pipeline: Pipeline,
) -> None:
    """It is executed after the COMMIT, whatever it answers, and its answer is nobody else's."""
    await pipeline.run([("CREATE TABLE things (n int)", ())])
    add = ("INSERT INTO things VALUES ($1::int)", (1,))
    behind = ("INSERT INTO things SELECT -count(*) FROM things RETURNING n", ())

    assert await pipeline.run([("BEGIN", ()), add, ("COMMIT", ())], behind=behind) == [[], [], []]
    assert await pipeline.run([("TABLE things", ())], behind=("SELECT 1 / 0", ())) == [
        [(1,), (-1,)]
    ]
    assert await pipeline.run([("SELECT 'well'", ())]) == [[("well",)]]


async def test_nothing_goes_behind_a_transaction_that_failed(pipeline: Pipeline) -> None:
    await pipeline.run([("CREATE TABLE things (n int)", ())])
    behind = ("INSERT INTO things VALUES (1)", ())
    with pytest.raises(psycopg.errors.DivisionByZero):
        await pipeline.run([("BEGIN", ()), ("SELECT 1 / 0", ()), ("COMMIT", ())], behind=behind)

    assert await pipeline.run([("ROLLBACK", ()), ("TABLE things", ())]) == [[], []]


async def test_what_became_of_what_went_behind_is_told_by_the_next_trip(database: str) -> None:
    """Also what fails as late as at its own commit; but not what a failed transaction refused."""
    told: list[Exception | None] = []
    conn = await connections.connect_committer(database, LEASE_TTL_S)
    pipeline = Pipeline(conn, behind_answered=told.append)
    await pipeline.run(
        [("CREATE TABLE things (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)", ())],
        behind=("INSERT INTO things VALUES (1)", ()),
    )
    assert told == []
    for failing in ("INSERT INTO things VALUES (1)", "SELECT 1 / 0", "no SQL"):
        await pipeline.run([("SELECT 1", ())], behind=(failing, ()))
    with pytest.raises(psycopg.errors.DivisionByZero):
        await pipeline.run([("BEGIN", ()), ("SELECT 1 / 0", ())], behind=("SELECT 1", ()))
    assert await pipeline.run([("ROLLBACK", ()), ("TABLE things", ())]) == [[], [(1,)]]
    await pipeline.close()

    assert [type(each) for each in told] == [
        type(None),
        psycopg.errors.UniqueViolation,
        psycopg.errors.DivisionByZero,
        psycopg.errors.SyntaxError,
    ]


async def test_a_statement_that_could_not_be_prepared_is_prepared_later(pipeline: Pipeline) -> None:
    ask = ("SELECT count(*) FROM later", ())
    with pytest.raises(psycopg.errors.UndefinedTable):
        await pipeline.run([ask])
    await pipeline.run([("CREATE TABLE later ()", ())])
    assert await pipeline.run([ask, ask]) == [[(0,)], [(0,)]]


async def test_large_texts_go_both_ways_in_one_trip(pipeline: Pipeline) -> None:
    """Neither side waits for the other to read first."""
    text = "x" * MANY_BYTES
    ask = ("SELECT $1::text", (text,))
    async with asyncio.timeout(60):
        answers = await pipeline.run([ask, ask, ("SELECT 1", ())])
    assert [len(rows[0][0]) for rows in answers[:2]] == [MANY_BYTES, MANY_BYTES]


@pytest.mark.parametrize("text", ["nul\x00", "half\ud800"])
async def test_a_text_that_cannot_be_sent_is_refused_before_anything_is(
    pipeline: Pipeline, text: str
) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        await pipeline.run([("SELECT 1", ()), ("SELECT $1::text", (text,))])
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        encode([text])
    assert await pipeline.run([("SELECT 2", ())]) == [[(2,)]]


async def test_a_session_that_is_ended_in_mid_trip_is_lost(
    pipeline: Pipeline, database: str
) -> None:
    (((pid,),),) = await pipeline.run([("SELECT pg_backend_pid()", ())])
    async with rogue_on(database) as rogue:
        sleeping = asyncio.create_task(pipeline.run([("SELECT pg_sleep(60)", ())]))
        await asyncio.sleep(0)
        await rogue.rows("SELECT pg_terminate_backend(%s)", pid)
        with pytest.raises(psycopg.Error) as caught:
            await sleeping
    assert connections.is_connection_loss(caught.value)
    with pytest.raises(psycopg.Error):
        await pipeline.run([("SELECT 1", ())])
    assert pipeline.is_lost

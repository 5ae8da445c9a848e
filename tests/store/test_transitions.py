"""What SQL itself refuses, whoever writes: ended runs, counters, second ends, second votes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import pytest_asyncio

from support.engines import rogue_on
from support.rows import ENDED, add_events, add_gate, add_run, add_vote, engine_of, ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.engines import Rogue

RUN: Final = ulid(1)
REOPENED: Final = [
    (status, wish)
    for status in ENDED
    for wish in ("running", "cancelling", *ENDED)
    if status != wish
]


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session of somebody who does not follow the rules."""
    async with rogue_on(database) as session:
        yield session


async def make(database: str, **columns: Any) -> None:
    async with engine_of(database) as engine, engine.connect() as conn:
        await add_run(conn, RUN, **columns)


@pytest.mark.parametrize(("status", "wish"), REOPENED)
async def test_the_status_of_an_ended_run_is_final(
    database: str, rogue: Rogue, status: str, wish: str
) -> None:
    await make(database, status=status)
    ended = "now()" if wish in ENDED else "NULL"

    with pytest.raises(psycopg.DatabaseError, match="is final"):
        await rogue.rows(f"UPDATE workflow_runs SET status = %s, ended_at = {ended}", wish)


async def test_a_higher_epoch_reopens_a_run(database: str, rogue: Rogue) -> None:
    await make(database, status="failed")

    await rogue.rows("UPDATE workflow_runs SET status = 'running', ended_at = NULL, epoch = 2")

    assert (await rogue.run(RUN))["status"] == "running"


@pytest.mark.parametrize("wish", ["running", "waiting", "completed", "failed"])
async def test_a_cancelling_run_can_only_be_cancelled(
    database: str, rogue: Rogue, wish: str
) -> None:
    await make(database, status="cancelling")

    with pytest.raises(psycopg.DatabaseError, match="refused"):
        await rogue.rows(
            "UPDATE workflow_runs SET status = %s, blocked_on = '{}',"
            " ended_at = CASE WHEN %s IN ('completed', 'failed') THEN now() END",
            wish,
            wish,
        )


@pytest.mark.parametrize("counter", ["generation", "last_seq", "fact_seq", "epoch"])
async def test_counters_never_go_back(database: str, rogue: Rogue, counter: str) -> None:
    await make(database, generation=5, last_seq=5, fact_seq=5, epoch=5)

    with pytest.raises(psycopg.DatabaseError, match="refused"):
        await rogue.rows(f"UPDATE workflow_runs SET {counter} = 4")


@pytest.mark.parametrize(
    "change",
    [
        "owner_token = 'o'",
        "lease_until = now()",
        "applied_fact_seq = 1",
        "ended_at = now()",
        "status = 'waiting'",
        "status = 'completed'",
        "status = 'odd'",
    ],
)
async def test_rows_that_make_no_sense_are_refused(
    database: str, rogue: Rogue, change: str
) -> None:
    await make(database)

    with pytest.raises(psycopg.errors.CheckViolation):
        await rogue.rows(f"UPDATE workflow_runs SET {change}")


@pytest.mark.parametrize("kind", ["run_finished", "always_started"])
async def test_some_events_come_once_per_epoch(database: str, kind: str) -> None:
    async with engine_of(database) as engine, engine.connect() as conn:
        await add_run(conn, RUN)
        await add_events(conn, RUN, (kind, {}))

        with pytest.raises(Exception, match="duplicate key"):
            await add_events(conn, RUN, (kind, {}), first_seq=2)


async def test_an_event_number_is_taken_once(database: str) -> None:
    async with engine_of(database) as engine, engine.connect() as conn:
        await add_run(conn, RUN)
        await add_events(conn, RUN, ("run_started", {}))

        with pytest.raises(Exception, match="duplicate key"):
            await add_events(conn, RUN, ("run_waiting", {}))


async def test_a_principal_votes_once(database: str) -> None:
    async with engine_of(database) as engine, engine.connect() as conn:
        await add_run(conn, RUN)
        gate_id = await add_gate(conn, RUN, "b.0000")
        await add_vote(conn, gate_id, "ann")

        with pytest.raises(Exception, match="duplicate key"):
            await add_vote(conn, gate_id, "ann", n=2, decision="reject")

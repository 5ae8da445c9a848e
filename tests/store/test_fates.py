"""Whose transaction an id stands for is asked of the rows, not of the id alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from runkon_server.store.fates import Fate, fate_of
from runkon_server.store.locking import INSTANT, Locked
from support.engines import rogue_on
from support.rows import ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.engines import Rogue

RUN = ulid(1)
APPEND = """
INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload)
VALUES (%s, 1, 1, 'run_started', %s, 1, '{}')"""


@pytest.fixture
async def writer(database: str) -> AsyncIterator[Rogue]:
    async with rogue_on(database) as session:
        yield session


async def begin(writer: Rogue) -> Locked:
    """Begin a transaction as a batch does."""
    await writer.rows("BEGIN")
    now, xid, timeline = (await writer.row(INSTANT)).values()
    empty: dict[Any, Any] = {}
    return Locked(now, xid, timeline, set(), empty, empty, empty, empty, empty, empty)


async def fate(database: str, locked: Locked, witness: tuple[str, int] | None) -> Fate:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        return await fate_of(conn, locked, witness)


async def test_a_transaction_is_open_until_it_has_ended(database: str, writer: Rogue) -> None:
    locked = await begin(writer)
    await writer.rows(APPEND, RUN, locked.now)
    before = await fate(database, locked, (RUN, 1))
    await writer.rows("COMMIT")

    assert before is Fate.OPEN
    assert await fate(database, locked, (RUN, 1)) is Fate.COMMITTED


async def test_a_transaction_that_was_rolled_back_is_aborted(database: str, writer: Rogue) -> None:
    locked = await begin(writer)
    await writer.rows("ROLLBACK")

    assert await fate(database, locked, (RUN, 1)) is Fate.ABORTED
    assert await fate(database, locked, None) is Fate.ABORTED


async def test_9_an_id_that_was_given_out_again_proves_nothing(
    database: str, writer: Rogue
) -> None:
    """After a crash the id of a lost transaction is another one's, which committed."""
    other = await begin(writer)
    await writer.rows(APPEND, ulid(2), other.now)
    await writer.rows("COMMIT")

    assert await fate(database, other, (RUN, 1)) is Fate.ABORTED
    assert await fate(database, other, None) is Fate.UNKNOWN


async def test_11_another_timeline_cannot_say(database: str, writer: Rogue) -> None:
    locked = await begin(writer)
    await writer.rows(APPEND, RUN, locked.now)
    await writer.rows("COMMIT")
    locked.timeline += 1

    assert await fate(database, locked, (RUN, 1)) is Fate.UNKNOWN

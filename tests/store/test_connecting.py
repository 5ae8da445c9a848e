"""Sessions that are given up while they are being opened leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from runkon_server.store import database as connections
from support.engines import rogue_on
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.engines import Rogue

SESSIONS = """
SELECT count(*) AS n FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (datname = current_database() OR datname IS NULL)"""


async def _read(dsn: str) -> None:
    engine = connections.create_reads(dsn, 30.0, 1)
    try:
        async with engine.connect() as conn:
            await connections.fetch(conn, "SELECT pg_sleep(60)", {})
    finally:
        await connections.close_reads(engine)


async def _listen(dsn: str) -> None:
    conn = await connections.connect_listener(dsn, 30.0)
    try:
        await conn.execute("SELECT pg_sleep(60)")
    finally:
        await conn.close()


async def nobody_is_left(rogue: Rogue) -> bool:
    """Whether there are no backends of this database, or that do not know theirs yet."""
    return bool((await rogue.row(SESSIONS))["n"] == 0)


@pytest.mark.parametrize("use", [_read, _listen])
async def test_a_cancel_in_the_middle_of_the_handshake_closes_the_session(
    database: str, use: Callable[[str], Awaitable[None]]
) -> None:
    """At ever later moments; in mid-handshake it would hold up DROP DATABASE for a minute."""
    async with rogue_on(database) as rogue:
        for turns in range(12):
            opening = asyncio.ensure_future(use(database))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await opening
            await eventually(lambda: nobody_is_left(rogue), "the session ends", within_s=40)


async def test_a_session_in_use_at_the_end_is_closed_when_it_is_given_back(database: str) -> None:
    """It serves to its end whoever has it; the idle one beside it is closed at once."""
    async with rogue_on(database) as rogue:
        reads = connections.create_reads(database, 30.0, 2)
        async with reads.connect() as used:
            async with reads.connect():
                pass
            await connections.close_reads(reads)
            answer = await connections.fetch(used, "SELECT 1 AS n", {})
            assert [tuple(row) for row in answer] == [(1,)]

        await eventually(lambda: nobody_is_left(rogue), "the session in use is closed")

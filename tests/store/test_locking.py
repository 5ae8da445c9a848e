"""The first half of a batch: it waits for whoever changes a row, and sees what has become of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from runkon_server.store.locking import Wants, lock
from runkon_server.store.pipeline import Pipeline
from support.engines import rogue_on
from support.rows import add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from datetime import datetime

    from runkon_server.store.locking import Locked
    from support.engines import Rogue

RUN = ulid(1)
STEAL = """
UPDATE workflow_runs SET owner_token = 'thief', lease_until = now(), generation = 2 WHERE id = %s"""


async def is_waiting(rogue: Rogue) -> bool:
    return bool(await rogue.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))


async def locked_during_a_steal(database: str, thief: Rogue) -> tuple[Locked, datetime]:
    """What a batch sees that began while a steal was under way, and an instant before its end."""
    pipeline = Pipeline(await psycopg.AsyncConnection.connect(database, autocommit=True))
    try:
        async with rogue_on(database) as witness:
            await thief.rows("BEGIN")
            await thief.rows(STEAL, RUN)
            locking = asyncio.create_task(lock(pipeline, Wants(runs={RUN})))
            await eventually(lambda: is_waiting(witness), "the batch waits for the row")
            now: datetime = (await thief.row("SELECT clock_timestamp() AS now"))["now"]
            await thief.rows("COMMIT")
            return await locking, now
    finally:
        await pipeline.close()


async def test_a_batch_that_waited_for_a_steal_sees_the_new_owner(database: str) -> None:
    """So its fence fails; and its instant is one after the wait, not that of its beginning."""
    async with engine_of(database) as engine, engine.connect() as conn:
        await add_run(conn, RUN)
    async with rogue_on(database) as thief:
        locked, before = await locked_during_a_steal(database, thief)

    assert (locked.runs[RUN].owner_token, locked.runs[RUN].generation) == ("thief", 2)
    assert locked.now > before

"""Somebody listens and never reads: PostgreSQL's queue of notifications fills up, for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from structlog.testing import capture_logs

from runkon_server.store.embedded_binaries import find_bindir, major_version
from runkon_server.store.migrations import upgrade
from runkon_server.store.reads.queue import notifications_ratio
from support.engines import Worker, engine_on, rogue_on, start, until, vote
from support.postmasters import running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.engines import Rogue
    from support.postmasters import Postmaster

pytestmark = pytest.mark.faults

PAGES = 64
"""The smallest queue that PostgreSQL offers; usually it takes 8 GiB."""
SIZABLE_SINCE = 17
STORM = f"""
SELECT pg_notify('storm', lpad(n::text, 7900, 'x')) FROM generate_series(1, {2 * PAGES}) AS n"""


@pytest.fixture(scope="module")
def postmaster(session_folder: Path) -> Iterator[Postmaster]:
    """A server whose queue is full after half a mebibyte, with a migrated database `template`."""
    if major_version(find_bindir()) < SIZABLE_SINCE:
        pytest.skip("before PostgreSQL 17 the queue takes 8 GiB, whatever is set")
    with running(session_folder / "notifications", max_notify_queue_pages=str(PAGES)) as server:
        server.execute("CREATE DATABASE template")
        upgrade(server.dsn("template"))
        yield server


async def fill(rogue: Rogue) -> None:
    """Notify until PostgreSQL refuses to."""
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="NOTIFY queue"):
        await rogue.rows(STORM)


async def until_waiting(rogue: Rogue, run_id: str) -> None:
    async def waits() -> bool:
        return bool((await rogue.run(run_id))["status"] == "waiting")

    await eventually(waits, "the gate is open")


async def test_25_a_full_queue_of_notifications_costs_hints_only(
    database: str, rogue: Rogue
) -> None:
    """A session listens in an open transaction; the worker and the vote are at another replica.

    The task of a lost worker is queued again, which is told in another way than what is new.
    """
    body = "call build gate human_approval { name = check } call build"
    async with rogue_on(database) as deaf:
        await deaf.rows("LISTEN storm")
        await deaf.rows("BEGIN")
        await deaf.rows("SELECT 1")
        with capture_logs() as logs:
            async with engine_on(database) as owner, engine_on(database) as other:
                await until(
                    lambda: owner.stats.peers == other.stats.peers == 1, "they see each other"
                )
                await fill(rogue)
                worker = Worker(other, "build").credit(2)
                run_id = (await owner.start_run(start(body))).run_id
                await worker.lease()
                await rogue.rows("UPDATE tasks SET lease_until = now() WHERE state = 'leased'")
                again = await worker.lease(1)
                await worker.answer(again)
                await until_waiting(rogue, run_id)
                await other.resolve_gate(vote(run_id, "ann"))
                await worker.credit().answer(await worker.lease(2))
                status = await rogue.ended(run_id)
            full = (await rogue.row("SELECT pg_notification_queue_usage() AS ratio"))["ratio"]
        await deaf.rows("ROLLBACK")
    async with engine_on(database) as engine, engine.reads.connect() as conn:
        assert await notifications_ratio(conn) < 0.1
        await rogue.rows("SELECT pg_notify('storm', '')")

    told = [record["event"] for record in logs]
    assert status == "completed"
    assert again.delivery == 1
    assert full > 0.9
    assert "hints.lost" in told
    assert {"loop.failed", "replica.loop_failed", "scan.failed"}.isdisjoint(told)
    assert told.count("replica.stopped") == 2
    await rogue.assert_sound()

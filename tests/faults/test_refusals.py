"""PostgreSQL answers, but not as asked: read-only, full, without a free session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from runkon_client import Client
from runkon_client.errors import UnavailableError
from runkon_client.values import RunStatus
from runkon_server import errors
from runkon_server.api.health import ask_health
from runkon_server.store.migrations import upgrade
from support.clusters import impatient, replicas
from support.engines import Worker, engine_on, rogue_on, start, until
from support.postmasters import running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.clusters import Replica
    from support.engines import Rogue
    from support.postmasters import Postmaster

pytestmark = pytest.mark.faults


def set_read_only(administrator: psycopg.Connection, value: str) -> None:
    """For every session, at once; the administrator's own is left out."""
    administrator.execute("SET default_transaction_read_only = off")
    administrator.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
    administrator.execute("SELECT pg_reload_conf()")


async def ready(replica: Replica, status: str) -> None:
    async def is_so() -> bool:
        return await asyncio.to_thread(ask_health, replica.address, timeout_s=30) == status

    await eventually(is_so, f"the replica is {status}")


async def test_22_a_read_only_database_is_read_and_heals(
    database: str, administrator: psycopg.Connection
) -> None:
    """Not ready; reads are answered, changes refused with the reason; all goes on afterwards."""
    source = "workflow w { gate human_approval { name = go } call echo }"
    with replicas(database) as (one,):
        async with Client(one.address) as client, impatient(one.address) as once:
            run = await client.start_run(source=source)
            set_read_only(administrator, "on")
            try:
                await ready(one, "NOT_SERVING")
                seen = await client.run(run.id).get()
                with pytest.raises(UnavailableError) as refused:
                    await once.start_run(source=source)
                with pytest.raises(UnavailableError):
                    await once.run(run.id).gate("go").approve()
            finally:
                set_read_only(administrator, "off")
            await ready(one, "SERVING")
            await client.run(run.id).gate("go").approve()
            ended = await run.wait()

    assert seen.id == run.id
    assert refused.value.reason == "DATABASE_READ_ONLY"
    assert ended.status is RunStatus.COMPLETED


async def test_22_an_owner_keeps_its_decision_until_it_can_be_written(
    database: str, rogue: Rogue, administrator: psycopg.Connection
) -> None:
    """A worker reports while nothing can be written; the report counts, once."""
    async with engine_on(database) as engine:
        worker = Worker(engine, "build").credit(2)
        run_id = (await engine.start_run(start("call build call build"))).run_id
        first = await worker.lease()
        set_read_only(administrator, "on")
        try:
            answering = asyncio.create_task(worker.answer(first))
            await until(lambda: engine._committer.trouble is not None, "the refusal is seen")
            with pytest.raises(errors.DatabaseReadOnlyError):
                await engine.start_run(start())
        finally:
            set_read_only(administrator, "off")
        await answering
        await worker.answer(await worker.lease(1))

        assert await rogue.ended(run_id) == "completed"
        assert (await rogue.kinds(run_id)).count("step_completed") == 2


def take_all(dsn: str, sessions: list[psycopg.Connection]) -> None:
    """Take every session that the server still has."""
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            sessions.append(psycopg.connect(dsn, autocommit=True))


async def test_20_without_free_sessions_callers_are_told_and_leases_kept(
    postmaster: Postmaster, database: str, rogue: Rogue
) -> None:
    """The committer's sessions are killed and taken by others; the renewal has its own.

    Should that be lost as well, or the lock that says who is alive, the replica drops its runs and
    takes them up again under another token; callers do not notice, but for the generation.
    """
    async with engine_on(database, read_connections=2, lease_ttl_s=9.0, linger_s=60.0) as engine:
        worker = Worker(engine, "build").credit()
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        before = await rogue.run(run_id)
        sessions: list[psycopg.Connection] = []
        try:
            await asyncio.to_thread(take_all, postmaster.dsn(), sessions)
            await rogue.rows(
                """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                   WHERE query = 'COMMIT' AND pid <> pg_backend_pid()
                     AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"""
            )
            await asyncio.to_thread(take_all, postmaster.dsn(), sessions)
            with pytest.raises(errors.UnavailableError):
                await engine.start_run(start())

            async def renewed() -> bool:
                row = await rogue.run(run_id)
                return bool(row["lease_until"] > before["lease_until"])

            await eventually(renewed, "the lease is renewed")
        finally:
            for each in sessions:
                each.close()
        await worker.answer(lease)

        assert await rogue.ended(run_id) == "completed"
        assert (await rogue.run(run_id))["generation"] - before["generation"] in (0, 1)


@pytest.fixture
def small_disk(session_folder: Path) -> Iterator[Path]:
    """A file system of 200 MB in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = session_folder / "small"
    folder.mkdir()
    options = "size=200m,mode=0711"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "runkon-test", folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


async def test_21_a_full_disk_loses_nothing_that_was_acknowledged(small_disk: Path) -> None:
    """PostgreSQL refuses or crashes; when there is room again, every acknowledged run ends."""
    settings = {"min_wal_size": "32MB", "max_wal_size": "32MB", "wal_keep_size": "0"}
    acked: list[str] = []
    with running(small_disk / "server", **settings) as server:
        server.execute("CREATE DATABASE full_disk")
        dsn = server.dsn("full_disk")
        upgrade(dsn)
        async with engine_on(dsn) as engine:
            acked.append((await engine.start_run(start())).run_id)
            ballast = small_disk / "ballast"
            fill(ballast)
            refusal = None
            while refusal is None:
                try:
                    inputs = {"text": "x" * 50_000}
                    acked.append((await engine.start_run(start(inputs=inputs))).run_id)
                except errors.UnavailableError as error:
                    refusal = error
            ballast.unlink()
            if not server.is_running:
                await asyncio.to_thread(server.start)

            async def starts_again() -> bool:
                try:
                    acked.append((await engine.start_run(start())).run_id)
                except errors.UnavailableError:
                    await asyncio.sleep(0.1)
                    return False
                return True

            await eventually(starts_again, "runs are started again")
            async with rogue_on(dsn) as rogue:
                assert await rogue.all_ended(acked) == {"completed"}
                await rogue.assert_sound()


def fill(path: Path) -> None:
    """Take all the room there is."""
    room = shutil.disk_usage(path.parent).free
    with path.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, room)

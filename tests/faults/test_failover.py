"""Fault 11: a standby takes over, with everything its primary had or without the last of it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runkon_client import Client
from runkon_client.values import RunStatus
from runkon_server.runtime.commands import AckStatus
from runkon_server.store.migrations import upgrade
from support.clusters import replicas
from support.engines import Worker, engine_on, report, rogue_on, start, until
from support.forwarders import Forwarder, forwarder_to
from support.postmasters import IMMEDIATE, Postmaster, caught_up, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.engines import Rogue

pytestmark = pytest.mark.faults

DATABASE = "runkon"
THREE = "call a call b call c"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary with a standby, and the address that leads to whichever is in charge."""

    primary: Postmaster
    standby: Postmaster
    address: Forwarder

    @property
    def dsn(self) -> str:
        return self.address.dsn(DATABASE)

    async def leave_behind(self) -> None:
        """From now on the standby hears of nothing."""
        await asyncio.to_thread(caught_up, self.primary, self.standby)
        await asyncio.to_thread(self.standby.stop)

    async def crash(self) -> None:
        """The primary is gone for good."""
        self.address.cut()
        await asyncio.to_thread(self.primary.stop, IMMEDIATE)

    async def promote(self) -> None:
        """The standby takes over with what it has; nobody is led there yet."""
        if not self.standby.is_running:
            self.standby.settings["primary_conninfo"] = ""
            await asyncio.to_thread(self.standby.start)
        await asyncio.to_thread(self.standby.promote)

    def lead_there(self) -> None:
        """Lead everybody to the new primary."""
        self.address.point_at(self.standby.port)


@asynccontextmanager
async def a_pair(folder: Path) -> AsyncIterator[Pair]:
    with running(folder / f"primary-{next(_numbers)}") as primary:
        primary.execute("CREATE DATABASE {}", DATABASE)
        upgrade(primary.dsn(DATABASE))
        standby_folder = folder / f"standby-{next(_numbers)}"
        standby_folder.mkdir()
        standby = Postmaster(standby_folder)
        try:
            await asyncio.to_thread(standby.copy_of, primary)
            await asyncio.to_thread(standby.start)
            with forwarder_to(primary.port) as address:
                yield Pair(primary, standby, address)
        finally:
            standby.end()


@pytest.fixture
async def pair(session_folder: Path) -> AsyncIterator[Pair]:
    async with a_pair(session_folder) as made:
        yield made


async def test_11_a_failover_without_loss_goes_on_with_everything(pair: Pair) -> None:
    """Two processes, runs at work and at a gate: every one ends, owners changed exactly once."""
    source = "workflow w { gate human_approval { name = go } call echo }"
    with replicas(pair.dsn, 2) as (one, other):
        async with Client(one.address) as client:
            runs = [await client.start_run(source=source) for _ in range(5)]
            stream = runs[0].events()
            first = await anext(stream)
            await asyncio.to_thread(caught_up, pair.primary, pair.standby)
            await pair.crash()
            await pair.promote()
            pair.lead_there()
            after = await client.start_run(source=source)
            for run in (*runs, after):
                await client.run(run.id).gate("go").approve()
            ended = [await run.wait() for run in (*runs, after)]
            told = [first.seq, *[event.seq async for event in stream]]

        assert {run.status for run in ended} == {RunStatus.COMPLETED}
        assert told == [*range(1, len(told) + 1)]
        assert [len(each.server.records("timeline.changed")) for each in (one, other)] == [1, 1]
        assert [each.server.process.poll() for each in (one, other)] == [None, None]


async def test_11_what_the_standby_never_had_is_done_again(pair: Pair) -> None:
    """Step b was recorded on the old primary only: its owner drops what it knows, b is repeated.

    Callees outside can tell: the fence of the second b is above that of the c that is no more.
    """
    async with engine_on(pair.dsn, task_lease_s=3.0) as engine:
        worker = Worker(engine, "a", "b", "c").credit(3)
        run_id = (await engine.start_run(start(THREE))).run_id
        await worker.answer(await worker.lease())
        b = await worker.lease(1)
        await pair.leave_behind()
        await worker.answer(b)
        c = await worker.lease(2)
        lost = (await engine.start_run(start("call a"))).run_id
        await pair.crash()
        await pair.promote()
        pair.lead_there()
        async with rogue_on(pair.standby.dsn(DATABASE)) as rogue:
            worker.credit(3)
            again = await worker.lease(3)
            assert await worker.answer(c) is not AckStatus.ACCEPTED
            await worker.answer(again)
            await worker.answer(await worker.lease(4))

            assert await rogue.ended(run_id) == "completed"
            assert again.task_id == b.task_id
            assert int(again.fence.partition(".")[0]) > int(c.fence.partition(".")[0])
            assert (await rogue.kinds(run_id)).count("step_completed") == 3
            assert await rogue.rows("SELECT id FROM workflow_runs WHERE id = %s", lost) == []
            await rogue.assert_sound()


async def test_11_an_owner_of_the_old_timeline_writes_nothing(pair: Pair) -> None:
    """The row agrees in token, generation and counters, and nobody has cleared the owners yet.

    Then the timeline alone tells that the decision rests on rows that are gone.
    """
    async with engine_on(pair.dsn, lease_ttl_s=60.0, task_lease_s=60.0) as engine:
        worker = Worker(engine, "a", "b", "c").credit(3)
        run_id = (await engine.start_run(start(THREE))).run_id
        await worker.answer(await worker.lease())
        b = await worker.lease(1)
        await pair.leave_behind()
        await worker.answer(b)
        c = await worker.lease(2)
        async with rogue_on(pair.primary.dsn(DATABASE)) as before:
            old = await before.run(run_id)
            task = await before.row("SELECT * FROM tasks WHERE id = %s", c.task_id)
        await pair.crash()
        worker.session.report([report(c)])
        await pair.promote()
        async with rogue_on(pair.standby.dsn(DATABASE)) as rogue:
            await forge(rogue, old, task)
            pair.lead_there()
            await until(lambda: engine.stats.leases_lost, "the old owner notices")
            await until(lambda: run_id not in engine._registry.actors, "and forgets the run")

            kinds = await rogue.kinds(run_id)
            assert kinds.count("step_completed") == 1
            assert (await rogue.run(run_id))["status"] == "running"


async def forge(rogue: Rogue, old: dict[str, object], task: dict[str, object]) -> None:
    """Make the new primary agree with the old one in everything that a fence could look at."""
    await rogue.rows(
        """UPDATE workflow_runs SET fact_seq = %s, applied_fact_seq = %s, last_seq = last_seq,
               owner_token = %s, generation = %s WHERE id = %s""",
        *(
            old[name]
            for name in ("fact_seq", "applied_fact_seq", "owner_token", "generation", "id")
        ),
    )
    await rogue.rows(
        """INSERT INTO tasks (run_id, id, namespace, step_id, kind, action, state, token, worker_id,
               lease_until, created_at, payload)
           VALUES (%s, %s, %s, %s, 'action', 'c', 'leased', %s, 'w', %s, %s, %s)""",
        *(
            task[name]
            for name in (
                "run_id", "id", "namespace", "step_id", "token", "lease_until", "created_at",
                "payload",
            )
        ),
    )  # fmt: skip
    await rogue.rows(
        """UPDATE settings SET value = (SELECT system_identifier::text FROM pg_control_system())
               || '/' || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
           WHERE name = 'history'"""
    )

"""Others hold locks, sessions and clocks against us; hints are lost."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runkon_client import Actions, Client, RetryableError
from runkon_client.values import RunStatus
from runkon_server import errors
from support.clusters import Replica, replicas, rows, working
from support.engines import Worker, engine_on, rogue_on, start, until, vote
from support.servers import runkon_server
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_client import Task
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

pytestmark = pytest.mark.faults

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


async def test_17_a_locked_table_ends_no_replica(database: str, rogue: Rogue) -> None:
    """Everything waits or fails in time, the loops go on, and the run ends when it is over."""
    source = "workflow w { gate human_approval { name = go } call echo }"
    with replicas(database, 1, "--log-level", "debug") as (one,):
        async with Client(one.address) as client:
            run = await client.start_run(source=source)
            stream = run.events()
            seen = [(await anext(stream)).seq]
            await rogue.rows("BEGIN")
            await rogue.rows("LOCK TABLE workflow_runs IN ACCESS EXCLUSIVE MODE")
            records = one.server.records
            await until(lambda: records("scan.failed"), "a scan gives up")
            await until(lambda: records("hub.look_failed"), "the hub gives up")
            await rogue.rows("ROLLBACK")
            await client.run(run.id).gate("go").approve()
            ended = await run.wait()
            seen += [event.seq async for event in stream]

        assert ended.status is RunStatus.COMPLETED
        assert seen == [*range(1, len(seen) + 1)]
        assert records("loop.failed") == records("replica.loop_failed") == []


async def test_18_a_locked_run_holds_up_no_other(database: str, rogue: Rogue) -> None:
    """Somebody has one run FOR UPDATE and sleeps; the vote on it waits, all others go on.

    Whoever votes asks again when he is told of the conflict, as clients do.
    """
    async with engine_on(database) as engine, rogue_on(database) as other:
        gated = "gate human_approval { name = check } call echo"
        held = (await engine.start_run(start(gated))).run_id
        await rogue.parked(held)
        await rogue.rows("BEGIN")
        await rogue.rows("SELECT * FROM workflow_runs WHERE id = %s FOR UPDATE", held)

        async def vote_at_last() -> None:
            while True:
                with contextlib.suppress(errors.ConflictError):
                    await engine.resolve_gate(vote(held, "ann"))
                    return

        voting = asyncio.create_task(vote_at_last())
        await asyncio.sleep(0)
        free = [(await engine.start_run(start())).run_id for _ in range(10)]
        assert await other.all_ended(free) == {"completed"}
        assert not voting.done()
        await rogue.rows("ROLLBACK")
        await voting

        assert await other.ended(held) == "completed"


async def test_23_a_long_transaction_delays_no_run(database: str, rogue: Rogue) -> None:
    """A snapshot is held all the while: nothing of a run's own waits for the horizon."""
    await rogue.rows("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await rogue.rows("SELECT pg_current_xact_id(), count(*) FROM workflow_runs")
    with replicas(database) as (one,):
        async with Client(one.address) as client:
            run = await client.start_run(source="workflow w { call echo call echo }")
            told = [event.seq async for event in run.events()]
            ended = await run.wait()
    await rogue.rows("ROLLBACK")

    assert ended.status is RunStatus.COMPLETED
    assert told == [*range(1, ended.last_seq + 1)]


def deafen(engine: Engine) -> None:
    """Lose every notification."""
    engine._heard = _ignore  # type: ignore[method-assign] # the fault itself


def _ignore(hint: dict[str, Any]) -> None:
    del hint


async def test_24_without_notifications_the_polls_carry_on(database: str, rogue: Rogue) -> None:
    """The owner is one replica, the only worker is at the other, the vote comes to the other."""
    async with (
        engine_on(database, change=deafen, linger_s=60.0) as owner,
        engine_on(database, change=deafen) as other,
    ):
        Worker(other, "build").serve()
        body = "call build gate human_approval { name = check } call build"
        run_id = (await owner.start_run(start(body))).run_id

        async def waits() -> bool:
            return bool((await rogue.run(run_id))["status"] == "waiting")

        await eventually(waits, "the gate is open")
        await other.resolve_gate(vote(run_id, "ann"))

        assert await rogue.ended(run_id) == "completed"


@pytest.mark.skipif(FAKETIME is None, reason="no libfaketime here: apt install faketime")
async def test_26_s22_clocks_of_replicas_decide_nothing(database: str) -> None:
    """One replica lives an hour ahead, one an hour behind: far more than a lease lasts.

    Nobody takes anything over, the retry is neither early nor an hour late, and every instant that
    is stored is the database's.
    """
    attempts: list[int] = []
    actions = Actions()

    @actions.action("flaky")
    async def flaky(task: Task) -> None:
        attempts.append(task.attempt)
        if task.attempt == 0:
            raise RetryableError("not yet")

    source = 'workflow w { call flaky { retries = 1 retry_delay = "2s" } }'
    (begun,) = rows(database, "SELECT clock_timestamp()")[0]
    arguments = ["serve", "--listen", "127.0.0.1:0", "--lease-ttl", "30"]
    with (
        runkon_server(arguments, shifted(database, "+1h")) as ahead,
        runkon_server(arguments, shifted(database, "-1h")) as behind,
    ):
        one, other = Replica(ahead, ahead.started()), Replica(behind, behind.started())
        async with (
            Client(one.address) as client,
            Client(other.address) as watcher,
            working(other.address, actions),
        ):
            runs = [await client.start_run(source=source) for _ in range(3)]
            runs += [await watcher.start_run(source=source) for _ in range(3)]
            ended = [await watcher.run(run.id).wait() for run in runs]
        steals = [*ahead.records("lease.stolen"), *behind.records("lease.stolen")]

    (late,) = rows(
        database,
        "SELECT count(*) FROM run_events WHERE at NOT BETWEEN %s AND clock_timestamp()",
        begun,
    )[0]
    gaps = rows(
        database,
        """SELECT extract(epoch FROM max(started_at) - min(ended_at))::float8
           FROM workflow_run_steps GROUP BY workflow_run_id""",
    )
    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert sorted(attempts) == [0] * 6 + [1] * 6
    assert steals == []
    assert late == 0
    assert min(gap for (gap,) in gaps) >= 1.8  # a delay is spread by a tenth


def shifted(database: str, offset: str) -> dict[str, str]:
    """The environment of a process whose wall clock is off."""
    return {
        "RUNKON_DATABASE_URL": database,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

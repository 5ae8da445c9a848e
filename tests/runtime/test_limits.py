"""Limits of actions: kept by all replicas together, changed while tasks wait."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from runkon_server.store.action_limits import (
    ActionLimit,
    lock_allowance,
    set_limit,
    unset_limit,
    usages_of,
)
from support.engines import NAMESPACE, Worker, engine_on, start
from support.waiting import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

OUT = "SELECT count(*) AS n FROM tasks WHERE state = 'leased' AND action = 'build'"
QUEUED = "SELECT count(*) AS n FROM tasks WHERE state = 'queued' AND action = 'build'"


async def limit(engine: Engine, concurrency: int | None, per_s: float | None = None) -> None:
    """Set it and wait until this replica knows it."""
    wanted = ActionLimit(concurrency, per_s)
    async with engine.reads.connect() as conn:
        await set_limit(conn, NAMESPACE, "build", wanted)
    await until(
        lambda: engine._dispatcher.limits.known.get((NAMESPACE, "build")) == wanted, "it is known"
    )


async def unlimit(engine: Engine) -> None:
    async with engine.reads.connect() as conn:
        await unset_limit(conn, NAMESPACE, "build")


@asynccontextmanager
async def two_replicas(database: str) -> AsyncIterator[tuple[Engine, Engine]]:
    async with engine_on(database) as one, engine_on(database) as other:
        yield one, other


async def test_no_more_tasks_are_out_than_a_limit_allows(database: str, rogue: Rogue) -> None:
    """Two replicas with a worker each that has credit for all; ended tasks make room for others."""
    async with two_replicas(database) as (one, other):
        await limit(one, 3)
        await limit(other, 3)
        workers = [Worker(each, "build").credit(20) for each in (one, other)]
        run_ids = [(await one.start_run(start("call build"))).run_id for _ in range(12)]
        handled = {"leases": 0}

        async def all_are_done() -> bool:
            assert (await rogue.row(OUT))["n"] <= 3
            for worker in workers:
                while worker.leases:
                    await worker.answer(worker.leases.pop())
                    handled["leases"] += 1
            return handled["leases"] == 12

        await eventually(all_are_done, "all are done")

        assert await rogue.all_ended(run_ids) == {"completed"}
        await rogue.assert_sound()


async def test_tasks_go_out_no_faster_than_a_rate_allows(database: str, rogue: Rogue) -> None:
    """A bucket of one second's worth, then as many per second, by the database's clock."""
    async with two_replicas(database) as (one, other):
        await limit(one, None, 5)
        await limit(other, None, 5)
        begun = (await rogue.row("SELECT clock_timestamp() AS at"))["at"]
        workers = [Worker(each, "build").credit(20) for each in (one, other)]
        for _ in range(11):
            await one.start_run(start("call build"))

        await until(lambda: sum(len(w.leases) for w in workers) == 11, "all are out")

        ended = (await rogue.row("SELECT clock_timestamp() AS at"))["at"]
        assert (ended - begun).total_seconds() >= (11 - 5) / 5


async def test_a_rate_however_small_breaks_nothing(engine: Engine) -> None:
    """Multiplied and divided by it, numbers leave what PostgreSQL has; tasks of others go on."""
    await limit(engine, None, 5e-324)
    builder = Worker(engine, "build", "other").credit(10)
    for _ in range(2):
        await engine.start_run(start("call build"))
    await builder.lease()

    async with engine.reads.connect() as conn:
        allowance = await lock_allowance(conn, NAMESPACE, "build", 1)
        usage = (await usages_of(conn, NAMESPACE, ["build"]))["build"]
    await engine.start_run(start("call other"))

    assert (await builder.lease(1)).action == "other"
    assert allowance is not None
    assert allowance.tasks == 0
    assert (usage.running, usage.queued) == (1, 1)
    assert usage.next_at is not None
    assert usage.next_at.year > 2050


@pytest.mark.parametrize("per_s", [math.inf, math.nan])
async def test_a_rate_that_no_number_can_say_breaks_nothing(engine: Engine, per_s: float) -> None:
    """Written by an older release; the column takes it."""
    async with engine.reads.connect() as conn:
        await set_limit(conn, NAMESPACE, "build", ActionLimit(None, per_s))
        allowance = await lock_allowance(conn, NAMESPACE, "build", 1)

    assert allowance is not None
    assert allowance.tasks == 1


async def test_an_action_that_is_stopped_waits_without_using_up_attempts(
    engine: Engine, rogue: Rogue
) -> None:
    """Others go on; and it does when the limit is gone."""
    await limit(engine, 0)
    builder = Worker(engine, "build", "other").credit(10)
    fallback = Worker(engine, "*").credit(10)
    stopped = (await engine.start_run(start("call build"))).run_id
    free = (await engine.start_run(start("call other"))).run_id

    first = await builder.lease()
    await builder.answer(first)
    assert await rogue.ended(free) == "completed"
    assert (first.action, fallback.leases) == ("other", [])
    assert (await rogue.row(QUEUED))["n"] == 1

    await unlimit(engine)
    await builder.answer(await builder.lease(1))

    assert await rogue.ended(stopped) == "completed"
    assert (builder.leases[1].attempt, builder.leases[1].delivery) == (0, 0)


async def test_a_long_queue_of_one_namespace_holds_up_no_other(
    engine: Engine, rogue: Rogue
) -> None:
    """200 tasks wait for a worker that takes one at a time; another namespace has one task."""
    slow = Worker(engine, "build").credit(1)
    for _ in range(200):
        await engine.start_run(start("call build"))
    other = Worker(engine, "build", namespace="other").credit(1)

    run = await engine.start_run(start("call build", namespace="other"))
    await other.answer(await other.lease())

    assert await rogue.ended(run.run_id) == "completed"
    assert len(slow.leases) == 1
    assert (await rogue.row(QUEUED))["n"] == 199

"""Owners that die, and owners that stop: their runs go on long before any lease runs out."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from runkon_client import Actions, Client, RunSpec, StartedRun
from support.clusters import either, replicas, rows, working
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_client import Task

NO_EXPIRY = ("--lease-ttl", "600")
SETTLED_S = 5.5
"""A replica judges nobody before its own session is so old."""


async def test_l2_the_runs_of_a_killed_owner_go_on_without_their_leases(database: str) -> None:
    """`kill -9`; leases last ten minutes, so only the missing session can have told."""
    actions = Actions()
    count = 0

    @actions.action("tick")
    async def tick(task: Task) -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(0.1)

    source = "workflow busy {\n" + "call tick\n" * 100 + "}"
    with replicas(database, 2, *NO_EXPIRY) as (owner, other):
        async with (
            Client(owner.address) as starter,
            Client(other.address) as survivor,
            working(either(other, owner), actions),
        ):
            await asyncio.sleep(SETTLED_S)
            started = await starter.start_runs([RunSpec(source=source)] * 3)
            ids = [run.id for run in started if isinstance(run, StartedRun)]

            async def is_busy() -> bool:
                return count > 6

            await eventually(is_busy, "the runs are busy")
            await owner.stop(signal.SIGKILL)

            async def has_changed_hands() -> bool:
                found = "SELECT count(DISTINCT run_id) FROM run_events WHERE generation > 1"
                return bool(rows(database, found) == [(3,)])

            await eventually(has_changed_hands, "every run has an event of a new owner")
            poisoned = rows(database, "SELECT max(infra_attempts) FROM workflow_runs")
            assert poisoned == [(0,)]
            for run_id in ids:
                await survivor.run(run_id).cancel(force=True)

"""Workers that are killed at random while they work: no task is lost, no report counts twice.

As many tasks as `RUNKON_KILLED_TASKS` says; by default few enough for every day. The full measure:
`RUNKON_KILLED_TASKS=1000 python3 dev.py test tests/e2e/test_worker_kills.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import TYPE_CHECKING

from runkon_client import Client, RunSpec, StartedRun
from support.clusters import replicas, rows, worker_process
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

TASKS = int(os.environ.get("RUNKON_KILLED_TASKS", "32"))
PER_RUN = 4
WORKERS = 2
EFFECT = """
import asyncio, os
from runkon_client import Actions
actions = Actions()
log = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
@actions.action("effect")
async def effect(task):
    os.write(log, f"{{task.idempotency_key}} {{task.attempt}} {{task.delivery}}\\n".encode())
    await asyncio.sleep(0.5)
"""


async def kill_at_random(address: str, module: Path, effects: Path, dice: random.Random) -> int:
    """Keep workers running, killing each after a while; gives the number of kills at its end.

    The first kill is in the middle of a task, however quick the machine is.
    """
    kills = 0

    async def has_begun() -> bool:
        return bool(effects.read_text())  # noqa: ASYNC240 - a local file

    async def one() -> None:
        nonlocal kills
        while True:
            with worker_process(address, module) as worker:
                await eventually(has_begun, "a task has begun")
                await asyncio.sleep(dice.uniform(1.5, 3.0) if kills else 0)
                worker.kill()
                kills += 1

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*(one() for _ in range(WORKERS)))
    return kills


async def test_tasks_outlive_workers_that_are_killed_at_random(
    database: str, tmp_path: Path
) -> None:
    """Fault 31: every effect is seen, deliveries count up, and every step is completed once."""
    effects, module = tmp_path / "effects", tmp_path / "effect.py"
    effects.touch()
    module.write_text(EFFECT.format(path=str(effects)))
    source = "workflow w {" + " call effect" * PER_RUN + " }"
    options = ("--task-lease", "2")
    with replicas(database, 1, *options) as (one,):
        async with Client(one.address) as client:
            started = await client.start_runs([RunSpec(source=source)] * (TASKS // PER_RUN))
            runs = [run for run in started if isinstance(run, StartedRun)]
            killing = asyncio.create_task(
                kill_at_random(one.address, module, effects, random.Random(7))
            )
            async with asyncio.timeout(60 + TASKS):
                ended = await asyncio.gather(*(client.run(run.id).wait() for run in runs))
            killing.cancel()
            kills = await killing

    seen = [line.split() for line in effects.read_text().splitlines()]
    steps = rows(database, "SELECT count(*) FROM workflow_run_steps WHERE status = 'completed'")
    told = rows(
        database,
        "SELECT count(*), count(DISTINCT payload::json -> 'step' ->> 'id')"
        " FROM run_events WHERE kind = 'step_completed'",
    )
    keys = rows(database, "SELECT payload::json ->> 'key' FROM tasks WHERE state = 'done'")
    total = len(runs) * PER_RUN

    assert kills > 0
    assert {run.status.name for run in ended} == {"COMPLETED"}
    assert (steps, told) == ([(total,)], [(total, total)])
    assert {key for (key,) in keys} == {key for key, _, _ in seen}
    assert len(keys) == total
    for key in {key for key, _, _ in seen}:
        deliveries = [int(delivery) for other, _, delivery in seen if other == key]
        assert deliveries == sorted(set(deliveries))

"""Workers that are killed and frozen while they work: no task is lost, no report counts twice.

As many tasks as `RUNKON_KILLED_TASKS` says; by default few enough for every day.
`python3 dev.py kills` takes 1,000 and prints the figures.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from runkon_client import Client, RunSpec, StartedRun
from support.clusters import replicas, rows, worker_process
from support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from support.clusters import Replica

TASKS: Final = int(os.environ.get("RUNKON_KILLED_TASKS", "32"))
PER_RUN: Final = 4
AT_ONCE: Final = 6
"""Tasks of one worker."""
LEASE_S: Final = 4.0
FROZEN_S: Final = LEASE_S + 2.0
"""Long enough that what it works on is handed out again, and is reported by it too late."""
SPARED: Final = 3
"""A task that is out for the fourth time, of six that it may be, is not taken away again."""
OFTEN_LOST: Final = "SELECT 1 FROM tasks WHERE state IN ('queued', 'leased') AND delivery >= %s"
EFFECT = """
import asyncio, os, time
from runkon_client import Actions
actions = Actions()
log = os.open({path!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
@actions.action("effect")
async def effect(task):
    line = (task.idempotency_key, task.attempt, task.delivery, os.getpid(), time.time())
    os.write(log, (" ".join(map(str, line)) + "\\n").encode())
    await asyncio.sleep(0.5)
"""


class Seen(NamedTuple):
    """A task as a worker began it."""

    key: str
    attempt: int
    delivery: int
    pid: int
    at: float


@dataclass(slots=True)
class Tormentor:
    """Whoever harms workers, and what it has done."""

    address: str
    database: str
    module: Path
    effects: Path
    dice: random.Random
    kills: dict[int, float] = field(default_factory=dict)
    """Process id → when it was killed."""
    freezes: int = 0
    frozen: set[int] = field(default_factory=set)
    """Process ids of workers that are frozen now and then."""

    def seen(self) -> list[Seen]:
        """What has begun, in its order."""
        lines = (line.split() for line in self.effects.read_text().splitlines())
        return [Seen(k, int(a), int(d), int(p), float(t)) for k, a, d, p, t in lines]

    async def kill(self) -> None:
        """Run one worker after the other, each until it is killed in the middle of some task."""
        while True:
            with worker_process(self.address, self.module, "--concurrency", str(AT_ONCE)) as worker:
                await self._working(worker)
                await asyncio.sleep(self.dice.uniform(0, 1.5))
                await self._no_task_is_spared()
                worker.kill()
                self.kills[worker.pid] = time.time()

    async def freeze(self) -> None:
        """Run a worker that again and again stands still for longer than its leases last."""
        with worker_process(self.address, self.module, "--concurrency", str(AT_ONCE)) as worker:
            self.frozen.add(worker.pid)
            while True:
                await self._working(worker)
                await self._no_task_is_spared()
                worker.send_signal(signal.SIGSTOP)
                self.freezes += 1
                await asyncio.sleep(FROZEN_S)
                worker.send_signal(signal.SIGCONT)

    async def _working(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until the worker begins another task."""
        before = len(self._of(worker.pid))

        async def has_begun() -> bool:
            return len(self._of(worker.pid)) > before

        await eventually(has_begun, "a task has begun")

    async def _no_task_is_spared(self) -> None:
        """Wait while chance, or a slow machine, has left some task few deliveries."""

        async def is_none() -> bool:
            return not await asyncio.to_thread(rows, self.database, OFTEN_LOST, SPARED)

        await eventually(is_none, "no task is lost too often")

    def _of(self, pid: int) -> list[Seen]:
        return [each for each in self.seen() if each.pid == pid]


def waits_after_kills(seen: list[Seen], tormentor: Tormentor) -> Iterator[float]:
    """How long tasks of killed workers waited for their next delivery, in s.

    Those are left out whose next delivery went to a worker that never began it, because it was
    killed too, or that may have been frozen.
    """
    ordered = sorted(seen, key=lambda each: (each.key, each.delivery))
    for _, group in itertools.groupby(ordered, key=lambda each: each.key):
        for lost, again in itertools.pairwise(group):
            killed_at = tormentor.kills.get(lost.pid)
            is_next = again.delivery == lost.delivery + 1 and again.pid not in tormentor.frozen
            if killed_at is not None and is_next and again.at > killed_at:
                yield again.at - killed_at


def reports(replica: Replica) -> dict[str, int]:
    """The reports that a replica was sent, by what they were worth."""
    (record,) = replica.server.records("metrics.started")
    with urllib.request.urlopen(f"http://127.0.0.1:{record['port']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    name = 'runkon_tasks_reported_total{status="'
    pairs = (line.removeprefix(name).split('"} ') for line in lines if line.startswith(name))
    return {status: int(float(value)) for status, value in pairs}


def tell(tormentor: Tormentor, seen: list[Seen], told: dict[str, int], took_s: float) -> None:
    """Print what happened; `dev.py kills` shows it."""
    waits_s = sorted(waits_after_kills(seen, tormentor)) or [0.0]
    p50_s = waits_s[len(waits_s) // 2]
    keys = {each.key for each in seen}
    late = {status: told[status] for status in sorted(told) if status != "accepted"}
    lines = (
        f"\n{len(keys)} tasks in {took_s:.0f} s: all of them done, none counted twice",
        f"workers killed {len(tormentor.kills)} times, frozen {tormentor.freezes} times",
        f"{len(seen) - len(keys)} deliveries beyond the first of a task",
        f"reports accepted {told['accepted']}, others {late or 'none'}",
        f"{len(waits_s)} tasks of killed workers began again p50 {p50_s:.2f} s after the kill",
        f"and {waits_s[-1]:.2f} s at most (limit: the lease of {LEASE_S:g} s, and 1 s)",
    )
    print("\n  ".join(lines))  # noqa: T201 - the figures that `dev.py kills` is for


@pytest.mark.timeout(300 + TASKS)
async def test_tasks_outlive_workers_that_are_killed_at_random(
    database: str, tmp_path: Path
) -> None:
    """Faults 31 and 32: every effect is seen, no delivery twice, every step ends once.

    One worker is left alone, so that there is always somebody to give a lost task to; one is killed
    and replaced all the time, one is frozen past its leases and reports when others have its tasks.
    """
    effects, module = tmp_path / "effects", tmp_path / "effect.py"
    effects.touch()
    module.write_text(EFFECT.format(path=str(effects)))
    source = "workflow w {" + " call effect" * PER_RUN + " }"
    options = ("--task-lease", str(LEASE_S), "--metrics-port", "0")
    with replicas(database, 1, *options) as (one,):
        tormentor = Tormentor(one.address, database, module, effects, random.Random(7))
        async with Client(one.address) as client:
            began_s = time.monotonic()
            started = await client.start_runs([RunSpec(source=source)] * max(1, TASKS // PER_RUN))
            runs = [run for run in started if isinstance(run, StartedRun)]
            harm = [asyncio.create_task(each) for each in (tormentor.kill(), tormentor.freeze())]
            await eventually(lambda: _is_true(tormentor.kills), "a worker is killed")
            with worker_process(one.address, module, "--concurrency", str(AT_ONCE)):
                async with asyncio.timeout(120 + TASKS):
                    ended = await asyncio.gather(*(client.run(run.id).wait() for run in runs))
            for each in harm:
                each.cancel()
            await asyncio.gather(*harm, return_exceptions=True)
        told, took_s = reports(one), time.monotonic() - began_s

    seen = tormentor.seen()
    steps = rows(database, "SELECT count(*) FROM workflow_run_steps WHERE status = 'completed'")
    events = rows(
        database,
        "SELECT count(*), count(DISTINCT payload::json -> 'step' ->> 'id')"
        " FROM run_events WHERE kind = 'step_completed'",
    )
    keys = rows(database, "SELECT payload::json ->> 'key' FROM tasks WHERE state = 'done'")
    total = len(runs) * PER_RUN

    assert tormentor.kills
    assert len(seen) > total
    assert {(run.status.name, run.error) for run in ended} == {("COMPLETED", "")}
    assert (steps, events) == ([(total,)], [(total, total)])
    assert told["accepted"] == total
    assert {key for (key,) in keys} == {each.key for each in seen}
    assert len(keys) == total
    assert {each.attempt for each in seen} == {0}
    for key in {each.key for each in seen}:
        deliveries = [each.delivery for each in seen if each.key == key]
        assert sorted(deliveries) == sorted(set(deliveries))
    tell(tormentor, seen, told, took_s)


async def _is_true(value: object) -> bool:
    return bool(value)

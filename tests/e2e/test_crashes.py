"""Processes that are killed or stopped in mid-run: nothing is lost, done twice or told twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from runkon_client import Actions, Client, RetryableError, RunSpec, StartedRun
from runkon_client.values import EventKind, GateWaiting, RunFinished, RunStatus, StepRetrying
from runkon_server.verify.ports import kept_port
from support.clusters import either, replicas, rows, stored_events, worker_process, working
from support.waiting import eventually, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from runkon_client import Task
    from runkon_client.values import RunEvent

RUNS = 50
FOUR_STEPS = """workflow four {
  call one  call two
  parallel { call left call right }
}"""
WITH_GATE = """workflow gated {
  call echo
  gate human_approval { name = go }
  call echo { as = late }
}"""
NO_EXPIRY = ("--lease-ttl", "600", "--task-lease", "600")
"""What is taken over within a test was handed over, for no lease runs out."""


class Halted:
    """Actions that stand still after so many tasks until they are let go."""

    def __init__(self, after: int) -> None:
        self.actions = Actions()
        self.actions.fallback(self._work)
        self.done: list[str] = []
        self.go = asyncio.Event()
        self.halted = asyncio.Event()
        self._after = after

    async def _work(self, task: Task) -> str:
        if len(self.done) >= self._after:
            self.halted.set()
            await self.go.wait()
        self.done.append(task.id)
        return task.id


async def start_many(client: Client, source: str, count: int) -> list[StartedRun]:
    started = await client.start_runs([RunSpec(source=source)] * count)
    return [run for run in started if isinstance(run, StartedRun)]


def check_histories(database: str, *, runs: int, steps: int) -> None:
    """All runs are completed; what their events and rows say of them has to be so."""
    statuses = Counter(rows(database, "SELECT status FROM workflow_runs"))
    assert statuses == {("completed",): runs}
    broken = rows(
        database,
        """SELECT r.id, r.last_seq, array_agg(e.seq ORDER BY e.seq)
           FROM workflow_runs r JOIN run_events e ON e.run_id = r.id GROUP BY r.id, r.last_seq
           HAVING array_agg(e.seq ORDER BY e.seq)
                  <> ARRAY(SELECT generate_series(1, r.last_seq))""",
    )
    assert broken == []
    completions = rows(
        database,
        """SELECT count(*), count(DISTINCT payload::json -> 'step' ->> 'id')
           FROM run_events WHERE kind = 'step_completed'""",
    )
    assert completions == [(runs * steps, runs * steps)]
    tasks = rows(database, "SELECT state, count(*) FROM tasks GROUP BY state")
    assert tasks == [("done", runs * steps)]
    falling = rows(
        database,
        """SELECT run_id FROM (SELECT run_id, generation, lag(generation) OVER
           (PARTITION BY run_id ORDER BY seq) AS before FROM run_events) AS e
           WHERE generation < before""",
    )
    assert falling == []


async def test_a_killed_owner_loses_no_run_and_repeats_no_step(database: str) -> None:
    """`kill -9` with 50 runs in progress: all end on the other replica, each step once."""
    work = Halted(after=70)
    with replicas(database, 2) as (owner, other):
        async with (
            Client(owner.address) as starter,
            Client(other.address) as watcher,
            working(other.address, work.actions),
        ):
            runs = await start_many(starter, FOUR_STEPS, RUNS)
            await asyncio.wait_for(work.halted.wait(), 60)
            await owner.stop(signal.SIGKILL)
            work.go.set()
            ended = await asyncio.gather(*(watcher.run(run.id).wait() for run in runs))
            told = [[event.seq async for event in watcher.run(run.id).events()] for run in runs]

    assert [run.status for run in ended] == [RunStatus.COMPLETED] * RUNS
    assert told == [[*range(1, run.last_seq + 1)] for run in ended]
    check_histories(database, runs=RUNS, steps=4)
    assert rows(database, "SELECT max(generation) > 1 FROM workflow_runs") == [(True,)]


async def test_a_stopped_owner_hands_its_runs_over(database: str) -> None:
    """SIGTERM: leases of ten minutes do not hold up the other replica; the stream goes over too."""
    work = Halted(after=10)
    with replicas(database, 2, *NO_EXPIRY) as (owner, other):
        async with (
            Client(owner.address) as starter,
            Client(either(owner, other)) as watcher,
            working(either(owner, other), work.actions),
        ):
            runs = await start_many(starter, FOUR_STEPS, 10)
            await asyncio.wait_for(work.halted.wait(), 60)
            stream = watcher.run(runs[0].id).events()
            seqs = [(await anext(stream)).seq]
            code = await owner.stop(signal.SIGTERM)
            work.go.set()
            async with asyncio.timeout(60):
                seqs += [event.seq async for event in stream]
                ended = await asyncio.gather(*(watcher.run(run.id).wait() for run in runs))

    assert code == 0
    assert [run.status for run in ended] == [RunStatus.COMPLETED] * 10
    assert seqs == [*range(1, ended[0].last_seq + 1)]
    assert stream.disconnects >= 1
    check_histories(database, runs=10, steps=4)


async def test_a_stop_in_the_rush_loses_no_task(database: str) -> None:
    """SIGTERM while tasks and reports fly both ways: none is left to its lease of ten minutes."""
    work = Halted(after=20)
    with replicas(database, 2, *NO_EXPIRY) as (owner, other):
        async with (
            Client(other.address) as client,
            working(either(owner, other), work.actions, concurrency=4),
        ):
            runs = await start_many(client, FOUR_STEPS, RUNS)
            await asyncio.wait_for(work.halted.wait(), 60)
            work.go.set()
            await owner.stop(signal.SIGTERM)
            async with asyncio.timeout(60):
                ended = await asyncio.gather(*(client.run(run.id).wait() for run in runs))

    assert [run.status for run in ended] == [RunStatus.COMPLETED] * RUNS
    assert len(work.done) == len(set(work.done)) == RUNS * 4
    check_histories(database, runs=RUNS, steps=4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_open_stream_outlives_its_only_server(
    database: str, number: signal.Signals
) -> None:
    """The stream neither ends nor repeats itself while the server is replaced at its address."""
    events: list[RunEvent] = []
    with kept_port() as port, replicas(database, listen=f"127.0.0.1:{port}") as (first,):
        async with Client(first.address) as client:
            run = await client.start_run(source=WITH_GATE)
            stream = run.events()
            async for event in stream:
                events.append(event)
                if isinstance(event, GateWaiting):
                    break
            await first.stop(number)
            following = asyncio.create_task(anext(stream))
            with replicas(database, listen=first.address) as (second,):
                events.append(await following)
                await client.run(run.id).gate("go").approve()
                events += [event async for event in stream]
                history = await stored_events(second.address, run.id)

    assert stream.disconnects >= 1
    assert [event.seq for event in events] == [*range(1, len(history) + 1)]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].status is RunStatus.COMPLETED


async def test_a_retry_is_not_forgotten_by_a_restart(database: str) -> None:
    """The delay runs on while no server is there; the next attempt comes, and not before time."""
    attempts: list[int] = []
    actions = Actions()

    @actions.action("flaky")
    async def flaky(task: Task) -> None:
        attempts.append(task.attempt)
        if task.attempt == 0:
            raise RetryableError("not yet")
        assert task.retry_error == "not yet"

    source = 'workflow w { call flaky { retries = 1 retry_delay = "1s" } }'
    with kept_port() as port, replicas(database, listen=f"127.0.0.1:{port}") as (first,):
        async with Client(first.address) as client, working(first.address, actions):
            run = await client.start_run(source=source)
            async for event in run.events():
                if isinstance(event, StepRetrying):
                    break
            await first.stop(signal.SIGTERM)
            with replicas(database, listen=first.address):
                ended = await run.wait()
                steps = [step async for step in run.steps()]

    assert ended.status is RunStatus.COMPLETED
    assert attempts == [0, 1]
    assert [step.retry_count for step in steps] == [0, 1]
    assert steps[0].ended_at is not None
    assert steps[1].started_at is not None
    assert (steps[1].started_at - steps[0].ended_at).total_seconds() >= 1


DOOMED = """
import pathlib, time
from runkon_client import Actions
actions = Actions()
@actions.action("effect")
def effect(task):
    pathlib.Path({path!r}).write_text(f"{{task.idempotency_key}} {{task.id}} {{task.delivery}}")
    time.sleep(600)
"""


async def test_the_task_of_a_killed_worker_is_delivered_again(
    database: str, tmp_path: Path
) -> None:
    """Fault 31, `kill -9` in mid-task: another worker gets the same attempt, by the same key."""
    taken = tmp_path / "taken"
    module = tmp_path / "doomed.py"
    module.write_text(DOOMED.format(path=str(taken)))
    again: list[str] = []
    actions = Actions()

    @actions.action("effect")
    async def effect(task: Task) -> None:
        assert task.attempt == 0
        again.append(f"{task.idempotency_key} {task.id} {task.delivery}")

    with replicas(database, 1, "--task-lease", "5") as (one,):
        async with Client(one.address) as client:
            with worker_process(one.address, module) as doomed:
                run = await client.start_run(source="workflow w { call effect }")
                await asyncio.to_thread(
                    wait_until, lambda: taken.exists() and taken.read_text(), "the task is taken"
                )
                doomed.kill()
            async with working(one.address, actions):
                ended = await run.wait()
            started = [event async for event in run.events(kinds=[EventKind.STEP_STARTED])]

    first = taken.read_text()
    assert ended.status is RunStatus.COMPLETED
    assert first.endswith(" 0")
    assert again == [first.removesuffix("0") + "1"]
    assert len(started) == 1


async def test_a_worker_that_loses_its_replica_reports_to_the_other(database: str) -> None:
    """What was executed meanwhile counts: the report goes to a replica that never gave the task."""
    work = Halted(after=0)
    with replicas(database, 2) as (first, other):
        async with (
            Client(other.address) as client,
            working(either(first, other), work.actions),
        ):
            run = await client.start_run(source="workflow w { call effect }")
            await asyncio.wait_for(work.halted.wait(), 60)
            await first.stop(signal.SIGKILL)
            work.go.set()

            async def is_over() -> bool:
                return (await run.get()).status is RunStatus.COMPLETED

            await eventually(is_over, "the run ends")

    assert len(work.done) == 1
    check_histories(database, runs=1, steps=1)

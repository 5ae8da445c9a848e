"""Timers: by the database's clock, each once, shared by replicas, and many at one instant."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server import failpoints
from runkon_server.core.facts import Outcome
from runkon_server.runtime.commands import RunStarted
from support.engines import Worker, engine_on, report, start, until
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

DELAYED: Final = 'gate human_approval { timeout = "1h" }'
LATENESS: Final = """
SELECT extract(epoch FROM e.at - d.scheduled_at)::float8 AS late, r.generation, r.status
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id
JOIN run_events e ON e.run_id = r.id AND e.kind = 'run_started'"""


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    """No test leaves a point armed."""
    yield
    failpoints.disarm()


async def start_later(engine: Engine, count: int, rogue: Rogue, *, due_in_s: float) -> None:
    """Start runs that all begin at one instant."""
    await engine.start_runs([start(DELAYED, start_delay=timedelta(hours=1))] * count)
    await rogue.rows(
        f"""WITH d AS (SELECT clock_timestamp() + interval '{due_in_s} s' AS at),
        t AS (UPDATE timers SET due_at = d.at FROM d),
        s AS (UPDATE run_details SET scheduled_at = d.at FROM d)
        UPDATE workflow_runs SET ready_at = d.at FROM d"""
    )


async def all_fired(rogue: Rogue, count: int) -> list[float]:
    """How late each run began, once all wait at their gates."""

    async def are_waiting() -> bool:
        rows = await rogue.rows(LATENESS)
        return len(rows) == count and all(row["status"] == "waiting" for row in rows)

    await eventually(are_waiting, f"{count} timers fire")
    return [row["late"] for row in await rogue.rows(LATENESS)]


async def test_fault_43_timers_due_at_one_instant_fire_once_each_and_are_shared(
    database: str, rogue: Rogue
) -> None:
    """S21: none is early. A run that two replicas took would have a second generation.

    So would one that a busy machine parked before its timer had its turn; none lingers so briefly.
    """
    count = 400
    async with (
        engine_on(database, linger_s=60.0) as one,
        engine_on(database, linger_s=60.0) as other,
    ):
        await start_later(one, count, rogue, due_in_s=0.5)
        late_s = await all_fired(rogue, count)
        assert min(late_s) >= 0
        generations = await rogue.rows("SELECT DISTINCT generation FROM workflow_runs")
        assert generations == [{"generation": 1}]
        taken = [engine.stats.runs_acquired for engine in (one, other)]
        assert sum(taken) == count
        assert min(taken) > 0, taken
        await rogue.assert_sound()


async def test_a_timer_is_looked_for_when_it_is_due(database: str, rogue: Rogue) -> None:
    """Without it the next look would be minutes away."""
    async with engine_on(database, scan_s=600.0) as engine:
        await start_later(engine, 1, rogue, due_in_s=1.0)
        engine._scanner.look_for_runs()
        late_s = await all_fired(rogue, 1)
        assert min(late_s) >= 0


async def test_a_replica_takes_no_more_runs_than_it_can_load(database: str, rogue: Rogue) -> None:
    """Loading stands still: what is due stays free for others, instead of losing its lease here."""
    owned = "SELECT count(*) AS n FROM workflow_runs WHERE owner_token IS NOT NULL"
    async with engine_on(database, acquire_batch=8) as engine:
        failpoints.arm("runs.loaded=block;runs.acquire=sleep(1)")
        await start_later(engine, 100, rogue, due_in_s=0.3)
        await until(lambda: failpoints.fired().get("runs.loaded") == 2, "two loads stand still")
        looks = failpoints.fired()["runs.acquire"]
        await asyncio.sleep(0.5)  # what must not happen had ten times the time it takes
        assert (await rogue.row(owned))["n"] <= 24
        assert failpoints.fired()["runs.acquire"] <= looks + 1
        failpoints.disarm()
        assert min(await all_fired(rogue, 100)) >= 0


async def test_s21_a_timer_that_goes_off_too_early_waits_for_its_time(
    database: str, rogue: Rogue
) -> None:
    """The replica's clock is ahead: the database refuses, and the timer goes off again."""
    async with engine_on(database, linger_s=600.0) as engine:
        worker = Worker(engine, "build").credit(2)
        body = 'call build { retries = 1 retry_delay = "2s" }'
        run_id = (await engine.start_run(start(body))).run_id
        await worker.answer(await worker.lease(), outcome=Outcome.FAILED, retryable=True)
        due = await rogue.row("SELECT due_at FROM timers")
        for timer_id in list(engine._registry.actors[run_id].timers):
            engine._registry.arm(engine._registry.actors[run_id], timer_id, "retry", 0.0)

        second = await worker.lease(1)

    assert second.attempt == 1
    begun = await rogue.row("SELECT started_at FROM workflow_run_steps WHERE retry_count = 1")
    assert begun["started_at"] >= due["due_at"]


async def test_a_timer_that_fails_to_fire_takes_no_other_with_it(
    engine: Engine, rogue: Rogue
) -> None:
    """Of timers that go off together one meets a bug; it fires when its run is loaded anew."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda *_: None)
    worker = Worker(engine, "build").credit(10)
    body = 'call build { retries = 1 retry_delay = "300ms" }'
    runs = [each.run_id for each in await _started(engine, body, 3)]
    failpoints.arm("timer.fired=raise*1")
    await worker.lease(2)
    worker.session.report(
        [report(lease, Outcome.FAILED, retryable=True) for lease in worker.leases]
    )
    await worker.lease(5)
    loop.set_exception_handler(handler)
    assert failpoints.fired() == {"timer.fired": 1}
    worker.session.report([report(lease) for lease in worker.leases[3:]])
    assert await rogue.all_ended(runs) == {"completed"}


async def _started(engine: Engine, body: str, count: int) -> list[RunStarted]:
    answers = await engine.start_runs([start(body)] * count)
    return [each for each in answers if isinstance(each, RunStarted)]

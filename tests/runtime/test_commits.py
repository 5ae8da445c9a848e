"""Commits whose answer is lost, and listeners that fail: nothing is done twice or told wrongly."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from runkon_server import errors, failpoints
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.commands import AckStatus
from runkon_server.runtime.committer import Committer
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.stats import EngineStats
from runkon_server.runtime.tenure import Tenure
from runkon_server.store import session_settings
from support.engines import BRIEF, Worker, engine_on, report, rogue_on, start, until
from support.proxies import Loss, proxy_before

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.runtime.commands import EventRecord
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue


@pytest.mark.parametrize("loss", Loss)
async def test_a_start_whose_commit_is_lost_happens_once(
    database: str, rogue: Rogue, loss: Loss
) -> None:
    """Committed or not, the replica finds out and the caller gets his one run."""
    async with proxy_before(database) as (proxy, dsn), engine_on(dsn, lanes=1) as engine:
        proxy.lose(loss)

        started = await asyncio.wait_for(engine.start_run(start(request_id="r")), 60)

        assert proxy.losses == 1
        assert engine.stats.ambiguous_commits == 1
        assert engine.stats.commits_resolved.total() == 1
        assert (started.started, started.replayed) == (True, False)
        assert await rogue.ended(started.run_id) == "completed"
        assert (await rogue.row("SELECT count(*) AS n FROM workflow_runs"))["n"] == 1
        await rogue.assert_sound()


@pytest.mark.parametrize("loss", Loss)
async def test_a_step_whose_commit_is_lost_is_decided_once(
    database: str, rogue: Rogue, loss: Loss
) -> None:
    async with proxy_before(database) as (proxy, dsn), engine_on(dsn, lanes=1) as engine:
        worker = Worker(engine, "build").credit(2)
        run_id = (await engine.start_run(start("call build call build"))).run_id
        first = await worker.lease()
        proxy.lose(loss)

        await worker.answer(first)
        await worker.answer(await worker.lease(1))

        assert proxy.losses == 1
        assert await rogue.ended(run_id) == "completed"
        assert len(worker.leases) == 2
        assert (await rogue.kinds(run_id)).count("step_completed") == 2
        await rogue.assert_sound()


@pytest.mark.parametrize("loss", Loss)
async def test_events_whose_commit_is_lost_are_told_once(
    database: str, rogue: Rogue, loss: Loss
) -> None:
    """Whichever way it ended, each event of the run comes once, and in order."""
    told: list[int] = []
    async with proxy_before(database) as (proxy, dsn), engine_on(dsn, lanes=1) as engine:
        engine.on_events(lambda _, events: told.extend(each.seq for each in events or ()))
        proxy.lose(loss)

        started = await asyncio.wait_for(engine.start_run(start("call echo call echo")), 60)

        assert await rogue.ended(started.run_id) == "completed"
        assert proxy.losses == 1
        last_seq = (await rogue.run(started.run_id))["last_seq"]
        await until(lambda: len(told) >= last_seq, "all of its events are told")
        assert told == list(range(1, last_seq + 1))


async def test_a_failing_listener_undoes_nothing(engine: Engine, rogue: Rogue) -> None:
    def fail(run_id: str, records: Sequence[EventRecord] | None) -> None:
        raise LookupError(run_id)

    remove = engine.on_events(fail)
    started = await engine.start_run(start("call echo"))

    assert await rogue.ended(started.run_id) == "completed"
    remove()
    assert (await rogue.row("SELECT count(*) AS n FROM workflow_runs"))["n"] == 1
    assert engine.stats.commit_refusals == 0
    await until(lambda: engine.database_is_up, "the loop that hears of others goes on")


async def test_a_failing_worker_stream_stops_nobody_else(engine: Engine, rogue: Rogue) -> None:
    """Its `notify` raises for every task; the batch is durable and the others are told."""
    broken = Worker(engine, "break")
    broken.session._notify = _fail
    broken.credit(3)

    outcomes = await asyncio.gather(
        *(engine.start_run(start("call break")) for _ in range(2)),
        *(engine.start_run(start("call echo")) for _ in range(10)),
        return_exceptions=True,
    )

    good = [each.run_id for each in outcomes[2:] if not isinstance(each, BaseException)]
    assert len(good) == 10
    assert await rogue.all_ended(good) == {"completed"}
    assert (await rogue.row("SELECT count(*) AS n FROM workflow_runs"))["n"] == 12


def _fail() -> None:
    raise LookupError


async def test_a_row_that_stays_locked_holds_up_only_its_own_run(
    database: str, rogue: Rogue
) -> None:
    """Somebody forgot a transaction; what shared the batch is committed without that run.

    Whose report was held up for too long is told so, and reports again.
    """
    async with engine_on(database, **BRIEF, lanes=1) as engine, rogue_on(database) as other:
        worker = Worker(engine, "build").credit(12)
        runs = [(await engine.start_run(start("call build"))).run_id for _ in range(12)]
        leases = [await worker.lease(number) for number in range(12)]
        async with other.conn.transaction():
            await other.rows("SELECT 1 FROM workflow_runs WHERE id = %s FOR UPDATE", runs[3])
            worker.session.report([report(lease) for lease in leases])
            others = [run_id for run_id in runs if run_id != runs[3]]
            assert await rogue.all_ended(others) == {"completed"}
            assert (await rogue.run(runs[3]))["status"] == "running"

        await worker.ack(11)
        (told,) = [ack.verdict for ack in worker.acks if ack.task_id == leases[3].task_id]
        if told.status is AckStatus.REFUSED:
            assert isinstance(told.error, errors.UnavailableError)
            assert await worker.answer(leases[3]) is AckStatus.ACCEPTED
        assert await rogue.ended(runs[3]) == "completed"
        await rogue.assert_sound()


async def test_a_table_that_stays_locked_is_no_mark_against_its_runs(
    database: str, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever takes it, an index that is built, say: no owner of the run has fallen silent."""
    monkeypatch.setattr(session_settings, "LOCK_TIMEOUT_MS_MAX", 50)
    async with engine_on(database) as engine, rogue_on(database) as other:
        worker = Worker(engine, "build").credit(2)
        run_id = (await engine.start_run(start("call build"))).run_id
        lease = await worker.lease()
        async with other.conn.transaction():
            await other.rows("LOCK TABLE run_events IN SHARE MODE")
            assert await worker.answer(lease) is AckStatus.REFUSED
            await rogue.parked(run_id)
        assert await worker.answer(lease) is AckStatus.ACCEPTED

        assert await rogue.ended(run_id) == "completed"
        assert (engine.stats.steals, engine.stats.commit_refusals) == (0, 1)


class Hasty(SystemAmbient):
    """Pauses last no time."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        await asyncio.sleep(0)


async def test_a_lane_outlasts_an_outage_of_any_length() -> None:
    """As many attempts as are made in half an hour, at a port where nobody listens."""
    ambient = Hasty()
    committer = Committer(
        EngineConfig(dsn="postgresql://127.0.0.1:1/nobody"),
        ambient,
        Tenure(ambient.ulid, ended=lambda: None),
        EngineStats(),
        after_commit=lambda _: None,
        hint=lambda _: None,
        hinted=lambda _: None,
    )
    with structlog.testing.capture_logs():
        connecting = asyncio.create_task(committer._connect([]))
        await until(lambda: connecting.done() or len(ambient.pauses_s) > 1_100, "it tries on")
        committer.close()

        assert await connecting is None
    assert max(ambient.pauses_s) <= 2.0


async def test_sessions_that_are_lost_again_and_again_count_as_no_database(
    engine: Engine, rogue: Rogue
) -> None:
    """Each is opened, and ended in its transaction, as behind a pooler whose server is away."""
    worker = Worker(engine, "build").credit(1)
    run_id = (await engine.start_run(start("call build"))).run_id
    lease = await worker.lease()
    failpoints.arm("batch.begin=raise(57P01)")
    try:
        with structlog.testing.capture_logs() as logs:
            worker.session.report([report(lease)])
            with pytest.raises(errors.DatabaseUnavailableError):
                await asyncio.wait_for(engine.start_run(start()), 60)
            told = [each for each in logs if each["event"] == "database.loses_sessions"]
            assert len(told) < 50, "it pauses"
    finally:
        failpoints.disarm()

    assert await rogue.ended(run_id) == "completed"
    assert (await engine.start_run(start())).started

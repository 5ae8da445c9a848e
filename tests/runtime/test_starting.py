"""StartRun: one commit per batch, request ids and run keys under races."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runkon_server import errors
from runkon_server.runtime.commands import CancelRun, ConflictPolicy, RunStarted
from support.engines import NAMESPACE, Worker, engine_on, start, until

if TYPE_CHECKING:
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue

SOON = """
WITH d AS (SELECT clock_timestamp() + interval '0.6 s' AS at),
t AS (UPDATE timers SET due_at = d.at FROM d),
s AS (UPDATE run_details SET scheduled_at = d.at FROM d)
UPDATE workflow_runs SET ready_at = d.at FROM d RETURNING d.at"""
"""What waits for its start, or for anything else, is due in a moment."""
GATE = 'gate human_review { name = check prompt = "ok?" }'


async def test_a_run_of_built_in_actions_completes(engine: Engine, rogue: Rogue) -> None:
    started = await engine.start_run(start("call echo call echo"))

    assert started.started
    assert await rogue.ended(started.run_id) == "completed"
    assert (await rogue.kinds(started.run_id))[-1] == "run_finished"
    await rogue.assert_sound()


async def test_many_runs_share_batches(engine: Engine, rogue: Rogue) -> None:
    """200 runs of three steps are some 800 entries."""
    outcomes = await engine.start_runs([start("call echo call echo call echo")] * 200)

    ids = [each.run_id for each in outcomes if isinstance(each, RunStarted)]
    assert len(set(ids)) == 200
    assert await rogue.all_ended(ids) == {"completed"}
    assert engine.stats.entries >= 800
    assert engine.stats.batches < engine.stats.entries / 10
    await rogue.assert_sound()


async def test_a_poison_row_is_refused_alone(engine: Engine, rogue: Rogue) -> None:
    """NUL cannot be stored; the API refuses it, so only a defect would bring it here."""
    commands = [start(inputs={"a": "\0" if number == 37 else "x"}) for number in range(64)]
    before = engine.stats.commit_refusals

    outcomes = await asyncio.gather(
        *(engine.start_run(command) for command in commands), return_exceptions=True
    )

    failures = [n for n, each in enumerate(outcomes) if isinstance(each, BaseException)]
    assert failures == [37]
    assert engine.stats.commit_refusals == before + 1
    ids = [each.run_id for each in outcomes if isinstance(each, RunStarted)]
    assert await rogue.all_ended(ids) == {"completed"}


async def test_a_request_id_raced_on_two_replicas_makes_one_run(
    database: str, rogue: Rogue
) -> None:
    async with engine_on(database) as one, engine_on(database) as two:
        for number in range(5):
            command = start(request_id=f"r{number}", digest="same")
            answers = await asyncio.gather(
                *(replica.start_run(command) for replica in (one, two) * 10)
            )

            assert len({answer.run_id for answer in answers}) == 1
            assert Counter(answer.replayed for answer in answers) == {True: 19, False: 1}
    assert (await rogue.row("SELECT count(*) AS n FROM workflow_runs"))["n"] == 5


async def test_a_request_id_with_another_payload_is_refused_in_the_same_batch(
    engine: Engine, rogue: Rogue
) -> None:
    """Both are queued before the committer runs; their run keys differ."""
    outcomes = await asyncio.gather(
        engine.start_run(start(request_id="r", digest="a", key="a")),
        engine.start_run(start(request_id="r", digest="b", key="b")),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], RunStarted)
    assert isinstance(outcomes[1], errors.RequestIdReusedError)
    assert (await rogue.row("SELECT count(*) AS n FROM workflow_runs"))["n"] == 1


async def test_a_run_key_raced_on_two_replicas_has_one_live_run(
    database: str, rogue: Rogue
) -> None:
    async with engine_on(database) as one, engine_on(database) as two:
        for number in range(15):
            outcomes = await asyncio.gather(
                *(replica.start_run(start(GATE, key=f"k{number}")) for replica in (one, two) * 4),
                return_exceptions=True,
            )

            started = [each for each in outcomes if isinstance(each, RunStarted)]
            refused = [each for each in outcomes if isinstance(each, errors.RunKeyInUseError)]
            assert (len(started), len(refused)) == (1, 7)
            assert {each.metadata["run_id"] for each in refused} == {started[0].run_id}


async def test_an_existing_run_is_given_by_key_and_replayed_so(engine: Engine) -> None:
    first = await engine.start_run(start(GATE, key="k"))
    command = start(
        GATE, key="k", conflict_policy=ConflictPolicy.USE_EXISTING, request_id="r", digest="d"
    )

    second = await engine.start_run(command)
    third = await engine.start_run(command)

    assert (second.run_id, second.started, second.replayed) == (first.run_id, False, False)
    assert (third.run_id, third.started, third.replayed) == (first.run_id, False, True)


async def test_an_existing_run_is_replaced(engine: Engine, rogue: Rogue) -> None:
    first = await engine.start_run(start(GATE, key="k"))

    second = await engine.start_run(
        start(GATE, key="k", conflict_policy=ConflictPolicy.CANCEL_EXISTING)
    )

    assert second.started
    assert await rogue.ended(first.run_id) == "cancelled"
    assert (await rogue.row("SELECT run_id FROM run_keys"))["run_id"] == second.run_id


async def test_a_delayed_run_begins_when_it_is_due(engine: Engine, rogue: Rogue) -> None:
    started = await engine.start_run(start(start_delay=timedelta(hours=1)))

    run = await rogue.run(started.run_id)
    assert (run["status"], run["owner_token"], run["last_seq"]) == ("pending", None, 0)
    (due,) = await rogue.rows(SOON)
    assert await rogue.ended(started.run_id) == "completed"
    assert (await rogue.run(started.run_id))["started_at"] >= due["at"]


async def test_a_delayed_run_can_be_cancelled_before_it_begins(
    engine: Engine, rogue: Rogue
) -> None:
    started = await engine.start_run(start(start_delay=timedelta(hours=1)))

    await engine.cancel_run(
        CancelRun(namespace=NAMESPACE, run_id=started.run_id, principal="somebody")
    )

    assert await rogue.ended(started.run_id) == "cancelled"
    await rogue.assert_sound()


async def test_a_caller_who_is_gone_gives_the_credit_back(engine: Engine, rogue: Rogue) -> None:
    """The call is cancelled before its entry is picked up; its first task had been assigned."""
    worker = Worker(engine, "build").credit(1)
    call = asyncio.create_task(engine.start_run(start("call build")))
    await asyncio.sleep(0)  # the call has queued its entry
    assert worker.session.credit == 0

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: worker.session.credit == 1, "the credit is back")
    assert await rogue.rows("SELECT id FROM workflow_runs") == []

"""Statements 155-160: cancels, in whatever moment they come, and replicas that go away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.core.facts import Outcome
from runkon_server.runtime.commands import CancelRun
from support.engines import NAMESPACE, Worker, engine_on, rogue_on, start, until
from support.stage import Refused, Stage

if TYPE_CHECKING:
    from support.engines import Rogue


async def test_155_a_cancel_shows_at_once_and_reaches_the_worker(stage: Stage) -> None:
    """Asked again, it is the same cancel."""
    await stage.start("call a call b")
    await stage.offered("a")
    await stage.cancel("enough")

    assert await stage.status() == "cancelling"
    assert await stage.was_asked_to_stop("a")
    await stage.cancel("really")
    await stage.stopped("a")
    assert await stage.end() == "cancelled"
    assert (await stage.kinds()).count("run_cancel_requested") == 1
    assert stage.times_given("b") == 0


async def test_155_a_cancel_of_an_unknown_run_is_an_error(stage: Stage) -> None:
    await stage.start("call a")
    unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    with pytest.raises(Refused) as refused:
        await stage.cancel(run_id=unknown)
    assert refused.value.reason == "RUN_NOT_FOUND"


async def test_156_a_run_that_is_cancelled_before_its_start_starts_no_step(stage: Stage) -> None:
    await stage.start("call a", is_delayed=True)
    assert await stage.status() == "pending"
    await stage.cancel("never mind")

    assert await stage.end() == "cancelled"
    assert await stage.rows() == []
    assert (await stage.event("run_finished"))["status"].lower().endswith("cancelled")


async def test_157_a_cancel_at_another_replica_stops_the_run_at_its_next_boundary(
    database: str,
) -> None:
    """The owner hears of it; the report that comes meanwhile counts, the next step never starts."""
    async with (
        engine_on(database, linger_s=60.0) as owner,
        engine_on(database) as other,
        rogue_on(database) as rogue,
    ):
        worker = Worker(owner, "build").credit(2)
        run_id = (await owner.start_run(start("call build call build"))).run_id
        lease = await worker.lease()
        assert owner.stats.leases_held == 1
        cancel = CancelRun(
            namespace=NAMESPACE, run_id=run_id, principal="ann", reason="enough", force=False
        )
        await other.cancel_run(cancel)
        assert (await rogue.run(run_id))["status"] == "cancelling"
        await until(lambda: worker.cancels, "the worker is told")
        await worker.answer(lease)

        assert await rogue.ended(run_id) == "cancelled"
        assert await _steps(rogue, run_id) == ["completed"]
        await rogue.assert_sound()


async def test_158_a_gate_that_is_approved_too_late_changes_nothing(stage: Stage) -> None:
    """Nor does it make the run anything else than cancelling while its always section runs."""
    await stage.start("gate human_approval { } call a always { call z }")
    await stage.until_status("waiting")
    await stage.cancel()
    await stage.offered("z")
    with pytest.raises(Refused):
        await stage.approve()
    assert await stage.status() == "cancelling"
    await stage.complete("z")

    assert await stage.end() == "cancelled"
    assert stage.times_given("a") == 0


async def test_158_a_body_that_finishes_after_a_cancel_does_not_complete_the_run(
    stage: Stage,
) -> None:
    await stage.start("call a")
    await stage.offered("a")
    await stage.cancel()
    await stage.complete("a")

    assert await stage.end() == "cancelled"
    assert (await stage.row("a")).status == "completed"


async def test_159_a_cancel_reaches_all_descendants_and_its_first_reason_stays(
    stage: Stage,
) -> None:
    await stage.put("leaf", "call work")
    await stage.put("middle", "call workflow leaf")
    await stage.start("call workflow middle")
    leaf = (await stage.offered("work")).run_id
    middle = (await stage.row("workflow:middle")).child_run_id
    await stage.cancel("first")
    assert await stage.was_asked_to_stop("work")
    await stage.cancel("second")
    await stage.stopped("work")

    assert await stage.end() == "cancelled"
    assert [await stage.status(run_id) for run_id in (middle, leaf)] == ["cancelled"] * 2
    assert "first" in await stage.error()
    assert "second" not in await stage.error()


async def test_159_the_first_reason_stays_when_the_cancel_is_forced_later(stage: Stage) -> None:
    await stage.start("call a")
    await stage.offered("a")
    await stage.cancel("first")
    await stage.cancel("second", force=True)

    assert await stage.end() == "cancelled"
    assert "first" in await stage.error()
    assert "second" not in await stage.error()


async def test_159_a_cancelled_child_cancels_neither_its_parent_nor_its_siblings(
    stage: Stage,
) -> None:
    await stage.put("child", "call work")
    await stage.start(
        "foreach f { over = things workflow = child max_parallel = 2 on_child_fail = continue }"
    )
    await stage.collect("foreach:f", ["x", "y"])
    one = await stage.offered("work@x")
    other = await stage.offered("work@y")
    await stage.cancel(run_id=one.run_id)
    assert await stage.was_asked_to_stop("work@x")
    await stage.stopped("work@x")
    assert await stage.status(other.run_id) == "running"
    await stage.complete("work@y")

    assert await stage.end() == "completed"
    assert [item.status for item in await stage.items("f")] == ["failed", "completed"]
    assert await stage.status(one.run_id) == "cancelled"


async def test_160_runs_of_a_replica_that_goes_away_stay_as_they_are(database: str) -> None:
    """Nobody owns them then; the next replica goes on where they were."""
    async with rogue_on(database) as rogue:
        async with engine_on(database, linger_s=60.0) as first:
            worker = Worker(first, "build").credit(1)
            run_id = (await first.start_run(start("call build call build"))).run_id
            await worker.answer(await worker.lease())
            assert (await rogue.run(run_id))["owner_token"] is not None
        run = await rogue.run(run_id)
        assert (run["status"], run["owner_token"], run["ended_at"]) == ("running", None, None)

        async with engine_on(database) as second:
            worker = Worker(second, "build").credit(1)
            await worker.answer(await worker.lease(), outcome=Outcome.COMPLETED)
            assert await rogue.ended(run_id) == "completed"
        assert await _steps(rogue, run_id) == ["completed", "completed"]
        await rogue.assert_sound()


async def _steps(rogue: Rogue, run_id: str) -> list[str]:
    rows = await rogue.rows(
        "SELECT status FROM workflow_run_steps WHERE workflow_run_id = %s ORDER BY at", run_id
    )
    return [row["status"] for row in rows]

"""Statements 149-154, 161 and 162: runs that are taken up again."""

from __future__ import annotations

import pytest

from runkon.v1 import events_pb2, runs_pb2
from runkon_server.api.parsing.runs import check_resume_run
from runkon_server.errors import InvalidArgumentError
from support.stage import Refused, Stage


async def test_149_a_resume_executes_only_what_has_not_completed(stage: Stage) -> None:
    await stage.start("call a call b call c")
    await stage.complete("a", context="A", markers=["m"])
    await stage.fail("b")
    assert await stage.end() == "failed"

    await stage.resume()
    again = await stage.offered("b", times=2)
    await stage.complete("b", "c")
    assert await stage.end() == "completed"

    assert again.inputs["prior_context"] == "A"
    assert [stage.times_given(name) for name in "abc"] == [1, 2, 1]
    kinds = await stage.kinds()
    assert (kinds.count("run_started"), kinds.count("run_resumed")) == (1, 1)


async def test_149_with_nothing_completed_everything_is_executed(stage: Stage) -> None:
    await stage.start("call a call b")
    await stage.fail("a")
    assert await stage.end() == "failed"

    await stage.resume()
    await stage.offered("a", times=2)
    await stage.complete("a", "b")
    assert await stage.end() == "completed"


async def test_150_a_resumed_loop_executes_only_the_pass_that_was_broken_off(stage: Stage) -> None:
    await stage.start("call a while a.m { max_iterations = 5 call a call b }")
    await stage.complete("a", markers=["m"])
    for _ in range(2):
        await stage.complete("a", markers=["m"])
        await stage.complete("b")
    await stage.complete("a", markers=["m"])
    await stage.fail("b")
    assert await stage.end() == "failed"

    await stage.resume()
    again = await stage.offered("b", times=4)
    await stage.complete("b")
    last = await stage.offered("a", times=5)
    await stage.complete("a")
    await stage.complete("b")

    assert await stage.end() == "completed"
    assert (again.iterations, last.iterations) == ((2,), (3,))


async def test_152_of_two_resumes_one_counts(stage: Stage) -> None:
    """A run that is being resumed is live."""
    await stage.start("call a")
    await stage.fail("a")
    assert await stage.end() == "failed"

    await stage.resume()
    with pytest.raises(Refused) as refused:
        await stage.resume()
    assert refused.value.reason == "RUN_STATE"
    await stage.offered("a", times=2)
    await stage.complete("a")
    assert await stage.end() == "completed"
    assert (await stage.kinds()).count("run_resumed") == 1


async def test_153_the_feedback_of_a_gate_is_known_after_a_resume(stage: Stage) -> None:
    await stage.start("gate human_approval { } call a")
    await stage.approve("with care")
    await stage.fail("a")
    assert await stage.end() == "failed"

    await stage.resume()
    given = await stage.offered("a", times=2)
    assert (given.gate_feedback, given.inputs["gate_feedback"]) == ("with care", "with care")


async def test_154_a_step_before_a_loop_does_not_stand_for_the_same_one_in_it(
    stage: Stage,
) -> None:
    """Both are called `a`, in iteration 0; the run fails between them."""
    await stage.start("call a while a.m { max_iterations = 3 call check call a }")
    await stage.complete("a", markers=["m"])
    await stage.fail("check")
    assert await stage.end() == "failed"

    await stage.resume()
    await stage.offered("check", times=2)
    await stage.complete("check")
    inside = await stage.offered("a", times=2)
    await stage.complete("a")

    assert await stage.end() == "completed"
    assert inside.iterations == (0,)
    assert [row.status for row in await stage.rows("a")] == ["completed", "completed"]


async def test_a_resume_from_a_step_repeats_it_and_everything_after_it(stage: Stage) -> None:
    """Also what had completed; what comes before stands."""
    await stage.start("call a call b call c call d")
    await stage.complete("a", "b", "c")
    await stage.fail("d")
    assert await stage.end() == "failed"

    await stage.resume("from_step", step="b")
    for name in ("b", "c", "d"):
        await stage.offered(name, times=2)
        await stage.complete(name)
    assert await stage.end() == "completed"
    rows = await stage.rows()
    assert [(row.name, row.epoch) for row in rows if not row.superseded_epoch] == [
        ("a", 1), ("b", 2), ("c", 2), ("d", 2),
    ]  # fmt: skip


async def test_a_resume_takes_up_the_child_that_failed(stage: Stage) -> None:
    """A child run that completed is not touched; the failed one keeps what it had done."""
    await stage.put("good", "call fine")
    await stage.put("bad", "call early call late")
    await stage.start("call workflow good call workflow bad")
    await stage.complete("fine", "early")
    await stage.fail("late")
    assert await stage.end() == "failed"

    await stage.resume()
    await stage.offered("late", times=2)
    await stage.complete("late")
    assert await stage.end() == "completed"
    assert (stage.times_given("fine"), stage.times_given("early")) == (1, 1)
    failed, again = await stage.rows("workflow:bad")
    assert (failed.status, again.status) == ("failed", "completed")
    assert failed.child_run_id == again.child_run_id


async def test_161_a_resumed_dry_run_is_one_still(stage: Stage) -> None:
    """Its gates approve themselves, as before."""
    await stage.start("call a gate human_approval { } call b", dry_run=True)
    await stage.fail("a")
    assert await stage.end() == "failed"

    await stage.resume()
    again = await stage.offered("a", times=2)
    await stage.complete("a")
    last = await stage.offered("b")
    assert (again.dry_run, last.dry_run) == (True, True)
    assert last.inputs["dry_run"] == "true"


@pytest.mark.parametrize("mode", ["normal", "from_step", "restart"])
async def test_162_a_running_run_is_not_resumed(stage: Stage, mode: str) -> None:
    await stage.start("call a")
    await stage.until_open("a")
    await _assert_refused(stage, mode, "RUN_STATE")
    assert await stage.status() == "running"


@pytest.mark.parametrize("mode", ["normal", "from_step", "restart"])
async def test_162_a_cancelled_run_is_not_resumed(stage: Stage, mode: str) -> None:
    await stage.start("call a")
    await stage.offered("a")
    await stage.cancel(force=True)
    assert await stage.end() == "cancelled"
    await _assert_refused(stage, mode, "RUN_STATE")
    assert await stage.status() == "cancelled"


async def test_162_a_completed_run_is_only_restarted(stage: Stage) -> None:
    await stage.start("call a")
    await stage.complete("a")
    assert await stage.end() == "completed"
    await _assert_refused(stage, "normal", "RUN_STATE")
    await _assert_refused(stage, "from_step", "RUN_STATE")

    await stage.resume("restart")
    await stage.offered("a", times=2)
    await stage.complete("a")
    assert await stage.end() == "completed"


@pytest.mark.parametrize("mode", ["RESUME_MODE_NORMAL", "RESUME_MODE_RESTART"])
def test_162_a_step_is_named_with_one_mode_only(mode: str) -> None:
    """Refused by its form, whatever the run is like."""
    request = runs_pb2.ResumeRunRequest(
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        mode=events_pb2.ResumeMode.Value(mode),
        from_step_id="01ARZ3NDEKTSV4RRFFQ69G5FAV/b.0000/e1/0",
    )
    with pytest.raises(InvalidArgumentError, match="from_step_id"):
        check_resume_run(request)


async def test_162_the_step_to_resume_from_must_be_known(stage: Stage) -> None:
    await stage.start("call a")
    await stage.fail("a")
    assert await stage.end() == "failed"

    with pytest.raises(Refused) as unknown:
        await stage.resume("from_step", step=f"{stage.run_id}/elsewhere")
    assert unknown.value.reason == "STEP_NOT_FOUND"
    assert await stage.status() == "failed"


async def _assert_refused(stage: Stage, mode: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        await stage.resume(mode, step="a" if mode == "from_step" else "")
    assert refused.value.reason == reason

"""Taking finished runs up again: what is repeated, what stands, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.core.engine import ResumeMode, ResumeRefusal, ResumeRefusedError
from support.histories import check_laws
from support.plays import Play

if TYPE_CHECKING:
    from typing import Any


def resume(play: Play, mode: ResumeMode = ResumeMode.NORMAL, step: str | None = None) -> None:
    """Resume by the name of a step; the laws hold after it."""
    step_id = None if step is None else play.rows(step)[-1]["id"]
    play.world.resume(mode, step_id)
    check_laws(play.world)


def standing(play: Play) -> list[tuple[str, str, int]]:
    """Name, status and epoch of the rows that count, in program order."""
    rows = sorted(play.world.standing(), key=lambda row: (row["at"], row["retry_count"]))
    return [(row["step_name"], row["status"], row["epoch"]) for row in rows]


def test_149_completed_steps_stand_and_the_rest_runs() -> None:
    play = Play("call a call b call c always { call d }")
    play.complete("a", context="of a")
    play.fail("b")
    play.complete("d")
    assert play.status == "failed"
    resume(play)
    assert play.payload("run_resumed") == {"workflow_name": "w", "mode": "normal"}
    assert play.open_steps == ["b"]
    assert play.given("b").inputs["prior_context"] == "of a"
    play.complete("b", "c", "d")
    assert play.status == "completed"
    assert play.error is None
    assert standing(play) == [
        ("a", "completed", 1), ("b", "completed", 2), ("c", "completed", 2), ("d", "completed", 2),
    ]  # fmt: skip
    assert play.kinds.count("run_started") == 1


def test_149_with_nothing_completed_everything_runs() -> None:
    play = Play("call a call b")
    play.fail("a")
    resume(play)
    play.complete("a", "b")
    assert play.status == "completed"


def test_150_complete_passes_of_a_loop_stand() -> None:
    play = Play("call a while a.m { max_iterations = 9 call b call a }")
    play.complete("a", markers=("m",))
    for _ in range(2):
        play.complete("b")
        play.complete("a", markers=("m",))
    play.fail("b")
    resume(play)
    assert play.open_steps == ["b"]
    assert play.given("b").iterations == (2,)
    play.complete("b", "a")
    assert play.status == "completed"
    assert [row["epoch"] for row in play.rows("b")] == [1, 1, 1, 2]


def test_153_feedback_of_a_gate_is_restored() -> None:
    play = Play("gate human_review { } call a")
    play.approve("mind the gap")
    play.fail("a")
    resume(play)
    assert play.given("a").gate_feedback == "mind the gap"


def test_154_the_same_step_inside_a_loop_is_another_one() -> None:
    play = Play("call a while a.m { max_iterations = 2 call a }")
    play.complete("a", markers=("m",))
    play.fail("a")
    resume(play)
    assert play.given("a").iterations == (0,)
    play.complete("a")
    assert play.status == "completed"


def test_161_a_dry_run_stays_one() -> None:
    play = Play("call a call b", dry_run=True)
    play.complete("a")
    play.fail("b")
    resume(play)
    assert play.given("b").dry_run
    assert play.given("b").inputs["dry_run"] == "true"


def test_068_a_step_named_by_a_path_stands_under_its_stem() -> None:
    play = Play('call "steps/a.md" if a.m { call b } call c')
    play.complete("steps/a.md", markers=("m",))
    play.complete("b")
    play.fail("c")
    resume(play)
    assert play.open_steps == ["c"]
    play.complete("c")
    assert standing(play)[:2] == [("steps/a.md", "completed", 1), ("b", "completed", 1)]


@pytest.mark.parametrize(
    ("end", "mode", "step", "refusal"),
    [
        (None, ResumeMode.NORMAL, None, ResumeRefusal.LIVE),
        (None, ResumeMode.RESTART, None, ResumeRefusal.LIVE),
        ("cancelled", ResumeMode.NORMAL, None, ResumeRefusal.CANCELLED),
        ("cancelled", ResumeMode.RESTART, None, ResumeRefusal.CANCELLED),
        ("completed", ResumeMode.NORMAL, None, ResumeRefusal.COMPLETED),
        ("completed", ResumeMode.FROM_STEP, "a", ResumeRefusal.COMPLETED),
        ("failed", ResumeMode.FROM_STEP, "elsewhere", ResumeRefusal.UNKNOWN_STEP),
        ("failed", ResumeMode.FROM_STEP, None, ResumeRefusal.UNKNOWN_STEP),
    ],
)
def test_162_what_cannot_be_resumed_is_refused(
    end: str | None, mode: ResumeMode, step: str | None, refusal: ResumeRefusal
) -> None:
    play = Play("call a")
    match end:
        case "cancelled":
            play.cancel(force=True)
        case "completed":
            play.complete("a")
        case "failed":
            play.fail("a")
        case _:
            pass
    before = play.world.rows()
    step_id: Any = play.row("a")["id"] if step == "a" else step
    with pytest.raises(ResumeRefusedError) as refused:
        play.world.resume(mode, step_id)
    assert refused.value.refusal is refusal
    assert play.world.rows() == before


def test_a_completed_run_is_repeated_by_a_restart() -> None:
    play = Play("call a call b")
    play.complete("a", "b", context="first time")
    resume(play, ResumeMode.RESTART)
    assert play.given("a").inputs["prior_context"] == ""
    play.complete("a", "b")
    assert standing(play) == [("a", "completed", 2), ("b", "completed", 2)]
    assert {row["superseded_epoch"] for row in play.world.steps.values() if row["epoch"] == 1} == {
        2
    }


def test_from_a_step_on_everything_is_repeated() -> None:
    play = Play("call a call b call c call d")
    play.complete("a", "b", "c")
    play.fail("d")
    resume(play, ResumeMode.FROM_STEP, "b")
    assert play.payload("run_resumed")["from_step_id"] == play.rows("b")[0]["id"]
    play.complete("b", "c", "d")
    assert [epoch for _, _, epoch in standing(play)] == [1, 2, 2, 2]


def test_a_step_that_was_replaced_is_no_place_to_go_on_from() -> None:
    play = Play("call a")
    play.fail("a")
    old = play.row("a")["id"]
    resume(play)
    play.fail("a")
    with pytest.raises(ResumeRefusedError, match="epoch 2") as refused:
        play.world.resume(ResumeMode.FROM_STEP, old)
    assert refused.value.refusal is ResumeRefusal.SUPERSEDED_STEP


def test_a_loop_at_its_limit_would_fail_again() -> None:
    play = Play("call a while a.m { max_iterations = 1 on_max_iter = fail call b }")
    play.complete("a", markers=("m",))
    play.complete("b")
    assert play.status == "failed"
    with pytest.raises(ResumeRefusedError, match="FROM_STEP") as refused:
        play.world.resume(ResumeMode.NORMAL)
    assert refused.value.refusal is ResumeRefusal.NOTHING_TO_REPEAT
    resume(play, ResumeMode.FROM_STEP, "a")
    play.complete("a")
    assert play.status == "completed"
    assert standing(play) == [("a", "completed", 2)]


def test_tolerated_failures_stand() -> None:
    play = Play("call a { on_fail = continue } call b")
    play.fail("a")
    play.fail("b")
    resume(play)
    assert play.open_steps == ["b"]


def test_of_a_block_only_the_failed_branches_are_repeated() -> None:
    play = Play("parallel { call a call b call c } call d")
    play.complete("a", markers=("m",))
    play.fail("b")
    play.stopped("c")
    resume(play)
    assert play.open_steps == ["b", "c"]
    play.complete("b", "c", "d")
    assert play.status == "completed"
    assert [epoch for _, _, epoch in standing(play)] == [1, 2, 2, 2]


def test_steps_that_are_not_reached_again_count_no_more() -> None:
    """The repeated step says something else, so the branch behind the condition is an orphan."""
    play = Play("call a { on_fail = continue } if a.m { call b } call c", fail_fast=False)
    play.complete("a", markers=("m",))
    play.complete("b")
    play.fail("c")
    resume(play, ResumeMode.FROM_STEP, "a")
    play.complete("a")
    play.complete("c")
    assert standing(play) == [("a", "completed", 2), ("c", "completed", 2)]
    assert play.world.run["result_summary"] == "2 of 2 steps completed"


def test_the_agent_of_a_repeated_step_runs_again() -> None:
    """What it did about the failure before is no answer to this one."""
    play = Play("call a { on_fail = b } call c")
    play.fail("a")
    play.complete("b")
    resume(play)
    play.fail("a")
    assert play.open_steps == ["b"]
    assert [row["epoch"] for row in play.rows("b")] == [1, 2]


def test_what_is_left_behind_the_last_step_of_the_body_is_superseded() -> None:
    """Nothing comes after it that would pass it by; so the end of the body does."""
    play = Play("call b unless b.m { call c }", fail_fast=False)
    play.fail("b")
    play.complete("c")
    assert play.status == "failed"
    resume(play)
    play.complete("b", markers=("m",))
    assert play.status == "completed"
    assert play.row("c")["superseded_epoch"] == 2
    assert play.payload("run_finished")["result_summary"] == "1 of 1 steps completed"


def test_a_body_that_is_left_early_says_nothing_of_what_is_behind() -> None:
    """Nobody knows whether it would have been reached."""
    play = Play("call b call c", fail_fast=False)
    play.fail("b")
    play.complete("c")
    resume(play)
    play.cancel()
    play.stopped("b")
    assert play.status == "cancelled"
    assert "superseded_epoch" not in play.row("c")


def test_what_stands_behind_a_repeated_step_is_passed_by_if_it_is_not_reached() -> None:
    """With fail-fast off the run went on behind its failure, and those steps stand at first."""
    play = Play("call a if a.m { call b } call c call d", fail_fast=False)
    play.fail("a")
    play.complete("c")
    play.complete("d")
    assert play.status == "failed"
    resume(play)
    play.complete("a", markers=("m",))
    assert play.open_steps == ["b"]
    play.complete("b")
    assert play.status == "completed"
    assert standing(play) == [
        ("a", "completed", 2), ("b", "completed", 2), ("c", "completed", 1), ("d", "completed", 1),
    ]  # fmt: skip


def test_retries_begin_anew() -> None:
    play = Play("call a { retries = 1 }")
    play.fail("a")
    play.fail("a")
    resume(play)
    assert play.given("a").retries_remaining == 1
    play.fail("a")
    play.complete("a")
    assert standing(play) == [("a", "failed", 2), ("a", "completed", 2)]


def test_an_on_fail_agent_is_repeated_with_its_call() -> None:
    play = Play("call a { on_fail = fixer } call b")
    play.fail("a")
    play.complete("fixer")
    assert play.status == "failed"
    resume(play)
    assert play.open_steps == ["a"]
    play.complete("a", "b")
    assert standing(play) == [("a", "completed", 2), ("b", "completed", 2)]


def test_a_rejected_gate_is_opened_again() -> None:
    play = Play('gate human_review { prompt = "well?" } call a')
    first = play.gate().gate_id
    play.reject()
    resume(play)
    assert play.status == "waiting"
    assert play.gate().gate_id != first
    play.approve()
    assert play.open_steps == ["a"]


def test_a_restart_of_an_empty_run_ends_at_once() -> None:
    play = Play("if unset { call a }")
    assert play.status == "completed"
    resume(play, ResumeMode.RESTART)
    assert play.status == "completed"
    assert play.kinds.count("run_finished") == 2

"""Parallel blocks."""

from __future__ import annotations

from itertools import permutations

import pytest

from runkon_server.core.outputs_schema import schema_of
from support.plays import Play


def test_079_rows_exist_before_anything_is_dispatched() -> None:
    """All branches start in one decision, on rows of one group, in declaration order."""
    play = Play("parallel { call a call b call c }")

    assert play.started == ["a", "b", "c"]
    rows = list(play.world.steps.values())
    assert [row["position"] for row in rows] == [0, 1, 2]
    assert len({row["parallel_group_id"] for row in rows}) == 1


def test_080_unmet_condition_skips_a_branch() -> None:
    """Its row says why, and it counts as a success."""
    play = Play('call a parallel { call b call c { if = "a.m" } }')
    play.complete("a", "b")

    row = play.row("c")
    assert (row["status"], row["condition_expr"], row["condition_met"]) == ("skipped", "a.m", False)
    assert "a.m" in row["result_text"]
    assert play.status == "completed"


def test_080_met_condition_runs_a_branch() -> None:
    """Its row says that the condition held."""
    play = Play('call a parallel { call b call c { if = "a.m" } }')
    play.complete("a", markers=("m",))

    assert play.row("c")["condition_met"] is True
    assert play.open_steps == ["b", "c"]


def test_081_one_of_two_is_enough() -> None:
    """The block passes with one failure if that is what it asks for."""
    play = Play("parallel { min_success = 1 call a call b } call c")
    play.fail("a")
    assert play.world.asked == {}
    play.complete("b", "c")

    assert play.status == "completed"


def test_082_all_are_needed_unless_told_otherwise() -> None:
    """The run's error names the block's count and the first branch that failed."""
    play = Play("parallel { fail_fast = false call a call b }")
    play.fail("b", "no disk")
    play.complete("a")

    assert play.status == "failed"
    assert play.error == ("parallel block: 1 of 2 calls succeeded, 2 needed; `b` failed: no disk")
    assert [row.get("fatal") for row in play.world.steps.values()] == [None, True]


def test_083_branches_retry_on_one_row() -> None:
    """Two dispatches, one row; an error stands in it only between the attempts."""
    play = Play('parallel { call a { retries = 1 retry_delay = "5s" } call b }')
    play.fail("a", "no disk")
    assert (play.row("a")["status"], play.row("a")["step_error"]) == ("running", "no disk")
    play.pass_time("retry")

    assert play.task("a").retry_error == "no disk"
    assert play.row("a")["step_error"] == ""
    play.complete("a", "b")
    assert play.started == ["a", "b", "a"]
    assert (play.row("a")["status"], play.row("a")["retry_count"]) == ("completed", 1)


def test_083_a_branch_that_always_fails() -> None:
    """As many dispatches as attempts, then the row is failed."""
    play = Play("parallel { call a { retries = 1 } call b }")
    play.fail("a")
    play.fail("a", "again")
    play.stopped("b")

    assert play.started == ["a", "b", "a"]
    assert (play.row("a")["status"], play.row("a")["step_error"]) == ("failed", "again")


def test_a_cancelled_pause_shows_the_same_in_row_and_event() -> None:
    """The last attempt's error; the code of an attempt that was to be repeated is not kept."""
    play = Play('parallel { call a { retries = 1 retry_delay = "5s" } call b }')
    play.fail("a", "no disk", error_code="DISK")
    play.cancel()

    assert play.payload("step_failed")["step"]["step_error"] == "no disk"
    assert play.row("a")["status"] == "failed"


def test_pauses_of_one_branch_do_not_end_each_other() -> None:
    """The first pause's timer, coming late, is not the second's."""
    play = Play('parallel { call a { retries = 2 retry_delay = "5s" } call b }')
    play.fail("a")
    first = play.timer("retry").timer_id
    play.pass_time("retry")
    play.fail("a")

    assert play.timer("retry").timer_id != first


def test_085_results_stand_under_each_branchs_own_key() -> None:
    """Markers, contexts and metrics."""
    play = Play("parallel { call a call b } if a.m { if b.n { call x } }")
    play.complete("b", markers=("n",), context="from b", metadata={"num_turns": "1"})
    play.complete("a", markers=("m",), context="from a", metadata={"num_turns": "2"})

    assert play.open_steps == ["x"]
    assert play.row("a")["context_out"] == "from a"
    assert play.world.run["metrics"] == {"num_turns": 3}


def test_086_siblings_are_stopped_once_the_block_cannot_succeed() -> None:
    """Of three, two are needed: the second failure is the one that stops the third."""
    play = Play("parallel { min_success = 2 call a call b call c { retries = 2 } } call d")
    third = play.task("c").task_id
    play.fail("a")
    assert play.world.asked == {}
    play.fail("b")

    assert play.world.asked == {third: "fail_fast"}
    play.fail("c")
    assert play.started == ["a", "b", "c"]
    assert play.status == "failed"


def test_a_block_fails_of_what_failed_by_itself() -> None:
    """Not of the branch that it stopped, although that one stands first."""
    play = Play("parallel { call a call b }")
    play.fail("b", "no disk")
    play.stopped("a")

    assert play.world.run["error"].endswith("`b` failed: no disk")


def test_086_siblings_go_on_without_fail_fast() -> None:
    """Nobody is told to stop."""
    play = Play("parallel { fail_fast = false call a call b }")
    play.fail("a")

    assert play.world.asked == {}
    assert play.open_steps == ["b"]


def test_a_pause_ends_when_the_block_is_doomed() -> None:
    """The branch fails with the error of its last attempt."""
    play = Play('parallel { call a { retries = 1 retry_delay = "5s" } call b }')
    play.fail("a", "no disk")
    play.fail("b")

    assert play.world.timers == {}
    assert (play.row("a")["status"], play.row("a")["step_error"]) == ("failed", "no disk")
    assert play.status == "failed"


@pytest.mark.parametrize("order", list(permutations("abc")))
def test_087_reports_may_come_in_any_order(order: tuple[str, ...]) -> None:
    """What later steps are told follows the declaration, not the clock."""
    play = Play("parallel { call a call b call c } call d")
    for name in order:
        play.complete(name, context=f"from {name}", structured_output=f'{{"of": "{name}"}}')

    task = play.task("d")
    assert task.inputs["prior_context"] == "from c"
    assert task.inputs["of"] == "c"
    steps = (task.prior_contexts or "").split('"step":"')[1:]
    assert [step[0] for step in steps] == ["a", "b", "c"]


def test_failed_branch_forgets_its_markers_of_an_earlier_pass() -> None:
    """An old result must not outlive a new failure."""
    play = Play("call a parallel { min_success = 1 call a call b } if a.m { call x } call c")
    play.complete("a", markers=("m",))
    play.fail("a")
    play.complete("b")

    assert play.open_steps == ["c"]


def test_named_block_answers_to_merged_markers() -> None:
    """Those of all its branches."""
    play = Play("parallel { name = checks call a call b } if checks.m { if checks.n { call x } }")
    play.complete("a", markers=("m",))
    play.complete("b", markers=("n",))

    assert play.open_steps == ["x"]


def test_branches_share_one_view_of_what_was_before() -> None:
    """None sees another's output."""
    play = Play("call z parallel { call a call b { retries = 1 } }")
    play.complete("z", context="before")
    play.complete("a", context="beside")
    play.fail("b")

    assert play.task("b").inputs["prior_context"] == "before"


def test_do_block_settings_reach_branches() -> None:
    """Outermost snippets first; the branch's own output wins over the block's."""
    play = Play(
        'do { output = o with = ["1"] parallel { with = ["2"] call a { with = ["3"] }'
        " call b { output = p } } }",
        schemas={name: schema_of(name, {"fields": {}}) for name in ("o", "p")},
    )

    assert (play.task("a").output_schema, play.task("a").snippets) == ("o", ("1", "2", "3"))
    assert (play.task("b").output_schema, play.task("b").snippets) == ("p", ("1", "2"))


def test_more_successes_than_calls_means_all() -> None:
    """A check warns; the run clamps."""
    play = Play("parallel { min_success = 5 call a call b }")
    play.complete("a", "b")

    assert play.status == "completed"

"""Conditions and loops."""

from __future__ import annotations

import pytest

from support.plays import Play


@pytest.mark.parametrize(
    ("value", "expected"), [("TRUE", "x"), ("true", "x"), ("yes", "y"), (None, "y")]
)
def test_070_boolean_inputs(value: str | None, expected: str) -> None:
    """`true` in any case holds; a missing input does not."""
    inputs = {} if value is None else {"flag": value}
    play = Play("inputs { flag boolean } if flag { call x } unless flag { call y }", inputs)

    assert play.open_steps == [expected]


def test_071_markers_decide() -> None:
    """Present, absent, and of a step that never ran."""
    play = Play(
        "call a if a.m { call x } if a.n { call y } if z.m { call y } unless z.m { call u }"
    )
    play.complete("a", markers=("m",))
    play.complete("x")

    assert play.open_steps == ["u"]


def test_072_nested_ifs() -> None:
    """The inner one is asked only inside the outer one."""
    play = Play("call a if a.n { if a.m { call x } } if a.m { if a.m { call y } }")
    play.complete("a", markers=("m",))

    assert play.open_steps == ["y"]


def test_073_while_ends_when_the_marker_is_gone() -> None:
    """Two passes; both steps of a pass have its number."""
    play = Play("call a while a.m { max_iterations = 5 call b call a } call c")
    play.complete("a", "b", "a", markers=("m",))
    play.complete("b", "a")

    assert play.open_steps == ["c"]
    assert [row["iteration"] for row in play.rows("b")] == [0, 1]
    assert [row["iterations"] for row in play.rows("a")] == [(), (0,), (1,)]


def test_074_while_without_the_marker_runs_no_pass() -> None:
    """The test comes first."""
    play = Play("call a while a.m { max_iterations = 5 call b } call c")
    play.complete("a")

    assert play.open_steps == ["c"]


@pytest.mark.parametrize(("policy", "status"), [("fail", "failed"), ("continue", "running")])
@pytest.mark.parametrize(
    "loop",
    [
        "while a.m {{ max_iterations = 3 on_max_iter = {} call a }}",
        "do {{ max_iterations = 3 on_max_iter = {} call a }} while a.m",
    ],
)
def test_075_loops_end_at_their_limit(loop: str, policy: str, status: str) -> None:
    """`fail` fails the run after three passes, `continue` goes on with the next node."""
    play = Play(f"call a {loop.format(policy)} call b")
    for _ in range(4):
        play.complete("a", markers=("m",))

    assert play.started.count("a") == 4
    assert play.status == status
    assert play.open_steps == (["b"] if policy == "continue" else [])
    assert ("is still set after 3 passes" in (play.error or "")) == (policy == "fail")


def test_075_limit_aborts_also_without_fail_fast() -> None:
    """A loop that failed has no later nodes."""
    play = Play("do { max_iterations = 1 call a } while a.m call b", fail_fast=False)
    play.complete("a", markers=("m",))

    assert play.status == "failed"
    assert play.rows("b") == []


def test_076_stuck_loops_are_given_up() -> None:
    """The same set of markers after three passes; the order of markers is no difference."""
    play = Play("do { max_iterations = 9 stuck_after = 3 call a } while a.m call b")
    play.complete("a", markers=("m", "n"))
    play.complete("a", markers=("n", "m"))
    play.complete("a", markers=("m", "n"))

    assert play.status == "failed"
    assert "is stuck" in (play.error or "")


def test_076_changing_markers_are_not_stuck() -> None:
    """Any change among the last three passes."""
    play = Play("do { max_iterations = 9 stuck_after = 3 call a } while a.m call b")
    for markers in (("m",), ("m", "n"), ("m",), ("m",)):
        play.complete("a", markers=markers)
    play.complete("a")

    assert play.open_steps == ["b"]


def test_076_only_the_last_passes_count() -> None:
    """A change before them does not help."""
    play = Play("do { max_iterations = 9 stuck_after = 2 call a } while a.m call b")
    play.complete("a", markers=("m", "n"))
    play.complete("a", markers=("m",))
    play.complete("a", markers=("m",))

    assert "is stuck" in (play.error or "")


def test_076_stuck_check_comes_before_the_exit() -> None:
    """Three passes without any marker: the loop would end by itself only in the first."""
    play = Play("do { max_iterations = 9 stuck_after = 1 call a } while a.m call b")
    play.complete("a")

    assert "is stuck" in (play.error or "")


def test_077_do_while_runs_once_without_the_marker() -> None:
    """The test comes last."""
    play = Play("do { max_iterations = 5 call a } while a.m call b")
    play.complete("a")

    assert play.open_steps == ["b"]


def test_078_cancel_in_a_pass_ends_the_loop() -> None:
    """The step in flight ends, the next one of the pass does not begin."""
    play = Play("do { max_iterations = 5 call a call b } while a.m call c")
    play.cancel()
    play.complete("a", markers=("m",))

    assert play.started == ["a"]
    assert play.status == "cancelled"


def test_078_cancelled_loop_does_not_fail_of_its_limit() -> None:
    """The body is left at the first step that is refused, not walked to its end."""
    play = Play("do { max_iterations = 5 on_max_iter = fail call a } while a.m always { call n }")
    play.cancel()
    play.complete("a", markers=("m",))

    assert play.open_steps == ["n"]
    assert play.world.run["body_error"] is None


@pytest.mark.parametrize(("policy", "status"), [("fail", "failed"), ("continue", "running")])
def test_a_pass_that_starts_nothing_is_the_last(policy: str, status: str) -> None:
    """Nothing could change the marker, so a million further passes would not either."""
    play = Play(
        f"call a while a.m {{ max_iterations = 1000 on_max_iter = {policy}"
        " if a.n { call b } } call c"
    )
    play.complete("a", markers=("m",))

    assert play.status == status
    assert play.open_steps == (["c"] if policy == "continue" else [])


def test_dry_gates_and_skipped_branches_keep_no_loop_going() -> None:
    """They end at once, so a loop of nothing else is over after one pass."""
    play = Play(
        "call a while a.m { max_iterations = 1000 on_max_iter = continue"
        ' gate human_review {} parallel { call b { if = "a.n" } } } call c',
        dry_run=True,
    )
    play.complete("a", markers=("m",))

    assert len(play.rows("b")) == 1
    assert play.open_steps == ["c"]


def test_nested_loops_count_each_for_itself() -> None:
    """Every step carries the passes of all loops around it, and no two have the same place."""
    play = Play(
        "do { max_iterations = 2 on_max_iter = continue"
        "  do { max_iterations = 2 on_max_iter = continue call a } while a.m } while a.m"
    )
    for _ in range(4):
        play.complete("a", markers=("m",))

    assert [row["iterations"] for row in play.rows("a")] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({row["at"] for row in play.rows("a")}) == 4
    assert play.status == "completed"

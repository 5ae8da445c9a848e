"""Why a run stands still, where it is, what it came to."""

from __future__ import annotations

from runkon_server.core.engine import (
    blocked_on,
    current_step,
    open_tasks,
    summarize,
    waits_only_for_gates,
)
from support.plays import Play


def types(play: Play) -> list[str]:
    """The types of what a run waits for."""
    return [entry["type"] for entry in blocked_on(play.world.state)]


def test_pending_run_waits_for_its_start() -> None:
    """It is at no step yet."""
    play = Play("call a", start=False)

    assert types(play) == ["start"]
    assert current_step(play.world.state) is None


def test_call_waits_for_its_worker_then_for_its_pause() -> None:
    """Each names what would end it."""
    play = Play('call a { retries = 1 retry_delay = "5s" }')
    (working,) = blocked_on(play.world.state)
    assert working == {
        "type": "worker", "task_id": "01RUN/b.0000/e1/0#0", "attempt": 0,
        "step_id": "01RUN/b.0000/e1/0", "step_name": "a",
    }  # fmt: skip
    play.fail("a")

    assert blocked_on(play.world.state) == (
        {
            "type": "retry", "timer_id": "01RUN/b.0000/e1/0#0:retry", "attempt": 1,
            "step_id": "01RUN/b.0000/e1/0", "step_name": "a",
        },
    )  # fmt: skip
    assert open_tasks(play.world.state) == ()
    assert not waits_only_for_gates(play.world.state)


def test_block_waits_for_each_open_branch() -> None:
    """A branch that has ended is not named, one in a pause waits for that."""
    play = Play('parallel { call a call b { retries = 1 retry_delay = "5s" } call c }')
    play.complete("a")
    play.fail("b")

    assert types(play) == ["retry", "worker"]
    assert open_tasks(play.world.state) == (play.task("c").task_id,)
    assert current_step(play.world.state) == ("b", 0)


def test_on_fail_agent_is_the_current_step() -> None:
    """Its worker is what the run waits for."""
    play = Play("call a { on_fail = fix }")
    play.fail("a")

    assert types(play) == ["worker"]
    assert current_step(play.world.state) == ("fix", 0)


def test_gate_is_all_a_waiting_run_waits_for() -> None:
    """So it may be forgotten meanwhile."""
    play = Play("call a do { max_iterations = 2 gate human_review {} call a } while a.m")
    play.complete("a")
    play.approve()
    play.complete("a", markers=("m",))

    assert waits_only_for_gates(play.world.state)
    assert blocked_on(play.world.state) == (play.world.run["blocked_on"],)
    assert current_step(play.world.state) == ("human_review", 1)


def test_finished_run_waits_for_nothing() -> None:
    """And is at no step."""
    play = Play("call a")
    play.complete("a")

    assert blocked_on(play.world.state) == ()
    assert current_step(play.world.state) is None


def test_053_summary_lists_every_step_with_its_label() -> None:
    """In program order, with attempts, passes and errors; then how the run ended."""
    play = Play(
        "call a { retries = 1 } do { max_iterations = 2 call b } while b.m"
        ' parallel { min_success = 1 call c { if = "b.m" } call d }'
        " gate human_review { on_timeout = continue } call e"
    )
    play.fail("a", "no disk\nat all")
    play.complete("a")
    play.complete("b", markers=("m",))
    play.complete("b", "d")
    play.let_gate_time_out()
    play.fail("e", "bad end")
    rows = play.world.rows()

    assert summarize(rows.run, reversed(rows.steps)).splitlines() == [
        "4 of 8 steps completed, 2 failed, 1 skipped, 1 timed out",
        "  FAIL  a: no disk",
        "  ok    a (attempt 2)",
        "  ok    b",
        "  ok    b (iteration 1)",
        "  skip  c",
        "  ok    d",
        "  tout  human_review: gate `human_review` timed out after 86400 s",
        "  FAIL  e: bad end",
        "run failed: step `e` failed: bad end",
    ]


def test_summary_of_a_run_under_way() -> None:
    """What is open is shown as such."""
    play = Play("call a gate human_review {} call b")
    play.complete("a")
    waiting = play.world.rows()
    play.approve()
    running = play.world.rows()

    assert "  wait  human_review" in summarize(waiting.run, waiting.steps)
    assert summarize(running.run, running.steps).endswith("  ...   b\nrun running")


def test_summary_takes_the_run_s_error_when_it_is_given() -> None:
    """That of a cancel is not the body's."""
    play = Play("call a")
    play.cancel("enough")
    play.stopped("a")
    rows = play.world.rows()

    assert summarize(rows.run, rows.steps, play.error).endswith("run cancelled: cancelled: enough")

"""Cancelling: what is asked to stop, how long it is awaited, what still runs."""

from __future__ import annotations

from runkon_server.core.facts import CancelAsked, Started
from support.plays import Play


def test_055_always_runs_after_a_cancel() -> None:
    """The worker is asked to stop and awaited; then the section sees `cancelled`."""
    play = Play("call a call b always { call n }")
    task = play.task("a").task_id
    play.cancel("no longer needed")
    assert play.status == "cancelling"
    assert play.world.asked == {task: "run_cancelled"}
    play.stopped("a")

    assert play.rows("b") == []
    assert play.task("n").inputs["workflow_status"] == "cancelled"
    play.complete("n")
    assert play.status == "cancelled"
    assert play.error == "cancelled: no longer needed"


def test_156_pre_cancelled_run_starts_no_step() -> None:
    """Its body is entered and left at once; the section at the end still runs."""
    play = Play("call a", start=False)
    play.cancel()

    assert play.status == "cancelled"
    assert play.world.steps == {}
    assert play.kinds == [
        "run_cancel_requested", "run_started", "metrics_updated", "run_finished",
    ]  # fmt: skip


def test_156_start_after_a_cancel_changes_nothing() -> None:
    """The two facts may be applied in either order."""
    play = Play("call a always { call n }", start=False)
    play.cancel()
    play.happen(Started())

    assert play.started == ["n"]


def test_158_a_body_that_completes_after_the_cancel_is_cancelled() -> None:
    """What the last step says still counts as its result."""
    play = Play("call a always { if a.m { call n } }")
    play.cancel()
    play.complete("a", markers=("m",))

    assert play.statuses("a") == ["completed"]
    assert play.task("n").inputs["workflow_status"] == "cancelled"


def test_cancel_closes_a_gate_at_once() -> None:
    """Nobody is asked any more: order, event and row say so."""
    play = Play("gate human_review {} call a")
    gate = play.gate().gate_id
    play.cancel()

    assert play.status == "cancelled"
    assert play.world.orders["CloseGate", gate] == 1
    assert play.payload("gate_resolved")["gate"]["state"] == "cancelled"
    assert play.row("human_review")["error_code"] == "CANCELLED"


def test_cancel_ends_a_pause() -> None:
    """The last attempt's failure stands."""
    play = Play('call a { retries = 2 retry_delay = "5s" }')
    play.fail("a", "no disk")
    play.cancel()

    assert play.status == "cancelled"
    assert play.statuses("a") == ["failed"]
    assert play.world.run["body_error"] == "step `a` failed: no disk"


def test_cancel_stops_retries_and_on_fail_agents() -> None:
    """A failure after the cancel is the last."""
    play = Play("call a { retries = 2 on_fail = fix }")
    play.cancel()
    play.fail("a", retryable=False)

    assert play.started == ["a"]
    assert play.status == "cancelled"


def test_cancel_stops_an_on_fail_agent() -> None:
    """It is work in flight like any other."""
    play = Play("call a { on_fail = fix }")
    play.fail("a")
    task = play.task("fix").task_id
    play.cancel()

    assert play.world.asked == {task: "run_cancelled"}
    play.stopped("fix")
    assert play.status == "cancelled"


def test_cancel_stops_every_branch_once() -> None:
    """Also those that a doomed block has stopped before."""
    play = Play("parallel { call a call b call c }")
    play.fail("a")
    asked = dict(play.world.asked)
    play.cancel()

    assert len(asked) == 2
    assert play.world.asked == asked
    play.stopped("b")
    play.stopped("c")
    assert play.status == "cancelled"


def test_grace_bounds_the_wait_for_the_body() -> None:
    """Then the work is abandoned and the section gets a period of its own."""
    play = Play("call a always { call n }", grace_s=60.0)
    task = play.task("a").task_id
    play.cancel()
    assert play.timer("grace").delay_s == 60
    play.pass_time("grace")

    assert play.row("a")["error_code"] == "CANCELLED"
    assert play.world.orders["AbandonTask", task] == 1
    assert play.open_steps == ["n"]
    assert play.timer("grace").delay_s == 60


def test_grace_bounds_the_section() -> None:
    """Nothing follows: no retry, no on_fail agent, no further step."""
    play = Play("call a always { call n { retries = 1 on_fail = fix } call o }")
    play.cancel()
    play.stopped("a")
    play.pass_time("grace")

    assert play.started == ["a", "n"]
    assert play.world.asked[play.given("n").task_id] == "run_cancelled"
    assert play.status == "cancelled"


def test_force_skips_the_section_and_every_wait() -> None:
    """The worker is told, nobody waits for it, no timer is left."""
    play = Play("call a { on_fail = fix } always { call n }")
    task = play.task("a").task_id
    play.cancel(force=True)

    assert play.status == "cancelled"
    assert play.started == ["a"]
    assert play.world.asked == {task: "run_cancelled"}
    assert play.world.orders["AbandonTask", task] == 1


def test_force_may_follow_a_patient_cancel() -> None:
    """The worker is not told twice, and the first reason stays."""
    play = Play("call a always { call n }")
    play.cancel("first")
    play.cancel("second", force=True)

    assert play.error == "cancelled: first"
    assert play.rows("n") == []


def test_a_second_cancel_changes_nothing() -> None:
    """Same state, no new grace."""
    play = Play("call a")
    play.cancel()
    state = play.world.state
    decision = play.world.apply(CancelAsked(reason="again"))

    assert decision.state is state


def test_cancel_in_the_section_lets_it_go_on() -> None:
    """Under grace, with the body's outcome as it was; the run ends cancelled."""
    play = Play("call a always { call n { retries = 1 } call o }")
    play.complete("a")
    play.cancel()
    assert play.world.asked == {}
    play.fail("n")
    play.complete("n")

    assert play.task("o").inputs["workflow_status"] == "completed"
    play.complete("o")
    assert play.status == "cancelled"


def test_cancel_at_a_gate_of_the_section_leaves_it_open() -> None:
    """The run no longer counts as waiting, but the gate can still be decided."""
    play = Play("call a always { gate human_review {} call n }")
    play.complete("a")
    play.cancel()
    assert play.status == "cancelling"
    assert play.world.run["blocked_on"] is None
    play.approve()

    assert play.open_steps == ["n"]
    assert "run_unblocked" not in play.kinds


def test_force_in_the_section_ends_the_run() -> None:
    """Whatever it was doing."""
    play = Play("call a always { call n call o }")
    play.complete("a")
    play.cancel(force=True)

    assert play.status == "cancelled"
    assert play.rows("o") == []


def test_cancel_without_a_reason_still_has_an_error() -> None:
    """A cancelled run says that it was cancelled."""
    play = Play("call a")
    play.cancel("")
    play.stopped("a")

    assert play.error == "cancelled"

"""Gates that workers look at."""

from __future__ import annotations

import pytest

from runkon_server.core.decision import GateWork
from runkon_server.core.engine import blocked_on
from runkon_server.core.facts import GateDecided, GateDecision, GatePolled, Outcome, Reported
from runkon_server.core.polling import PAUSE_S
from support.plays import Play

GATE = 'gate deploy { name = "ok" timeout = "1h" } call a'


def look(play: Play) -> str:
    """The look under way."""
    return play.task("ok").task_id


def answer(play: Play, **more: object) -> None:
    """A look that does not decide."""
    play.happen(GatePolled(task_id=look(play), **more))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("gate_type", ["deploy", "pr_checks", "pr_approval"])
def test_gates_of_other_types_are_looked_at_by_workers(gate_type: str) -> None:
    """The task says everything that a look needs; the run waits as at any gate."""
    play = Play(
        f'gate {gate_type} {{ name = "ok" prompt = "well?" min_approvals = 3 as = "bot" }}',
        {"pr": "7"},
    )
    task = play.task("ok")

    assert (task.kind, task.action, task.attempt, task.identity) == ("gate", gate_type, 0, "bot")
    assert task.inputs["pr"] == "7"
    assert task.work == GateWork(
        gate_id=play.gate().gate_id,
        name="ok",
        gate_type=gate_type,
        prompt="well?",
        options=None,
        min_approvals=3,
        approval_mode="min_approvals",
    )
    assert play.status == "waiting"
    assert play.gate().min_approvals == 3
    needed = blocked_on(play.world.state)[0].get("approvals_needed")
    assert needed == (3 if gate_type == "pr_approval" else None)


def test_people_are_not_looked_at() -> None:
    """Human gates make no task."""
    play = Play("gate human_review {}")

    assert play.world.tasks == {}


def test_look_that_does_not_decide_is_repeated_after_a_pause() -> None:
    """The worker may say how long, and why; the looks are counted."""
    play = Play(GATE)
    answer(play, delay_s=5.0, note="not deployed")
    paused = play.row("ok")["blocked_on"]
    delay = play.timer("poll").delay_s
    play.pass_time("poll")

    assert (paused, delay) == ({"polls": 1, "note": "not deployed"}, 5.0)
    assert play.task("ok").attempt == 1
    assert play.row("ok")["blocked_on"] == {"polls": 2}

    answer(play)
    assert play.timer("poll").delay_s == PAUSE_S
    assert play.status == "waiting"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
def test_look_that_fails_is_repeated(outcome: Outcome) -> None:
    """Errors keep polling: the forge may be down for an hour."""
    play = Play(GATE)
    play.happen(Reported(task_id=look(play), outcome=outcome, error="no route"))
    play.pass_time("poll")

    assert play.open_steps == ["ok"]


def test_look_that_can_never_succeed_fails_the_step() -> None:
    """The gate is closed, and the run's error is the worker's."""
    play = Play(GATE + " always { call n }")
    play.fail("ok", "no such pull request", retryable=False, error_code="NO_PR")

    assert play.row("ok")["status"] == "failed"
    assert play.row("ok")["error_code"] == "NO_PR"
    assert play.world.gates == {}
    assert play.open_steps == ["n"]
    assert play.status == "running"
    play.complete("n")
    assert play.error == "gate `ok`: no such pull request"


def test_result_is_no_answer_about_a_gate() -> None:
    """A worker that executes instead of looking must not open the gate."""
    play = Play(GATE)
    play.complete("ok")

    assert play.row("ok")["error_code"] == "OUTPUT_INVALID"
    assert play.status == "failed"


def test_look_that_approves_opens_the_gate() -> None:
    """As a person would; nothing is left in flight."""
    play = Play(GATE)
    play.happen(
        GateDecided(
            gate_id=play.gate().gate_id,
            decision=GateDecision.APPROVED,
            feedback="v7",
            decided_by="bot",
            poll_id=look(play),
        )
    )

    assert play.open_steps == ["a"]
    assert play.task("a").gate_feedback == "v7"
    assert play.world.asked == {}


def test_person_may_override_a_gate_that_is_being_looked_at() -> None:
    """The look is called off, and its answer means nothing any more."""
    play = Play(GATE)
    task = look(play)
    play.approve()

    assert play.world.asked == {task: "gate_closed"}
    assert play.open_steps == ["a"]


def test_decision_during_a_pause_ends_it() -> None:
    """No look follows."""
    play = Play(GATE)
    answer(play)
    play.reject("no")

    assert play.status == "failed"
    assert play.error == "no"
    assert play.world.timers == {}


def test_deadline_of_the_gate_ends_the_looks() -> None:
    """Whether one is under way or not."""
    looking, paused = Play(GATE), Play(GATE)
    answer(paused)
    for play in (looking, paused):
        play.let_gate_time_out()
        assert play.status == "failed"
        assert "timed out" in (play.error or "")


def test_cancel_ends_the_looks() -> None:
    """The worker is told that the run was cancelled."""
    play = Play(GATE)
    task = look(play)
    play.cancel()

    assert play.world.asked == {task: "run_cancelled"}
    assert play.status == "cancelled"


def test_gate_of_a_dry_run_is_not_looked_at() -> None:
    """It approves itself, as 088 says of all gates."""
    play = Play(GATE, dry_run=True)

    assert play.open_steps == ["a"]
    assert play.started == ["a"]

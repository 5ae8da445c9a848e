"""What stops a run that never ends."""

from __future__ import annotations

from typing import Any

from runkon_server.core.budgets import ATTEMPTS_MAX
from runkon_server.core.engine import ResumeMode, advance, compile_plan, open_tasks, restore
from runkon_server.core.facts import LimitReached, Outcome, Reported, Started
from runkon_server.core.records import RunRecord, RunRows, StepRecord
from support.plays import Play
from support.workflows import accepted

ENDLESS = """
    do { max_iterations = 1000 on_max_iter = continue
        do { max_iterations = 1000 on_max_iter = continue
            call a
        } while a.m
    } while a.m
    always { call n }
"""


def test_run_that_starts_too_many_steps_is_stopped() -> None:
    """Loops inside loops multiply; the run fails and says why, and its always section runs.

    Restored from its rows it stands where it stood.
    """
    plan = compile_plan(accepted(ENDLESS))
    run = RunRecord(run_id="01RUN", workflow_name="w", status="pending", inputs={})
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, Any] = {}
    state = restore(plan, RunRows(run=run))
    decision = advance(state, Started())
    while state.phase == "body":
        columns |= decision.run
        for write in decision.steps:
            rows.setdefault(write.step_id, {}).update(write.columns)
        state = decision.state
        (task,) = open_tasks(state)
        decision = advance(state, Reported(task_id=task, outcome=Outcome.COMPLETED, markers=("m",)))
    known = {name: value for name, value in columns.items() if name in RunRecord.__slots__}
    restored = restore(
        plan,
        RunRows(
            run=RunRecord(run_id="01RUN", workflow_name="w", inputs={}, **known),
            steps=tuple(StepRecord(**row) for row in rows.values()),
        ),
    )

    assert len(rows) == ATTEMPTS_MAX + 1
    assert restored == state
    assert [row["step_name"] for row in rows.values()][-2:] == ["a", "n"]
    assert decision.run["error"] == (
        "BUDGET_EXCEEDED: 50000 attempts at steps, the most that a run may start"
    )


def test_attempts_that_share_a_row_are_counted() -> None:
    """Those of scripts and branches; a call's have rows of their own."""
    play = Play(
        'call a { retries = 1 } script s { run = "x" retries = 2 }'
        " parallel { call b { retries = 1 } }"
    )
    play.fail("a")
    play.complete("a")
    play.fail("s")
    play.fail("s")
    play.complete("s")
    play.fail("b")

    assert play.world.state.counts.total == 4
    assert play.world.state.counts.repeats == 3


def test_run_that_reached_another_limit_ends_at_once() -> None:
    """All that is in flight is given up, and the always section is skipped: it would need more."""
    play = Play("parallel { call a call b } always { call n }")
    play.happen(LimitReached(epoch=1, reason="too many events"))

    assert play.status == "failed"
    assert play.error == "too many events"
    assert play.world.run["body_outcome"] == "failed"
    assert play.world.run["body_error"] == "too many events"
    assert "cancel_reason" not in play.world.run
    assert play.rows("n") == []
    assert play.kinds[-1] == "run_finished"


def test_limit_during_a_wait_or_a_cancel() -> None:
    """A run that is being cancelled stays cancelled; otherwise it fails, whatever its body did."""
    waiting, cancelled = Play("gate human_review {}"), Play("call a")
    always = Play("call a always { call n }")
    always.complete("a")
    cancelled.cancel()
    for play in (waiting, cancelled, always):
        play.happen(LimitReached(epoch=1, reason="too much"))

    assert (waiting.status, waiting.error) == ("failed", "too much")
    assert waiting.world.run["blocked_on"] is None
    assert cancelled.status == "cancelled"
    assert (always.status, always.error) == ("failed", "too much")


def test_limit_of_a_run_that_is_over_means_nothing() -> None:
    """Or of one that has not begun."""
    over, pending = Play("call a"), Play("call a", start=False)
    over.complete("a")

    for play in (over, pending):
        state = play.world.state
        assert advance(state, LimitReached(epoch=1, reason="too much")).state is state


def test_limit_of_another_epoch_means_nothing() -> None:
    """An earlier one was reached by what a resume has put aside."""
    play = Play("call a")
    play.fail("a")
    play.world.resume(ResumeMode.NORMAL)
    state = play.world.state

    for epoch in (1, 3):
        assert advance(state, LimitReached(epoch=epoch, reason="too much")).state is state

"""What stops a run that never ends."""

from __future__ import annotations

from typing import Any

from runkon_server.core.budgets import ATTEMPTS_MAX
from runkon_server.core.engine import advance, compile_plan, open_tasks, restore
from runkon_server.core.facts import Outcome, Reported, Started
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

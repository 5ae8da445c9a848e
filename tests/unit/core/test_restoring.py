"""Restoring: what is believed, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from runkon_server.core.engine import advance, compile_plan, restore
from runkon_server.core.facts import Started
from runkon_server.core.records import RunRecord, RunRows
from runkon_server.core.scratch import InconsistentRowsError
from support.plays import Play
from support.workflows import accepted


def test_recorded_cancel_is_not_an_applied_one() -> None:
    """The row's status may be ahead; the run is still pending, or still running."""
    fresh = Play("call a", start=False)
    fresh.world.run["status"] = "cancelling"
    begun = Play("call a")
    begun.world.run["status"] = "cancelling"

    assert restore(fresh.world.plan, fresh.world.rows()).status == "pending"
    assert restore(begun.world.plan, begun.world.rows()) == begun.world.state


def test_terminal_run_restores_to_its_end() -> None:
    """Whatever its rows are."""
    play = Play("call a")
    play.complete("a")
    state = restore(play.world.plan, RunRows(run=play.world.rows().run))

    assert state.is_terminal
    assert state.status == "completed"
    assert advance(state, Started()).state is state


def test_superseded_rows_count_for_positions_only() -> None:
    """A later row must not reuse a number."""
    play = Play("call a call b")
    play.complete("a")
    rows = play.world.rows()
    old = dataclasses.replace(
        rows.steps[1], id="old", at="b.0009", position=7, superseded_epoch=1, status="failed"
    )
    state = restore(play.world.plan, dataclasses.replace(rows, steps=(*rows.steps, old)))

    assert state.position == 8
    assert state.counts == play.world.state.counts


@pytest.mark.parametrize("lost", [1, 2])
def test_missing_row_is_refused(lost: int) -> None:
    """The last attempt, or the on_fail agent: better no decision than a step that runs twice."""
    play = Play("call a { retries = 1 on_fail = fix } call b", fail_fast=False)
    play.fail("a")
    play.fail("a")
    rows = play.world.rows()
    names = list(play.world.steps)
    steps = tuple(step for step in rows.steps if step.id != names[lost])

    with pytest.raises(InconsistentRowsError):
        restore(play.world.plan, dataclasses.replace(rows, steps=steps))


def test_row_that_no_step_accounts_for_is_refused() -> None:
    """Its place does not exist in the program, or is not reached."""
    play = Play("call a call b")
    rows = play.world.rows()
    stray = dataclasses.replace(rows.steps[0], id="x", at="b.0001")

    with pytest.raises(InconsistentRowsError, match=r"b\.0001"):
        restore(play.world.plan, dataclasses.replace(rows, steps=(*rows.steps, stray)))


def test_section_without_an_open_step_is_refused() -> None:
    """All steps of the body have ended, but the run still stands in it."""
    play = Play("call a")
    rows = play.world.rows()
    done = dataclasses.replace(rows.steps[0], status="completed")

    with pytest.raises(InconsistentRowsError, match="no open step"):
        restore(play.world.plan, dataclasses.replace(rows, steps=(done,)))


def test_settings_come_from_the_run() -> None:
    """Inputs are conditions and variables; dry run and fail-fast are the run's."""
    plan = compile_plan(accepted("inputs { flag boolean } if flag { call a }"))
    run = RunRecord(
        run_id="R", workflow_name="w", status="pending", inputs={"flag": "true"}, dry_run=True
    )
    decision = advance(restore(plan, RunRows(run=run)), Started())

    assert [type(order).__name__ for order in decision.orders] == ["Dispatch"]
    assert decision.events[0].payload == {
        "workflow_name": "w", "display_name": "w", "dry_run": True,
    }  # fmt: skip

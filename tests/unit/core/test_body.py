"""The body, failures, the always section, the order of events."""

from __future__ import annotations

from support.plays import Play


def test_045_empty_workflow_completes_without_steps() -> None:
    """No node at all: the start is the end."""
    play = Play("")

    assert play.status == "completed"
    assert play.world.steps == {}


def test_046_started_run_is_running() -> None:
    """From the first fact on."""
    play = Play("call a")

    assert play.status == "running"


def test_047_three_calls_make_three_rows_in_order() -> None:
    """Positions count from 0; the run completes after the third."""
    play = Play("call a call b call c")
    play.complete("a", "b", "c")

    assert [row["position"] for row in play.world.steps.values()] == [0, 1, 2]
    assert [row["status"] for row in play.world.steps.values()] == ["completed"] * 3
    assert play.status == "completed"
    assert play.world.run["result_summary"] == "3 of 3 steps completed"


def test_048_049_a_failing_call_ends_the_body() -> None:
    """With fail-fast the next node has no row, and the run's error says what failed and why."""
    play = Play("call a call b")
    play.fail("a", "no disk")

    assert play.statuses("a") == ["failed"]
    assert play.rows("b") == []
    assert play.status == "failed"
    assert play.error == "step `a` failed: no disk"
    assert play.row("a")["fatal"] is True


def test_050_without_fail_fast_later_nodes_run() -> None:
    """The run still fails, and its error is that of the first failure."""
    play = Play("call a call b call c", fail_fast=False)
    play.fail("a", "first")
    play.complete("b")
    play.fail("c", "second")

    assert play.status == "failed"
    assert play.error == "step `a` failed: first"
    assert play.world.run["result_summary"] == "1 of 3 steps completed, 2 failed"


def test_051_always_sees_how_the_body_ended() -> None:
    """`workflow_status` after a success, and after a failure."""
    good = Play("call a always { call n }")
    good.complete("a")
    bad = Play("call a always { call n }")
    bad.fail("a")

    assert good.task("n").inputs["workflow_status"] == "completed"
    assert bad.task("n").inputs["workflow_status"] == "failed"
    assert good.payload("always_started") == {"workflow_status": "completed"}


def test_051_body_sees_no_workflow_status() -> None:
    """It is not known yet."""
    play = Play("call a")

    assert "workflow_status" not in play.task("a").inputs


def test_052_failing_always_step_changes_no_outcome() -> None:
    """It ends its section under fail-fast, but the run is what the body was."""
    play = Play("call a always { call n call o }")
    play.complete("a")
    play.fail("n")

    assert play.status == "completed"
    assert play.error is None
    assert play.rows("o") == []
    assert "fatal" not in play.row("n")


def test_053_error_and_body_error_are_kept() -> None:
    """The body's error is written when the body ends, the run's when the run ends."""
    play = Play("call a always { call n }")
    play.fail("a", "no disk")

    assert play.world.run["body_error"] == "step `a` failed: no disk"
    assert play.world.run["body_outcome"] == "failed"
    play.complete("n")
    assert play.error == "step `a` failed: no disk"


def test_054_if_in_always_runs_after_a_failed_body() -> None:
    """The section starts with a clean slate."""
    play = Play("call a call b always { if a.m { call x } }")
    play.complete("a", markers=("m",))
    play.fail("b")

    assert play.open_steps == ["x"]


def test_always_block_inside_the_body_is_a_plain_sequence() -> None:
    """It has no "finally" meaning: fail-fast stops before it."""
    play = Play("call a always { call n } call b")
    good = Play("call a do { always { call b } } call c")
    good.complete("a")
    play.fail("a")

    assert good.open_steps == ["b"]
    assert play.rows("b") == []


def test_147_events_of_one_call() -> None:
    """Their order, from the first to the last."""
    play = Play("call a")
    play.complete("a")

    assert play.kinds == [
        "run_started", "step_started", "step_completed", "metrics_updated", "run_finished",
    ]  # fmt: skip


def test_long_texts_are_cut_in_events_and_whole_in_rows() -> None:
    """At 16 KiB, between two characters; the event says so."""
    play = Play("call a")
    text = "ä" * 10_000
    play.complete("a", result_text=text, context="short")

    payload = play.payload("step_completed")
    assert payload["truncated"] is True
    assert payload["step"]["result_text"] == "ä" * (8 * 1024)
    assert payload["step"]["context_out"] == "short"
    assert play.row("a")["result_text"] == text


def test_long_errors_are_cut_in_the_last_event() -> None:
    """The run's row has them whole."""
    play = Play("call a")
    play.fail("a", "x" * 20_000)

    finished = play.payload("run_finished")
    assert finished["truncated"] is True
    assert len(finished["error"]) == 16 * 1024
    assert len(play.error or "") > 20_000


def test_metrics_are_summed_and_announced_before_the_end() -> None:
    """Decimal numbers count; whatever else stands in the metadata does not."""
    play = Play("call a call b")
    play.complete("a", metadata={"cost_usd": "0.25", "num_turns": "3", "duration_ms": "12.7"})
    play.complete("b", metadata={"cost_usd": "1e-1", "num_turns": "many", "note": "5"})

    sums = {"cost_usd": 0.35, "num_turns": 3, "duration_ms": 12}
    assert play.world.run["metrics"] == sums
    assert play.payload("metrics_updated") == {"metrics": sums}
    assert play.row("b")["metrics"] == {"cost_usd": 0.1}


def test_1_500_steps_in_one_decision_do_not_overflow_the_stack() -> None:
    """Gates of a dry run end at once, so one decision walks over all of them."""
    gates = "\n".join(f'gate human_review {{ name = "g{n}" }}' for n in range(1_500))
    play = Play(gates, dry_run=True)

    assert play.status == "completed"
    assert len(play.world.steps) == 1_500

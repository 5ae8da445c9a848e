"""Calls: retries, pauses, on_fail, deadlines, what a worker is given."""

from __future__ import annotations

import pytest

from runkon_server.core.outputs_schema import schema_of
from support.plays import Play


def test_056_retries_make_new_rows() -> None:
    """Two failures, then success: three rows at one position, counted from 0, two announcements."""
    play = Play("call a { retries = 2 }")
    play.fail("a")
    play.fail("a")
    play.complete("a")

    rows = play.rows("a")
    assert [row["status"] for row in rows] == ["failed", "failed", "completed"]
    assert [row["retry_count"] for row in rows] == [0, 1, 2]
    assert {row["position"] for row in rows} == {0}
    assert [
        event.payload["attempt"] for event in play.world.events if event.kind == "step_retrying"
    ] == [1, 2]
    assert play.status == "completed"


def test_057_a_retry_is_told_of_the_failure_before() -> None:
    """Error of the previous attempt, attempts that remain, one idempotency key."""
    play = Play("call a { retries = 2 }")
    first = play.task("a")
    play.fail("a", "no disk")
    second = play.task("a")

    assert (first.retry_error, first.retries_remaining, first.attempt) == (None, 2, 0)
    assert (second.retry_error, second.retries_remaining, second.attempt) == ("no disk", 1, 1)
    assert first.idempotency_key == second.idempotency_key
    assert first.task_id != second.task_id


def test_retries_end_with_the_last_attempt() -> None:
    """The run's error counts the attempts."""
    play = Play("call a { retries = 1 }")
    play.fail("a")
    play.fail("a", "again")

    assert play.status == "failed"
    assert play.error == "step `a` failed after 2 attempts: again"


def test_permanent_failure_is_not_retried() -> None:
    """The worker knows better."""
    play = Play("call a { retries = 2 }")
    play.fail("a", retryable=False)

    assert play.started == ["a"]
    assert play.status == "failed"


@pytest.mark.parametrize(
    ("jitter", "delays"), [(0.5, [5.0, 10.0, 20.0]), (0.0, [4.5, 9.0, 18.0]), (1.0, [5.5, 11, 22])]
)
def test_pauses_double_and_spread(jitter: float, delays: list[float]) -> None:
    """The jitter comes with the fact and moves each pause by up to a tenth."""
    play = Play('call a { retries = 3 retry_delay = "5s" }')
    seen = []
    for _ in range(3):
        play.fail("a", jitter=jitter)
        assert play.open_steps == []
        seen.append(play.timer("retry").delay_s)
        assert play.payload("step_retrying")["delay_s"] == seen[-1]
        play.pass_time("retry")

    assert seen == pytest.approx(delays)
    assert play.open_steps == ["a"]


def test_pauses_are_at_most_five_minutes() -> None:
    """However often it has failed."""
    play = Play('call a { retries = 3 retry_delay = "4m" }')
    play.fail("a")
    play.pass_time("retry")
    play.fail("a", jitter=1.0)

    assert play.timer("retry").delay_s == 300


def test_058_on_fail_continue() -> None:
    """Later nodes run, the run completes, and an older marker of the step is gone."""
    play = Play("call a call a { on_fail = continue } if a.m { call x } call b")
    play.complete("a", markers=("m",))
    play.fail("a")
    play.complete("b")

    assert play.statuses("a") == ["completed", "failed"]
    assert play.rows("x") == []
    assert play.status == "completed"


def test_059_on_fail_agent_is_told_and_the_step_still_fails() -> None:
    """It sees three variables that nobody else sees, and its success changes nothing."""
    play = Play('call "ops/a.md" { retries = 1 on_fail = fix } call b', fail_fast=False)
    play.fail("ops/a.md")
    play.fail("ops/a.md", "no disk")
    inputs = play.task("fix").inputs
    play.complete("fix", context="tidied up")

    assert (inputs["failed_step"], inputs["failure_reason"], inputs["retry_count"]) == (
        "ops/a.md", "no disk", "1",
    )  # fmt: skip
    assert play.task("b").inputs.keys().isdisjoint({"failed_step", "failure_reason", "retry_count"})
    assert play.task("b").inputs["prior_context"] == "tidied up"
    play.complete("b")
    assert play.status == "failed"


def test_059_failing_on_fail_agent_is_only_recorded() -> None:
    """The run's error stays that of the step."""
    play = Play("call a { on_fail = fix }")
    play.fail("a", "no disk")
    play.fail("fix", "me too")

    assert play.statuses("fix") == ["failed"]
    assert play.error == "step `a` failed: no disk"
    assert [row["at"] for row in play.world.steps.values()] == ["b.0000", "b.0000.f"]


def test_060_061_do_block_settings_reach_calls() -> None:
    """The inner output wins; snippets go from the outermost block to the call's own."""
    play = Play(
        'do { output = x with = ["1"]'
        ' do { with = ["2"] call a { output = y with = ["3"] } call b } }',
        schemas={"x": schema_of("x", {"fields": {}}), "y": schema_of("y", {"fields": {}})},
    )
    a = play.task("a")
    play.complete("a", structured_output="{}")
    b = play.task("b")

    assert (a.output_schema, a.snippets) == ("y", ("1", "2", "3"))
    assert (b.output_schema, b.snippets) == ("x", ("1", "2"))


def test_do_block_settings_reach_on_fail_agents_without_the_calls_own() -> None:
    """It is a call of its own in the same block."""
    schemas = {name: schema_of(name, {"fields": {}}) for name in ("x", "y")}
    play = Play(
        'do { output = x with = ["1"] call a { output = y with = ["2"] on_fail = fix } }',
        schemas=schemas,
    )
    play.fail("a")

    assert (play.task("fix").output_schema, play.task("fix").snippets) == ("x", ("1",))


def test_063_064_a_deadline_interrupts_the_attempt() -> None:
    """The row is timed out, the worker is told, the next attempt follows; the run ends failed."""
    play = Play('call a { timeout = "10s" retries = 1 }')
    first = play.task("a").task_id
    assert play.timer("deadline").delay_s == 10
    play.pass_time("deadline")

    assert play.statuses("a") == ["timed_out", "running"]
    assert play.world.asked == {first: "timeout"}
    assert play.task("a").retry_error == "timed out after 10 s"
    play.pass_time("deadline")
    assert play.status == "failed"
    assert play.error == "step `a` failed after 2 attempts: timed out after 10 s"


def test_064_on_fail_applies_to_a_deadline() -> None:
    """As to any failure."""
    play = Play('call a { timeout = "10s" on_fail = continue } call b')
    play.pass_time("deadline")
    play.complete("b")

    assert play.status == "completed"
    assert play.world.run["result_summary"] == "1 of 2 steps completed, 1 timed out"


def test_deadline_after_a_cancel_tells_the_worker_nothing_new() -> None:
    """It has been asked to stop; now nobody waits for it any more."""
    play = Play('call a { timeout = "10s" retries = 1 }')
    task = play.task("a").task_id
    play.cancel()
    play.pass_time("deadline")

    assert play.world.asked == {task: "run_cancelled"}
    assert play.statuses("a") == ["timed_out"]
    assert play.status == "cancelled"


def test_a_failed_attempt_keeps_what_the_worker_said() -> None:
    """Result text and code stand beside the error."""
    play = Play("call a")
    play.fail("a", "no disk", error_code="DISK", result_text="half of it")
    row = play.row("a")

    assert (row["step_error"], row["error_code"], row["result_text"]) == (
        "no disk", "DISK", "half of it",
    )  # fmt: skip


def test_failure_without_words_has_an_error() -> None:
    """Null errors explain nothing."""
    play = Play("call a")
    play.fail("a", "")

    assert play.error == "step `a` failed: failed without a message"


def test_a_report_clears_the_deadline() -> None:
    """Nothing goes off later."""
    play = Play('call a { timeout = "10s" } call b')
    play.complete("a")

    assert play.world.timers == {}


def test_067_path_named_agents_answer_to_their_stem() -> None:
    """The row shows the path, the condition uses the stem, the worker gets the path."""
    play = Play('call ".claude/agents/plan.md" if plan.m { call x }')
    task = play.task(".claude/agents/plan.md")
    play.complete(".claude/agents/plan.md", markers=("m",))

    assert task.action == ".claude/agents/plan.md"
    assert play.row(".claude/agents/plan.md")["step_key"] == "plan"
    assert play.open_steps == ["x"]


def test_069_unasked_cancelled_report_is_a_permanent_failure() -> None:
    """One worker cannot end a run for good: no retry, and the run is failed, not cancelled."""
    play = Play("call a { retries = 2 }")
    play.stopped("a")

    assert play.row("a")["error_code"] == "CANCELLED"
    assert play.started == ["a"]
    assert play.status == "failed"


def test_options_of_a_call_reach_the_worker() -> None:
    """Identity, turns, plugin directories without repetition, deadline, dry run."""
    play = Play(
        'call a { as = bot max_turns = 7 plugin_dirs = ["p", "q", "p"] timeout = "1m" }',
        dry_run=True,
    )
    task = play.task("a")

    assert (task.identity, task.max_turns, task.timeout_s) == ("bot", 7, 60)
    assert task.plugin_dirs == ("p", "q")
    assert task.dry_run
    assert task.inputs["dry_run"] == "true"


def test_062_call_whose_schema_is_not_stored_has_no_row() -> None:
    """The run fails before anything starts, and says which schema it is."""
    play = Play("call a { output = x retries = 2 on_fail = continue } call b")
    block = Play("parallel { call a call b { output = y } }")

    assert play.world.steps == block.world.steps == {}
    assert play.error == ("step `a`: its output schema `x` is not stored with the workflow")
    assert "`y`" in (block.error or "")


def test_145_output_that_breaks_the_schema_is_tried_again() -> None:
    """In a call, a branch and an on_fail agent alike; the next attempt is told why."""
    schemas = {"x": schema_of("x", {"fields": {"n": "number"}})}
    call = Play("call a { output = x retries = 1 }", schemas=schemas)
    call.complete("a", structured_output='{"n":"1"}')
    branch = Play("parallel { call a { output = x retries = 1 } }", schemas=schemas)
    branch.complete("a", raw_output="nothing")

    assert "`n`: a number is wanted" in (call.task("a").retry_error or "")
    assert call.statuses("a") == ["failed", "running"]
    assert call.rows("a")[0]["error_code"] == "OUTPUT_INVALID"
    assert "there is no output" in (branch.task("a").retry_error or "")

    call.complete("a", structured_output='{"n": 1}')
    assert call.status == "completed"
    assert call.rows("a")[1]["structured_output"] == '{"n":1}'


def test_output_of_an_agent_is_interpreted_by_the_server() -> None:
    """Its text becomes markers and context; the text itself is kept."""
    play = Play("call a call b")
    raw = 'Well: <<<FLOW_OUTPUT>>> {"markers": ["m"], "context": "c"} <<<END_FLOW_OUTPUT>>>'
    play.complete("a", raw_output=raw)

    assert play.row("a")["markers_out"] == ("m",)
    assert play.row("a")["result_text"] == raw
    assert play.task("b").inputs["prior_context"] == "c"


def test_output_of_an_on_fail_agent_is_interpreted_too() -> None:
    """It inherits the schema of the block around the call."""
    schemas = {"x": schema_of("x", {"fields": {"n": "number"}})}
    play = Play("do { output = x call a { on_fail = fix } }", schemas=schemas)
    play.fail("a")
    play.complete("fix", raw_output="nothing")

    assert play.row("fix")["error_code"] == "OUTPUT_INVALID"
    assert play.status == "failed"

"""`call workflow`: child runs as steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runkon_server.core.bubbling import ChildResults
from runkon_server.core.decision import ResumeChild, StartChild
from runkon_server.core.engine import blocked_on, waits_only_for_gates
from runkon_server.core.resuming import ResumeMode
from support.plays import Play

CALL = "call workflow c"
GATE = {"type": "human_review", "gate_id": "x/g", "gate_name": "g", "run_id": "x", "prompt": "ok?"}


def started(play: Play) -> StartChild:
    """The newest child that was started."""
    child = play.world.started_children[-1]
    assert isinstance(child, StartChild)
    return child


def test_child_is_started_with_what_the_step_gives_it() -> None:
    """Placeholders are filled in, those without a value stay; no defaults of the child yet."""
    play = Play(
        'call a call workflow c { inputs { x = "{{who}}-{{base}}" y = "{{nobody}}" z = "z" } '
        'as = "bot" }',
        {"who": "ann"},
        depth=2,
        root_run_id="01ROOT",
    )
    play.complete("a", structured_output='{"base":"main"}')
    child = started(play)

    assert child.inputs == {"x": "ann-main", "y": "{{nobody}}", "z": "z"}
    assert (child.workflow_name, child.step_name) == ("c", "workflow:c")
    assert (child.depth, child.root_run_id, child.identity) == (3, "01ROOT", "bot")
    row = play.row("workflow:c")
    assert (row["role"], row["child_run_id"], row["child_epoch"]) == (
        "workflow", child.child_run_id, 1,
    )  # fmt: skip
    assert play.payload("child_run_started") == {
        "step_id": child.step_id, "child_run_id": child.child_run_id, "workflow_name": "c",
    }  # fmt: skip


def test_root_run_is_the_root_of_its_children() -> None:
    """At depth one."""
    play = Play(CALL)

    assert (started(play).depth, started(play).root_run_id) == (1, play.world.run["run_id"])


def test_126_results_of_a_child_are_merged_into_its_parent() -> None:
    """Conditions see the child's steps; its entries come before the step's own, which is newest."""
    play = Play(
        f"call a {{ on_fail = continue }} {CALL} if inner.m {{ call b }} if c.done {{ call d }}"
        " if a.m { call e }"
    )
    play.complete("a", markers=("m",), context="first")
    results = ChildResults(
        context="last word",
        markers=("done",),
        contexts='{"step":"inner","context":"said"}',
        exports={"base": "main", "dry_run": "true"},
        prior_output="[1]",
        markers_by_step={"inner": ("m",), "a": ()},
    )
    play.end_child(results=results)
    task = play.task("b")

    entries = json.loads(task.prior_contexts or "")
    assert [entry["step"] for entry in entries] == ["a", "inner", "c"]
    assert task.inputs["prior_context"] == "last word"
    assert (task.inputs["base"], task.inputs["dry_run"]) == ("main", "false")
    assert task.inputs["prior_output"] == "[1]"
    play.complete("b")
    assert play.open_steps == ["d"]
    play.complete("d")
    assert play.rows("e") == []
    assert play.row("workflow:c")["context_out"] == "last word"
    assert "structured_output" not in play.row("workflow:c")


def test_126_step_of_a_child_may_have_the_name_of_its_workflow() -> None:
    """Its result is the newer one: the child's results are taken over last."""
    play = Play(f"{CALL} if c.inner {{ call a }} if c.done {{ call b }}")
    play.end_child(results=ChildResults(markers=("done",), markers_by_step={"c": ("inner",)}))
    play.complete("a")

    assert play.rows("b") == []
    assert play.status == "completed"


def test_126_outputs_of_a_child_serve_gates() -> None:
    """Options and confidence may come from a step of the child; one without output counts 0."""
    play = Play(
        f"{CALL} gate human_review {{ options = inner.options }} "
        'gate quality_gate { name = "q" source = other threshold = 1 on_fail = continue }'
    )
    results = ChildResults(
        markers_by_step={"inner": (), "other": ()},
        outputs_by_step={"inner": '{"options":{"p":"P"}}'},
    )
    play.end_child(results=results)

    assert play.gate().options == (("p", "P"),)
    play.approve()
    assert "confidence 0" in str(play.row("q")["result_text"])


def test_128_child_without_results_gives_empty_output() -> None:
    """No error."""
    play = Play(CALL + " call a")
    play.end_child()

    assert play.row("workflow:c")["status"] == "completed"
    assert play.task("a").inputs["prior_context"] == ""


def test_129_refused_child_fails_its_step_and_not_for_a_retry() -> None:
    """Such as one that would be too deep, or whose workflow does not exist."""
    play = Play("call workflow c { retries = 3 } call a")
    play.end_child("failed", error="too deep", error_code="DEPTH_EXCEEDED", retryable=False)

    assert play.statuses("workflow:c") == ["failed"]
    assert play.row("workflow:c")["error_code"] == "DEPTH_EXCEEDED"
    assert play.error == "step `workflow:c` failed: too deep"


@pytest.mark.parametrize("delay", ["", 'retry_delay = "5s"'])
def test_130_retries_make_new_children(delay: str) -> None:
    """Each with a row of its own."""
    play = Play(f"call workflow c {{ retries = 1 {delay} }}")
    play.end_child("failed", error="flaky")
    if delay:
        assert play.world.children == {}
        play.pass_time("retry")
    play.end_child()

    first, second = play.rows("workflow:c")
    assert first["child_run_id"] != second["child_run_id"]
    assert (first["status"], first["child_end"]) == ("failed", "failed")
    assert (second["status"], second["retry_count"]) == ("completed", 1)
    assert play.status == "completed"


def test_failing_child_may_be_tolerated_or_looked_after() -> None:
    """`on_fail` as for calls; the agent is told the workflow's name."""
    tolerant = Play("call workflow c { on_fail = continue } call a")
    tolerant.end_child("failed", error="no")
    agent = Play("call workflow c { on_fail = fix }")
    agent.end_child("failed", error="no")

    assert tolerant.open_steps == ["a"]
    assert agent.task("fix").inputs["failed_step"] == "c"
    assert agent.task("fix").inputs["failure_reason"] == "no"


def test_cancelled_child_is_never_retried() -> None:
    """Somebody wanted it to stop; `on_fail` still applies."""
    play = Play("call workflow c { retries = 3 on_fail = continue } call a")
    play.end_child("cancelled", error="cancelled: by ann")

    assert play.statuses("workflow:c") == ["failed"]
    assert play.open_steps == ["a"]


def test_spent_budget_fails_the_whole_run() -> None:
    """Whatever the step tolerates: nothing else starts but the always section."""
    play = Play("call workflow c { retries = 3 on_fail = continue } call a always { call n }")
    play.end_child("failed", error="50000 descendants", error_code="BUDGET_EXCEEDED")

    assert play.open_steps == ["n"]
    play.complete("n")
    assert play.error == "BUDGET_EXCEEDED: 50000 descendants"


def test_132_cancelled_parent_cancels_its_child_and_does_not_retry_it() -> None:
    """The always section waits for the child's end."""
    play = Play("call workflow c { retries = 3 } always { call n }")
    child = started(play).child_run_id
    play.cancel()

    assert play.world.asked == {child: "run_cancelled"}
    assert play.open_steps == []
    play.end_child("cancelled")
    assert play.open_steps == ["n"]
    play.complete("n")
    assert play.status == "cancelled"
    assert len(play.world.started_children) == 1


def test_child_that_does_not_stop_is_given_up() -> None:
    """After the grace period it is told by force, and no end of it is recorded."""
    play = Play(CALL)
    play.cancel()
    play.pass_time("grace")

    assert play.status == "cancelled"
    assert play.row("workflow:c")["error_code"] == "CANCELLED"
    assert "child_end" not in play.row("workflow:c")
    assert sum(name == "CancelChild" for name, _ in play.world.orders) == 2


def test_cancel_ends_the_pause_between_children() -> None:
    """There is no child to cancel then."""
    play = Play('call workflow c { retries = 3 retry_delay = "5s" }')
    play.end_child("failed")
    play.cancel()

    assert play.status == "cancelled"


def test_gate_of_a_child_blocks_the_parent() -> None:
    """Its status, `blocked_on` and events are as for a gate of its own."""
    play = Play(CALL + " call a")
    play.block_child(GATE)

    assert play.status == "waiting"
    assert play.world.run["blocked_on"] == GATE
    assert play.payload("run_waiting") == {"blocked_on": GATE}
    assert blocked_on(play.world.state)[0]["blocked_on"] == GATE
    assert waits_only_for_gates(play.world.state)

    play.block_child(None)
    assert play.status == "running"
    assert play.world.run["blocked_on"] is None
    assert not waits_only_for_gates(play.world.state)

    play.block_child(GATE)
    play.end_child()
    assert play.open_steps == ["a"]
    assert play.status == "running"


def test_gate_of_a_child_that_failed_is_forgotten_in_the_pause_after_it() -> None:
    """The next child has not come to any."""
    play = Play('call workflow c { retries = 1 retry_delay = "5s" }')
    play.block_child(GATE)
    play.end_child("failed", error="no")

    assert play.status == "running"
    assert play.world.run["blocked_on"] is None
    play.pass_time("retry")
    assert play.status == "running"


def test_gate_of_a_child_does_not_hide_a_cancel() -> None:
    """The child cancels its gate itself."""
    play = Play(CALL)
    play.cancel()
    play.block_child(GATE)

    assert play.status == "cancelling"
    play.end_child("cancelled")
    assert play.status == "cancelled"


def test_metrics_of_a_child_count_when_it_completes() -> None:
    """A resumed child's sums include those of its earlier epochs, so failures are not counted."""
    play = Play("call workflow c { retries = 1 }")
    play.end_child("failed", metrics={"num_turns": 5})
    play.end_child(metrics={"num_turns": 7, "cost_usd": 0.5})

    assert play.world.run["metrics"] == {"num_turns": 7, "cost_usd": 0.5}
    assert play.rows("workflow:c")[1]["metrics"] == {"num_turns": 7, "cost_usd": 0.5}


def test_long_errors_of_a_child_are_cut_in_its_event() -> None:
    """At 4 KiB; the step's row has them whole."""
    play = Play(CALL)
    play.end_child("failed", error="x" * 10_000)

    assert len(play.payload("child_run_finished")["error"]) == 4 * 1024
    assert len(str(play.row("workflow:c")["step_error"])) == 10_000


def test_input_that_grows_too_large_fails_the_step() -> None:
    """Before any child exists."""
    inputs = {"x": "x" * 60_000}
    play = Play(f'call workflow c {{ inputs {{ y = "{"{{x}}" * 20}" }} }}', inputs)

    many = " ".join(f'y{number} = "{{{{x}}}}"' for number in range(20))
    together = Play(f"call workflow c {{ inputs {{ {many} }} }}", inputs)

    assert together.row("workflow:c")["error_code"] == "INPUT_LIMIT"
    assert play.row("workflow:c")["error_code"] == "INPUT_LIMIT"
    assert play.world.started_children == []
    assert play.status == "failed"


def test_child_that_was_never_started_is_not_resumed() -> None:
    """The next epoch begins another one, although this failure has no more luck."""
    play = Play(f'call workflow c {{ inputs {{ y = "{"{{x}}" * 20}" }} }}', {"x": "x" * 60_000})
    play.world.resume(ResumeMode.NORMAL)
    first, second = play.rows("workflow:c")

    assert (second["epoch"], second["child_epoch"]) == (2, 1)
    assert second["child_run_id"] != first["child_run_id"]
    assert play.world.started_children == []


def failed_once(**more: Any) -> Play:
    """A run that failed of its child, resumed."""
    play = Play(CALL + " call a")
    play.end_child(**{"status": "failed", "error": "no", **more})
    play.world.resume(ResumeMode.NORMAL)
    return play


def test_resumed_run_resumes_its_failed_child() -> None:
    """In the child's next epoch; what it does not repeat stays done."""
    play = failed_once()
    first, second = play.world.started_children

    assert isinstance(second, ResumeChild)
    assert (second.child_run_id, second.child_epoch) == (first.child_run_id, 2)
    play.end_child()
    assert play.open_steps == ["a"]
    new = play.rows("workflow:c")[1]
    assert (new["epoch"], new["child_epoch"], new["status"]) == (2, 2, "completed")


def test_resumed_run_starts_a_cancelled_child_anew() -> None:
    """Cancelled is final."""
    play = failed_once(status="cancelled")
    first, second = play.world.started_children

    assert isinstance(second, StartChild)
    assert second.child_run_id != first.child_run_id


def test_child_that_cannot_be_resumed_is_replaced() -> None:
    """Such as one that failed of a loop's limit: a new one does all of it, on the same row."""
    play = failed_once()
    play.end_child("failed", error="nothing to repeat", error_code="RESUME_REFUSED")
    child = started(play)
    play.end_child()

    row = play.rows("workflow:c")[1]
    assert (row["child_run_id"], row["child_epoch"]) == (child.child_run_id, 1)
    assert len({each.child_run_id for each in play.world.started_children}) == 2
    assert len(play.rows("workflow:c")) == 2
    assert row["status"] == "completed"


def test_child_that_cannot_be_resumed_is_not_replaced_in_a_cancelled_run() -> None:
    """The refusal is heard after the cancel: nothing new begins, and the run ends."""
    play = failed_once()
    known = len(play.world.started_children)
    play.cancel()
    play.end_child("failed", error="it has changed", error_code="RESUME_REFUSED")

    assert len(play.world.started_children) == known
    assert play.world.state.status == "cancelled"

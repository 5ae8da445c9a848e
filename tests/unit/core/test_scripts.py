"""Script steps: what a worker is given, attempts on one row, failures, outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.core.decision import ScriptWork
from runkon_server.core.environment import VARIABLE_BYTES_MAX
from runkon_server.core.scripts import DEADLINE_SLACK_S
from support.plays import Play

if TYPE_CHECKING:
    from runkon_server.core.decision import Dispatch


def work_of(task: Dispatch) -> ScriptWork:
    """What a worker is to execute."""
    assert isinstance(task.work, ScriptWork)
    return task.work


def work(play: Play, name: str = "s") -> ScriptWork:
    """What the open task of a script asks for."""
    return work_of(play.task(name))


def test_101_102_script_output_is_interpreted() -> None:
    """A block gives markers, context and structured output; plain text is the context."""
    play = Play('script s { run = "x" } script t { run = "y" } if s.m { call a }')
    play.complete("s", raw_output='<<<FLOW_OUTPUT>>>{"markers":["m"],"v":"1"}<<<END_FLOW_OUTPUT>>>')
    play.complete("t", raw_output="t" * 3_000)

    assert play.row("s")["markers_out"] == ("m",)
    assert play.row("s")["structured_output"] == '{"markers":["m"],"v":"1"}'
    assert play.row("t")["context_out"] == "t" * 2_000
    assert play.row("t")["result_text"] == "t" * 3_000
    assert play.task("a").inputs["v"] == "1"


def test_103_only_inputs_with_legal_names_become_variables() -> None:
    """Upper case behind the prefix; engine names are the engine's."""
    inputs = {"who": "ann", "a-b": "x", "item.id": "7", "Ä": "x", "dry_run": "me", "n0_": ""}
    play = Play('script s { run = "x" }', inputs)

    assert work(play).environment == {"RUNKON_WHO": "ann", "RUNKON_N0_": ""}


def test_104_env_is_substituted_and_protected_names_are_dropped() -> None:
    """Bad inputs 38: nothing that changes how programs are found or loaded; unresolved is empty."""
    names = ["PATH", "LD_PRELOAD", "DYLD_X", "PYTHONPATH", "BASH_ENV", "ENV", "IFS", "GIT_DIR"]
    names += ["GH_TOKEN", "RUBYLIB", "NODE_PATH", "_RUNKON_1", "a-b"]
    entries = " ".join(f'{name} = "x"' for name in names)
    env = 'A = "{{who}}, {{ inputs.who }}" B = "[{{nobody}}]" RUNKON_WHO = "own"'
    play = Play(f'script s {{ run = "x" env = {{ {entries} {env} }} }}', {"who": "a\n'b"})

    assert work(play).environment == {"RUNKON_WHO": "own", "A": "a\n'b, a\n'b", "B": "[]"}


def test_105_values_travel_in_the_environment_only() -> None:
    """The text holds references; nothing of a value is in it."""
    play = Play("script s { run = \"echo {{x}} '{{x}}' {{prior_context}}\" }", {"x": "'; rm -rf /"})

    assert work(play).text == ('echo "${_RUNKON_1}" \'\'"${_RUNKON_1}"\'\' "${_RUNKON_2}"')
    assert work(play).environment["_RUNKON_1"] == "'; rm -rf /"
    assert work(play).environment["_RUNKON_2"] == ""


def test_variables_are_those_of_the_moment() -> None:
    """What earlier steps said and exported, the contexts, and in the always section the outcome."""
    play = Play(
        'call a script s { run = "echo {{base}} {{prior_contexts}}" } '
        'always { script t { run = "echo {{workflow_status}}" } }'
    )
    play.complete("a", context="c", structured_output='{"base":"main"}')
    environment = work(play).environment
    play.complete("s")

    assert environment["_RUNKON_1"] == "main"
    assert environment["_RUNKON_2"].startswith('[{"step":"a"')
    assert work(play, "t").environment == {
        "RUNKON_WORKFLOW_STATUS": "completed", "_RUNKON_1": "completed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ("rm -rf {{dir}}/x {{other}}", "no value for {{dir}}, {{other}}"),
        ("echo `{{x}}`", "{{x}} must not stand inside `...`"),
        ("echo {{long}}", "the value of {{long}} is too long"),
    ],
)
def test_140_script_that_cannot_be_handed_out_fails_at_once(run: str, problem: str) -> None:
    """Without a retry, since the next attempt would fail as well; no task is made."""
    long = "x" * VARIABLE_BYTES_MAX
    play = Play(f'script s {{ run = "{run}" retries = 2 }}', {"x": "1", "long": long})

    assert play.status == "failed"
    assert problem in (play.error or "")
    assert play.row("s")["error_code"] == "SCRIPT_INVALID"
    assert play.started == []


def test_variables_are_bounded_together() -> None:
    """Ten that fit alone are too much for one program."""
    inputs = {f"x{number}": "ä" * 60_000 for number in range(10)}
    play = Play('script s { run = "x" on_fail = continue }', inputs)

    assert "weigh more than" in str(play.row("s")["step_error"])
    assert play.status == "completed"


def test_input_that_is_too_large_for_a_variable_is_left_out() -> None:
    """The script need not look at it."""
    play = Play('script s { run = "x" }', {"big": "x" * VARIABLE_BYTES_MAX, "small": "y"})

    assert work(play).environment == {"RUNKON_SMALL": "y"}


def test_108_failure_of_a_script_is_its_error() -> None:
    """The worker's words are in the row and in the run's error."""
    play = Play('script s { run = "x" }')
    play.fail("s", "exit code 3: no disk")

    assert play.row("s")["step_error"] == "exit code 3: no disk"
    assert play.error == "step `s` failed: exit code 3: no disk"


def test_109_worker_is_told_the_timeout_and_the_run_does_not_wait_for_ever() -> None:
    """The worker kills in time; one that does not is given up some seconds later, as failed."""
    play = Play('script s { run = "x" timeout = 30 }')
    told, timer = work(play).timeout_s, play.timer("deadline")
    play.pass_time("deadline")

    assert (told, timer.delay_s) == (30, 30 + DEADLINE_SLACK_S)
    assert play.statuses("s") == ["failed"]
    assert play.row("s")["error_code"] == "SCRIPT_TIMEOUT"
    assert "timed out after 30 s" in (play.error or "")


@pytest.mark.parametrize("delay", ["", 'retry_delay = "5s"'])
def test_111_retries_share_one_row(delay: str) -> None:
    """The second attempt runs and completes; meanwhile the row shows the error of the first."""
    play = Play(f'script s {{ run = "x" retries = 1 timeout = 5 {delay} }}')
    play.fail("s", "flaky")
    if delay:
        assert (play.row("s")["status"], play.row("s")["step_error"]) == ("running", "flaky")
        play.pass_time("retry")
    task = play.task("s")
    play.complete("s")

    assert (task.attempt, task.retries_remaining, task.retry_error) == (1, 0, "flaky")
    assert len(play.rows("s")) == 1
    assert (play.row("s")["status"], play.row("s")["retry_count"]) == ("completed", 1)
    assert play.kinds.count("step_started") == 2
    assert play.status == "completed"


def test_111_exhausted_retries_fail_the_step() -> None:
    """All on one row; the error says how many attempts there were."""
    play = Play('script s { run = "x" retries = 1 }')
    play.fail("s", "first")
    play.fail("s", "second")

    assert play.statuses("s") == ["failed"]
    assert play.error == "step `s` failed after 2 attempts: second"


def test_script_may_have_an_on_fail_agent() -> None:
    """As a call may; the step has failed all the same."""
    play = Play('script s { run = "x" on_fail = fix }')
    play.fail("s", "broken")
    task = play.task("fix")
    play.complete("fix")

    assert (task.inputs["failed_step"], task.inputs["failure_reason"]) == ("s", "broken")
    assert play.status == "failed"


def test_script_of_a_dry_run_completes_without_being_executed() -> None:
    """Its result is empty, and later steps run."""
    play = Play('script s { run = "rm {{x}}" retries = 1 } call a', dry_run=True)

    assert play.statuses("s") == ["completed"]
    assert play.started == ["a"]


def test_worker_is_given_a_script_by_its_kind() -> None:
    """With the step's identity and key, and without the variables that it has no use for."""
    play = Play('script s { run = "x" as = "bot" }', {"x": "1"})
    task = play.task("s")

    assert (task.kind, task.action, task.identity) == ("script", "s", "bot")
    assert task.inputs == {}
    assert play.row("s")["role"] == "script"


def test_cancel_ends_the_pause_of_a_script() -> None:
    """No further attempt; the row says why it failed."""
    play = Play('script s { run = "x" retries = 3 retry_delay = "5s" } always { call n }')
    play.fail("s", "flaky")
    play.cancel()

    assert play.statuses("s") == ["failed"]
    assert play.open_steps == ["n"]
    assert [timer.kind for timer in play.world.timers.values()] == ["grace"]


def test_cancelled_script_that_does_not_stop_is_given_up() -> None:
    """After the grace period, with its deadline."""
    play = Play('script s { run = "x" timeout = 9 }')
    play.cancel()
    play.pass_time("grace")

    assert play.status == "cancelled"
    assert play.row("s")["error_code"] == "CANCELLED"

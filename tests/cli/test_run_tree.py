"""What `--watch` draws, told as lines: a run's events folded into its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_client.cli.lines import Mark
from runkon_client.cli.outline import read_outline
from runkon_client.cli.run_tree import RunTree
from runkon_client.values import (
    GateState,
    RunStatus,
    StepCompleted,
    StepFailed,
    StepProgress,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StepStatus,
)
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import dump
from support.run_events import SECOND, Story, gate, step, step_gate

if TYPE_CHECKING:
    from runkon_client.cli.lines import Line


@pytest.fixture
def story() -> Story:
    return Story()


def tree(body: str) -> RunTree:
    """The tree of a run of that workflow, before its first event."""
    definition = parse(f"workflow w {{ {body} }}", "w.wf").definition
    assert definition is not None
    return RunTree(outline=read_outline(dump(definition)))


def shown(of: RunTree) -> list[str]:
    """The lines as text: indentation, mark, label."""
    return [f"{'  ' * line.depth}{line.mark} {line.label}" for line in of.lines()]


def line(of: RunTree, label: str) -> Line:
    """The one line with that label."""
    (found,) = (each for each in of.lines() if each.label == label)
    return found


def test_before_it_starts_everything_lies_ahead() -> None:
    """A run without events is drawn as its definition, `always` included."""
    assert shown(tree("call a if a.x { call b } always { call c }")) == [
        "ahead a",
        "ahead if a.x",
        "  ahead b",
        "ahead always",
        "  ahead c",
    ]


def test_a_step_is_drawn_as_its_newest_row(story: Story) -> None:
    """Started, then completed: one line with times, markers and what was told."""
    of = tree("call a call b")
    of.apply(story.started())
    of.apply(story.step(StepStarted, step("body.0", "a")))
    running = line(of, "a")
    done = step("body.0", "a", StepStatus.COMPLETED, markers=("x",), context="did it")
    of.apply(story.step(StepCompleted, done))
    completed = line(of, "a")

    assert running.mark is Mark.RUNNING
    assert running.ended_at is None
    assert completed.mark is Mark.COMPLETED
    assert completed.ended_at == done.ended_at
    assert completed.notes == ("[x]",)
    assert completed.text == "did it"
    assert shown(of)[1] == "ahead b"


def test_a_failed_attempt_stays_below_the_one_that_succeeds(story: Story) -> None:
    """Two rows of one call; between them the line says that it will be tried again."""
    of = tree("call a { retries = 1 }")
    first = step("body.0", "a", StepStatus.FAILED, step_error="no luck")
    of.apply(story.step(StepFailed, first))
    of.apply(story.step(StepRetrying, first, attempt=1, delay=SECOND))
    between = line(of, "a").mark
    of.apply(story.step(StepStarted, step("body.0", "a", retry_count=1)))

    assert between is Mark.RETRYING
    assert shown(of) == ["running a", "  failed attempt 1"]
    assert line(of, "a").notes == ("attempt 2",)
    assert line(of, "attempt 1").text == "no luck"


def test_an_on_fail_agent_stands_below_its_step(story: Story) -> None:
    """Its path is that of the call with a child number."""
    of = tree("call a { on_fail = triage }")
    of.apply(story.step(StepFailed, step("body.0", "a", StepStatus.FAILED)))
    of.apply(story.step(StepStarted, step("body.0.0", "triage", position=1)))

    assert shown(of) == ["failed a", "  running triage"]


def test_each_pass_of_a_loop_has_its_own_lines(story: Story) -> None:
    """Nested loops: a step's passes place it."""
    of = tree(
        "call a do { max_iterations = 3 call b"
        " do { max_iterations = 3 call c } while c.y } while b.x"
    )
    for passes, path, name in [
        ((), "body.0", "a"),
        ((0,), "body.1.0", "b"),
        ((0, 0), "body.1.1.0", "c"),
        ((0, 1), "body.1.1.0", "c"),
        ((1,), "body.1.0", "b"),
    ]:
        row = step(path, name, StepStatus.COMPLETED, iterations=passes)
        of.apply(story.step(StepCompleted, row))

    assert shown(of) == [
        "completed a",
        "group do … while b.x",
        "  group pass 1",
        "    completed b",
        "    group do … while c.y",
        "      group pass 1",
        "        completed c",
        "      group pass 2",
        "        completed c",
        "  group pass 2",
        "    completed b",
        "    ahead do … while c.y",
        "      ahead c",
    ]


def test_calls_of_a_parallel_block_stand_together(story: Story) -> None:
    """A call whose condition did not hold says so."""
    of = tree("call p parallel { name = reviews call a call b { if = p.x } }")
    of.apply(story.step(StepStarted, step("body.1.0", "a")))
    skipped = step("body.1.1", "b", StepStatus.SKIPPED, condition_expr="p.x", condition_met=False)
    of.apply(story.step(StepSkipped, skipped))

    assert shown(of)[-3:] == ["group parallel reviews", "  running a", "  skipped b"]
    assert line(of, "b").notes == ("p.x does not hold",)


def test_what_a_run_went_past_is_not_taken(story: Story) -> None:
    """A branch is one line without its steps, also when a branch inside it was not taken."""
    of = tree(
        "call a if a.x { call b if b.y { call c } } while a.z { max_iterations = 2 call d } call e"
    )
    of.apply(story.step(StepCompleted, step("body.0", "a", StepStatus.COMPLETED)))
    of.apply(story.step(StepStarted, step("body.3", "e")))

    assert shown(of) == [
        "completed a",
        "not taken if a.x",
        "not taken while a.z",
        "running e",
    ]


def test_when_a_run_is_over_nothing_lies_ahead(story: Story) -> None:
    """A body that failed early leaves no line for what it did not reach."""
    of = tree("call a call b always { call c }")
    of.apply(story.started())
    of.apply(story.step(StepFailed, step("body.0", "a", StepStatus.FAILED)))
    of.apply(story.step(StepCompleted, step("always.0", "c", StepStatus.COMPLETED, position=1)))
    of.apply(story.finished(RunStatus.FAILED, "a failed"))

    assert shown(of) == ["failed a", "group always", "  completed c"]
    assert (of.status, of.error) == (RunStatus.FAILED, "a failed")
    assert of.ended_at == story.now


def test_a_gate_waits_until_it_is_resolved(story: Story) -> None:
    """It is among the gates to answer in between; then its line says who decided what."""
    of = tree("gate human_review { name = code-review }")
    waiting = gate(approvers=2)
    of.apply(story.gate_waiting(waiting, "body.0"))
    open_gates, missing = list(of.gates), of.missing_votes(waiting.id)
    resolved = gate(
        state=GateState.APPROVED, resolved_by="bob", selections=("merge",), feedback="fine"
    )
    of.apply(story.gate_resolved(resolved, "body.0"))

    assert open_gates == [waiting.id]
    assert missing == 2
    assert not of.gates
    assert line(of, "code-review").notes == ("approved by bob", "selected merge", "“fine”")


def test_progress_is_shown_while_a_step_runs(story: Story) -> None:
    """What the worker says stands beside the running step, not beside the completed one."""
    of = tree("call a")
    row = step("body.0", "a")
    of.apply(story.step(StepStarted, row))
    of.apply(story.event(StepProgress, step_id=row.id, step_name="a", iteration=0, progress="half"))
    running = line(of, "a").notes
    of.apply(story.step(StepCompleted, step("body.0", "a", StepStatus.COMPLETED)))

    assert running == ("half",)
    assert line(of, "a").notes == ()


def test_without_a_definition_steps_are_a_list(story: Story) -> None:
    """In the order of their positions, each with its passes."""
    of = RunTree()
    later = step("body.1.0", "b", iterations=(1,), position=4)
    of.apply(story.step(StepStarted, later))
    of.apply(story.step(StepCompleted, step("body.0", "a", StepStatus.COMPLETED, position=1)))

    assert shown(of) == ["completed a", "running b"]
    assert line(of, "b").notes == ("pass 2",)


def test_a_resume_replaces_the_attempts_of_a_step() -> None:
    """Rows of an older epoch are not drawn as attempts of the new one."""
    of = tree("call a { retries = 1 }")
    of.put(step("body.0", "a", StepStatus.FAILED))
    of.put(step("body.0", "a", StepStatus.FAILED, retry_count=1))
    of.put(step("body.0", "a", StepStatus.COMPLETED, epoch=2))

    assert shown(of) == ["completed a"]


def test_a_part_that_only_a_newer_server_knows_is_a_leaf() -> None:
    """Its type is its label."""
    outline = read_outline('{"body":[{"type":"barrier"},{"type":"call","agent":{"value":"a"}}]}')

    assert [part.label for part in outline] == ["barrier", "a"]


def test_a_rejected_gate_says_who_rejected_it(story: Story) -> None:
    """The row failed, so the vote was against."""
    of = tree("gate human_approval { }")
    row = step("body.0", "human_approval", StepStatus.FAILED, gate=step_gate(approved_by="bob"))
    of.apply(story.step(StepFailed, row))

    assert line(of, "human_approval").notes == ("rejected by bob",)

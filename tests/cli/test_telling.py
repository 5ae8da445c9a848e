"""Events in words, values as JSON, tables as columns: what the command line prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from runkon_client.cli.documents import document, json_line
from runkon_client.cli.session import columns
from runkon_client.cli.telling import printable, span, tell
from runkon_client.values import (
    AlwaysStarted,
    GateDecision,
    GateState,
    GateVote,
    GateVoted,
    MetricsUpdated,
    RunCancelRequested,
    RunStatus,
    RunUnblocked,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StepStatus,
    StepTimedOut,
    UnknownEvent,
)
from support.run_events import SECOND, Story, gate, metrics, run, step


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.9, "59 s"),
        (63, "1 min 3 s"),
        (3600 * 2 + 300, "2 h 5 min"),
        (-1, "0.0 s"),
    ],
)
def test_spans_are_told_in_two_units(seconds: float, words: str) -> None:
    """A clock that went back counts as no time."""
    assert span(timedelta(seconds=seconds)) == words


def test_steps_are_told_with_pass_attempt_markers_and_reason(story: Story) -> None:
    """One line per event; of a failure the last line, which has the verdict."""
    again = step("body.0", "a", retry_count=1, iterations=(1, 0))
    failed = step("body.0", "a", StepStatus.FAILED, step_error="Traceback\nValueError: no\n")
    done = step("body.0", "a", StepStatus.COMPLETED, markers=("x", "y"), context="did it\nmore")
    skipped = step("body.0", "a", StepStatus.SKIPPED, condition_expr="p.x", condition_met=False)

    assert tell(story.step(StepStarted, again)) == "a (pass 2.1) started, attempt 2"
    assert tell(story.step(StepFailed, failed)) == "a failed after 1.0 s: ValueError: no"
    assert tell(story.step(StepCompleted, done)) == "a completed after 1.0 s [x] [y]: did it"
    assert tell(story.step(StepSkipped, skipped)) == "a skipped: p.x does not hold"
    assert tell(story.step(StepTimedOut, step("body.0", "a"))) == "a timed out"
    assert (
        tell(story.step(StepRetrying, failed, attempt=1, delay=SECOND))
        == "a will be tried again in 1.0 s"
    )
    assert (
        tell(story.step(StepRetrying, failed, attempt=1, delay=timedelta()))
        == "a will be tried again at once"
    )


def test_gates_are_told_with_who_and_what(story: Story) -> None:
    """Waiting with the question, votes one by one, the decision with its words."""
    vote = GateVote(
        principal="bob",
        decision=GateDecision.APPROVE,
        feedback="",
        selections=(),
        on_behalf_of="",
        at=None,
    )
    voted = story.event(GateVoted, gate_id="g", gate_name="code-review", vote=vote, truncated=False)
    approved = gate(
        state=GateState.APPROVED, resolved_by="bob", selections=("merge",), feedback="go"
    )
    timed_out = gate(state=GateState.TIMED_OUT)

    assert tell(story.gate_waiting(gate(), "body.0")) == "gate code-review waits: Ship it?"
    assert tell(voted) == "gate code-review: bob votes approve"
    assert (
        tell(story.gate_resolved(approved, "body.0"))
        == "gate code-review approved by bob with merge “go”"
    )
    assert tell(story.gate_resolved(timed_out, "body.0")) == "gate code-review timed out"


def test_the_run_itself_is_told(story: Story) -> None:
    """Who started it, who cancelled it and why, how it ended."""
    cancelled = story.event(RunCancelRequested, reason="too late", force=False, requested_by="bob")

    assert str(tell(story.started())).endswith("of A workflow started by ada")
    assert tell(cancelled) == "cancel asked for by bob: too late"
    assert tell(story.event(AlwaysStarted, workflow_status=RunStatus.FAILED)) == (
        "the body failed; always:"
    )
    assert tell(story.finished(RunStatus.FAILED, "a failed")) == "run failed: a failed"
    assert tell(story.finished(RunStatus.COMPLETED)) == "run completed"


def test_what_says_nothing_to_a_person_is_left_out(story: Story) -> None:
    """Sums, changes that a gate's event tells as well, kinds of a newer server."""
    assert tell(story.event(RunUnblocked)) is None
    assert tell(story.event(UnknownEvent)) is None
    assert tell(story.event(MetricsUpdated, metrics=metrics())) is None


def test_no_escape_sequence_reaches_the_terminal(story: Story) -> None:
    """A worker's text could otherwise clear the screen or rename the window."""
    evil = step("body.0", "a", StepStatus.COMPLETED, context="\x1b[2Jgone \x9b31m\x07")
    told = tell(story.step(StepCompleted, evil))

    assert told == "a completed after 1.0 s: �[2Jgone �31m�"
    assert columns([["\x1b[2J"], ["b"]]) == ["�[2J", "b"]
    assert printable("pay \u202e001\u202c, \u2066 not") == "pay �001�, � not"


def test_an_event_is_one_line_of_json(story: Story) -> None:
    """Its kind first, instants in UTC, spans in seconds, enums by their words, text as it is."""
    event = story.step(
        StepRetrying,
        step("body.0", "prüfe\n", StepStatus.FAILED, markers=("x",)),
        attempt=1,
        delay=timedelta(milliseconds=1500),
    )
    line = json_line(event)
    read = json.loads(line)

    assert "\n" not in line
    assert "prüfe" in line
    assert next(iter(read)) == "kind"
    assert (read["kind"], read["at"]) == ("step_retrying", "2026-01-02T03:04:06Z")
    assert read["delay"] == 1.5
    assert read["step"]["status"] == "failed"
    assert read["step"]["markers"] == ["x"]
    assert read["step"]["gate"] is None


def test_a_run_is_a_document_with_all_its_fields() -> None:
    """Maps stay maps; an instant of another zone is the same instant in UTC."""
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    shown = document(run(RunStatus.COMPLETED, labels={"team": "core"}, created_at=east))

    assert isinstance(shown, dict)
    assert shown["labels"] == {"team": "core"}
    assert shown["created_at"] == "2026-01-01T00:00:00Z"
    assert shown["total_duration"] == 1.0
    assert east.astimezone(UTC).hour == 0


def test_a_value_without_json_form_is_a_mistake() -> None:
    """Nothing is printed by its memory address."""
    with pytest.raises(TypeError, match="object"):
        document([object()])


def test_columns_are_aligned_and_hold_first_lines() -> None:
    """The last one is not padded, so lines carry no trailing blanks."""
    assert columns([["A", "B", "C"], ["long", "", "x\ny"]]) == ["A     B  C", "long     x"]

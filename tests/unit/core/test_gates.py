"""Human gates and the rule by which votes decide them."""

from __future__ import annotations

import pytest

from runkon_server.core.facts import GateDecision
from runkon_server.core.gates import Vote, tally
from support.plays import Play

ASK = 'gate human_review { prompt = "well?" options = { x = "the X" y = "the Y" } }'
BLOCKED_ON = {
    "type": "human_review",
    "gate_id": "01RUN/b.0000/e1/0",
    "gate_name": "human_review",
    "prompt": "well?",
    "options": [{"key": "x", "label": "the X"}, {"key": "y", "label": "the Y"}],
}


def test_088_dry_run_approves_by_itself() -> None:
    """The row says so and has the role of a reviewer; nobody is asked."""
    play = Play(f"{ASK} call a", dry_run=True)

    row = play.row("human_review")
    assert (row["role"], row["status"]) == ("reviewer", "completed")
    assert play.world.orders["OpenGate", row["id"]] == 0
    assert play.open_steps == ["a"]


def test_089_feedback_reaches_the_next_steps() -> None:
    """As a variable and beside the variables; before the gate there is none."""
    play = Play(f"call a {ASK} call b call c")
    assert play.task("a").gate_feedback is None
    assert "gate_feedback" not in play.task("a").inputs
    play.complete("a")
    play.approve("more tests")

    assert play.task("b").gate_feedback == "more tests"
    assert play.task("b").inputs["gate_feedback"] == "more tests"
    play.complete("b")
    assert play.task("c").gate_feedback == "more tests"


def test_089_no_words_take_no_words_back() -> None:
    """What an earlier gate was told stays until another one is told something."""
    play = Play(f"{ASK} {ASK.replace('{', '{ name = second', 1)} call a")
    play.approve("more tests")
    play.approve("")

    assert play.task("a").gate_feedback == "more tests"


def test_a_gate_leaves_no_context() -> None:
    """The context before it stays the newest."""
    play = Play(f"call a {ASK} call b")
    play.complete("a", context="planned")
    play.approve("fine", ("x",))

    assert play.task("b").inputs["prior_context"] == "planned"


def test_090_selections_are_the_feedback() -> None:
    """Joined by comma and blank, whatever the words said; the row lists them."""
    play = Play(f"{ASK} call a")
    play.approve("both, please", ("x", "y"))

    assert play.task("a").gate_feedback == "x, y"
    row = play.row("human_review")
    assert row["gate_selections"] == ("x", "y")
    assert row["context_out"] == "Selected:\n- x\n- y"


def test_091_rejection_fails_the_run_with_its_text() -> None:
    """Also without fail-fast."""
    play = Play(f"{ASK} call a", fail_fast=False)
    play.reject("not like this")

    assert play.status == "failed"
    assert play.error == "not like this"
    assert play.statuses("human_review") == ["failed"]
    assert play.rows("a") == []


def test_091_rejection_without_words_names_the_gate() -> None:
    """An error is never empty."""
    play = Play(ASK)
    play.reject()

    assert play.error == "gate `human_review` was rejected"


def test_092_deadline_fails_the_run() -> None:
    """The row and the run mention it."""
    play = Play('gate human_review { timeout = "90s" } call a')
    assert play.timer("gate").delay_s == 90
    play.let_gate_time_out()

    assert play.statuses("human_review") == ["failed"]
    assert play.error == "gate `human_review` timed out after 90 s"


def test_092_deadline_may_be_tolerated() -> None:
    """The row is timed out, the run completes."""
    play = Play('gate human_review { timeout = "90s" on_timeout = continue } call a')
    play.let_gate_time_out()
    play.complete("a")

    assert play.statuses("human_review") == ["timed_out"]
    assert play.status == "completed"


def test_094_a_waiting_gate_makes_the_run_wait() -> None:
    """Row, events and order say the same, in one decision."""
    play = Play(ASK)
    gate = play.gate()

    assert play.status == "waiting"
    assert play.world.run["blocked_on"] == BLOCKED_ON
    assert play.payload("run_waiting") == {"blocked_on": BLOCKED_ON}
    assert play.payload("gate_waiting")["gate"]["state"] == "pending"
    assert (gate.gate_id, gate.options) == ("01RUN/b.0000/e1/0", (("x", "the X"), ("y", "the Y")))
    row = play.row("human_review")
    assert (row["status"], row["gate_type"], row["gate_prompt"]) == (
        "waiting", "human_review", "well?",
    )  # fmt: skip


def test_094_a_decision_unblocks_the_run() -> None:
    """Once for each gate, also when the next one follows at once."""
    play = Play(f"{ASK} {ASK.replace('{', '{ name = second', 1)} call a")
    play.approve()
    assert play.gate().name == "second"
    assert play.status == "waiting"
    play.approve()

    assert play.kinds.count("run_waiting") == play.kinds.count("run_unblocked") == 2
    assert play.world.run["blocked_on"] is None
    assert play.status == "running"


def test_gate_options_come_from_a_step() -> None:
    """Members that are texts, in their order."""
    play = Play('call a gate human_review { options = "a.which" }')
    output = '{"which": {"p": "the P", "n": 5, "q": "the Q", "bad": "\\u0000", "\\ud800": "x"}}'
    play.complete("a", structured_output=output)

    assert play.gate().options == (("p", "the P"), ("q", "the Q"))


@pytest.mark.parametrize("output", [None, "[", '{"which": "x"}', "[]", "[" * 100_000])
def test_gate_without_the_options_it_needs_fails_the_run(output: str | None) -> None:
    """No row is left waiting, nobody is asked, and the error says what is missing."""
    play = Play('call a gate human_review { options = "a.which" } call b', fail_fast=False)
    play.complete("a", structured_output=output)

    assert play.statuses("human_review") == ["failed"]
    assert play.status == "failed"
    assert (play.error or "").startswith("gate `human_review`: its options come from `a")


def test_quorum_reaches_the_gate() -> None:
    """The recorder counts by what the definition says."""
    play = Play("gate human_approval { approvers = 2 exclude_starter = true }")

    assert (play.gate().approvers, play.gate().exclude_starter) == (2, True)
    assert play.gate().gate_type == "human_approval"


def votes(text: str) -> list[Vote]:
    """Votes as `ann+ bob-`, in order."""
    return [Vote(principal=word[:-1], approve=word[-1] == "+") for word in text.split()]


@pytest.mark.parametrize(
    ("cast", "approvers", "decision"),
    [
        ("", 1, None),
        ("ann+", 1, GateDecision.APPROVED),
        ("ann+", 2, None),
        ("ann+ ann+", 2, None),
        ("ann+ bob+", 2, GateDecision.APPROVED),
        ("ann-", 2, GateDecision.REJECTED),
        ("ann+ bob-", 2, GateDecision.REJECTED),
    ],
)
def test_096_votes_decide_by_quorum(
    cast: str, approvers: int, decision: GateDecision | None
) -> None:
    """Distinct principals approve; one rejection decides."""
    counted = tally(approvers=approvers, exclude_starter=False, starter="eve", votes=votes(cast))

    assert counted == decision


@pytest.mark.parametrize("cast", ["eve+", "eve-"])
def test_excluded_starter_does_not_count(cast: str) -> None:
    """Neither for nor against."""
    excluded = tally(approvers=1, exclude_starter=True, starter="eve", votes=votes(cast))
    included = tally(approvers=1, exclude_starter=False, starter="eve", votes=votes(cast))

    assert excluded is None
    assert included is not None

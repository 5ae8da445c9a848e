"""Children and items below the steps of a watched run, and the gates of child runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runkon_client.cli.fan_outs import SHOWN_MAX
from runkon_client.cli.lines import Mark
from runkon_client.cli.run_tree import RunTree
from runkon_client.cli.session import Settings
from runkon_client.cli.telling import tell
from runkon_client.cli.watching import PlainLines
from runkon_client.values import (
    ChildRunFinished,
    ChildRunStarted,
    CustomGate,
    FanOutCounts,
    FanOutItem,
    FanOutItemCompleted,
    FanOutItemsCollected,
    FanOutItemStarted,
    FanOutItemStatus,
    GateOption,
    HumanReview,
    PrApproval,
    PrChecks,
    RunFinished,
    RunStatus,
    RunUnblocked,
    RunWaiting,
    StepFailed,
    StepRole,
    StepStarted,
    StepStatus,
    UnknownBlocker,
)
from support.run_events import RUN_ID, Story, gate, step

if TYPE_CHECKING:
    from runkon_client.values import BlockedOn, RunEvent

CHILD = "01JD0000000000000000000001"
EACH = step("body.0", "foreach:each", role=StepRole.FOREACH)


@pytest.fixture
def story() -> Story:
    return Story()


def item(position: int, status: FanOutItemStatus, **changes: Any) -> FanOutItem:
    values: dict[str, Any] = {
        "id": f"{EACH.id}/{position}",
        "step_run_id": EACH.id,
        "item_type": "ticket",
        "item_id": f"T-{position}",
        "item_ref": "",
        "child_run_id": CHILD,
        "status": status,
        "dispatched_at": None,
        "completed_at": None,
        "context": {},
        "position": position,
        "blockers": (),
        "structured_output": "",
        "run_id": RUN_ID,
        "error": "",
        "blocked_on": None,
    }
    return FanOutItem(**(values | changes))


def counts(total: int, completed: int = 0, failed: int = 0, skipped: int = 0) -> FanOutCounts:
    return FanOutCounts(total=total, completed=completed, failed=failed, skipped=skipped)


def collected(story: Story, tree: RunTree, total: int) -> None:
    tree.apply(story.step(StepStarted, EACH))
    row = step("body.0", EACH.step_name, role=StepRole.FOREACH, fan_out=counts(total))
    tree.apply(story.step(FanOutItemsCollected, row, count=total))


def begin(story: Story, tree: RunTree, position: int) -> None:
    running = item(position, FanOutItemStatus.RUNNING, dispatched_at=story.now)
    tree.apply(story.event(FanOutItemStarted, item=running, truncated=False))


def end(story: Story, tree: RunTree, over: FanOutItem, after: FanOutCounts) -> None:
    tree.apply(story.event(FanOutItemCompleted, item=over, truncated=False, counts=after))


def test_a_foreach_counts_its_items(story: Story) -> None:
    """From the row when they are collected, from each end of an item while it runs."""
    tree = RunTree()
    collected(story, tree, 3)
    before = tree.lines()[0].notes
    end(story, tree, item(0, FanOutItemStatus.COMPLETED), counts(3, 1))
    end(story, tree, item(1, FanOutItemStatus.SKIPPED), counts(3, 1, 1, 1))

    assert before == ("0 of 3 items done",)
    assert tree.lines()[0].notes == ("1 of 3 items done, 1 failed, 1 skipped",)


def test_a_foreach_that_is_over_counts_as_its_row_says(story: Story) -> None:
    tree = RunTree()
    collected(story, tree, 2)
    end(story, tree, item(0, FanOutItemStatus.FAILED), counts(2, 0, 1))
    over = step(
        "body.0",
        EACH.step_name,
        StepStatus.FAILED,
        role=StepRole.FOREACH,
        fan_out=counts(2, 1, 1),
    )
    tree.apply(story.step(StepFailed, over))

    assert tree.lines()[0].notes == ("1 of 2 items done, 1 failed",)


def test_running_and_failed_items_have_lines_below_the_step(story: Story) -> None:
    """A failed one with its reason, its run and the time it took; a completed one has none."""
    tree = RunTree()
    collected(story, tree, 3)
    for position in range(3):
        begin(story, tree, position)
    began_at = story.now
    end(story, tree, item(1, FanOutItemStatus.COMPLETED), counts(3, 1))
    failed = item(
        2,
        FanOutItemStatus.FAILED,
        error="no luck",
        item_ref="the third",
        child_run_id="",
        completed_at=story.now,
    )
    end(story, tree, failed, counts(3, 1, 1))

    _, third, first = tree.lines()
    assert (third.mark, third.label, third.text) == (Mark.FAILED, "the third", "no luck")
    assert third.notes == (f"run {CHILD}",)
    assert third.began_at is not None
    assert third.began_at < began_at
    assert (first.mark, first.label, first.depth) == (Mark.RUNNING, "T-0", 1)


def test_many_items_have_few_lines(story: Story) -> None:
    """The first that run, and how many more; the first that failed."""
    tree = RunTree()
    collected(story, tree, 1000)
    for position in range(200):
        begin(story, tree, position)
    for position in range(100):
        over = item(position, FanOutItemStatus.FAILED)
        end(story, tree, over, counts(1000, 0, position + 1))

    labels = [line.label for line in tree.lines()[1:]]
    assert labels[:SHOWN_MAX] == [f"T-{number}" for number in range(SHOWN_MAX)]
    assert labels[SHOWN_MAX] == "T-100"
    assert labels[-1] == f"{100 - SHOWN_MAX} more running"
    assert len(labels) == 2 * SHOWN_MAX + 1


def test_a_called_workflow_names_its_run(story: Story) -> None:
    """From the event while it runs, and from the row; the run of an item is at the item."""
    tree = RunTree()
    call = step("body.0", "workflow:child", role=StepRole.WORKFLOW)
    tree.apply(story.step(StepStarted, call))
    begun: dict[str, Any] = {"workflow_name": "child", "child_run_id": CHILD}
    tree.apply(story.event(ChildRunStarted, step_id=call.id, fan_out_item_id="", **begun))

    assert tree.lines()[0].notes == (f"run {CHILD}",)
    other = RunTree()
    other.put(step("body.0", "workflow:child", StepStatus.COMPLETED, child_run_id=CHILD))
    assert other.lines()[0].notes == (f"run {CHILD}",)


def waiting(story: Story, blocked_on: BlockedOn) -> RunWaiting:
    return story.event(RunWaiting, blocked_on=blocked_on)


OPTIONS = (GateOption(key="merge", label="Merge it"),)
BLOCKERS: dict[str, tuple[BlockedOn, str]] = {
    "review": (
        HumanReview(
            gate_id="g", run_id=CHILD, gate_name="check", prompt="Ship it?", options=OPTIONS
        ),
        f"Gate check of child run {CHILD}: Ship it?",
    ),
    "custom": (
        CustomGate(gate_id="g", run_id=CHILD, gate_name="moon", type="moon", prompt="", options=()),
        f"Gate moon of child run {CHILD}: Approve?",
    ),
    "approvals": (
        PrApproval(gate_id="g", run_id=CHILD, gate_name="pr", approvals_needed=2),
        f"Gate pr of child run {CHILD}: 2 approvals of the pull request are needed",
    ),
    "checks": (
        PrChecks(gate_id="g", run_id=CHILD, gate_name="ci"),
        f"Gate ci of child run {CHILD}: the checks have to succeed",
    ),
    "unknown": (
        UnknownBlocker(gate_id="g", run_id=CHILD),
        f"Gate of an unknown kind of child run {CHILD}: Approve?",
    ),
}


@pytest.mark.parametrize(("blocked_on", "heading"), BLOCKERS.values(), ids=BLOCKERS)
def test_the_gate_of_a_child_run_is_asked_too(
    story: Story, blocked_on: BlockedOn, heading: str
) -> None:
    """Until the run waits no longer."""
    tree = RunTree()
    tree.apply(waiting(story, blocked_on))
    asked = tree.question()
    tree.apply(story.event(RunUnblocked))

    assert asked is not None
    assert asked.heading() == heading
    assert asked.answers(Settings())[1] == "runkon gates reject g --feedback why"
    assert tree.question() is None


def test_the_runs_own_gate_is_asked_by_its_own_event(story: Story) -> None:
    """With its prompt whole, and before that of a child; over is over."""
    tree = RunTree()
    own = HumanReview(gate_id="own", run_id=RUN_ID, gate_name="a", prompt="", options=())
    tree.apply(waiting(story, own))
    nothing_yet = tree.question()
    tree.apply(story.gate_waiting(gate(), "body.1"))
    asked = tree.question()
    over: RunFinished = story.finished(RunStatus.CANCELLED)
    tree.apply(over)

    assert nothing_yet is None
    assert asked is not None
    assert (asked.gate_id, asked.child_run_id) == (gate().id, "")
    assert tree.question() is None


def test_plain_lines_tell_of_the_gate_of_a_child(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    PlainLines(Settings()).show(waiting(story, BLOCKERS["review"][0]))

    assert [line[10:] for line in capsys.readouterr().out.splitlines()] == [
        f"child run {CHILD} waits at a gate",
        f"Gate check of child run {CHILD}: Ship it?",
        "merge  Merge it",
        "runkon gates approve g --select merge",
        "runkon gates reject g --feedback why",
    ]


def test_items_and_child_runs_are_told_in_words(story: Story) -> None:
    failed = item(1, FanOutItemStatus.FAILED, error="no luck", item_ref="the second")
    events: list[RunEvent] = [
        story.event(FanOutItemStarted, item=item(0, FanOutItemStatus.RUNNING), truncated=False),
        story.event(FanOutItemCompleted, item=failed, truncated=False, counts=counts(2, 0, 1)),
        story.event(
            ChildRunFinished,
            step_id="s",
            child_run_id=CHILD,
            status=RunStatus.FAILED,
            error="no luck",
            fan_out_item_id="",
        ),
    ]

    assert [tell(event) for event in events] == [
        "item T-0 running",
        "item the second failed: no luck",
        f"child run {CHILD} failed: no luck",
    ]

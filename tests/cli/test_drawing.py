"""The picture of a run, rendered without colours at a fixed size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from runkon_client.cli.drawing import crop, draw
from runkon_client.cli.lines import Line, Mark
from runkon_client.cli.run_tree import RunTree
from runkon_client.values import GateOption, RunStatus, StepCompleted, StepStarted, StepStatus
from support.run_events import BEGAN_AT, SECOND, Story, gate, step

if TYPE_CHECKING:
    from datetime import datetime


def picture(
    tree: RunTree, now: datetime, *, answers: tuple[str, ...] = (), height: int | None = None
) -> list[str]:
    """The lines that a terminal of 100 columns shows."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(draw(tree, now=now, answers=answers, height=height))
    return [line.rstrip() for line in captured.get().splitlines()]


def long_run(steps: int) -> tuple[RunTree, Story]:
    """A run whose steps are all over but the last."""
    tree, story = RunTree(), Story()
    tree.apply(story.started())
    for number in range(steps):
        name = f"step-{number}"
        if number < steps - 1:
            done = step(f"body.{number}", name, StepStatus.COMPLETED, position=number)
            tree.apply(story.step(StepCompleted, done))
        else:
            active = step(f"body.{number}", name, position=number)
            tree.apply(story.step(StepStarted, active))
    return tree, story


def test_a_line_has_sign_label_time_and_what_was_told() -> None:
    """Columns are aligned; a running step's time is that until now."""
    tree, story = RunTree(), Story()
    tree.apply(story.started())
    done = step("body.0", "plan", StepStatus.COMPLETED, markers=("big",), context="two\nparts")
    tree.apply(story.step(StepCompleted, done))
    tree.apply(story.step(StepStarted, step("body.1", "implement", position=1)))
    heading, first, second = picture(tree, BEGAN_AT + 3 * SECOND)

    assert heading == "A workflow  running  2.0 s"
    assert first == "✔ plan            1.0 s  [big]  two"
    assert second[2:] == "implement       3.0 s"


def test_a_gate_shows_its_question_its_options_and_the_commands() -> None:
    """Below the steps, as long as it waits."""
    tree, story = RunTree(), Story()
    options = (GateOption(key="merge", label="Merge it"), GateOption(key="no", label="Wait"))
    waiting = gate(options=options, approvers=2)
    tree.apply(story.gate_waiting(waiting, "body.0"))
    shown = picture(tree, story.now, answers=("runkon gates approve g",))

    assert shown[-5:] == [
        "Gate code-review: Ship it?",
        "  2 people have to approve",
        "  merge  Merge it",
        "  no     Wait",
        "  runkon gates approve g",
    ]


def test_a_failed_run_ends_with_its_error() -> None:
    """The gate that was open is no longer shown."""
    tree, story = RunTree(), Story()
    tree.apply(story.gate_waiting(gate(), "body.0"))
    tree.apply(story.finished(RunStatus.FAILED, "the gate was rejected"))

    assert picture(tree, story.now)[-1] == "the gate was rejected"


def test_a_picture_fits_the_terminal_and_holds_the_active_step() -> None:
    """What is over is left out at the top, and the picture says how much."""
    tree, story = long_run(50)
    shown = picture(tree, story.now, height=12)

    assert len(shown) < 12
    assert "lines above" in shown[1]
    assert "step-49" in shown[-1]


def test_a_picture_without_a_limit_holds_every_line() -> None:
    """The last picture of a run stays on the screen whole."""
    tree, story = long_run(50)

    assert len(picture(tree, story.now)) == 51


def test_no_escape_sequence_reaches_the_terminal() -> None:
    """Neither in what a worker said, nor in what a gate asks."""
    tree, story = RunTree(title="\x1b]0;t\x07"), Story()
    evil = step("body.0", "a\x1b[2J", StepStatus.COMPLETED, context="\x1b[31m", markers=("\x1b",))
    tree.apply(story.step(StepCompleted, evil))
    tree.apply(story.gate_waiting(gate(prompt="\x1b[5m?"), "body.1"))

    assert "\x1b" not in "".join(picture(tree, story.now))


@pytest.mark.parametrize("room", [3, 4, 7, 50])
@pytest.mark.parametrize("active", [None, 0, 1, 5, 25, 47, 48, 49])
def test_cropping_keeps_the_active_line_and_counts_the_rest(room: int, active: int | None) -> None:
    """With the lines that say what is missing, never more than there is room for."""
    lines = [
        Line(depth=0, mark=Mark.RUNNING if at == active else Mark.COMPLETED, label=str(at))
        for at in range(50)
    ]
    above, shown, below = crop(lines, room)

    assert above + len(shown) + below == 50
    assert len(shown) + (above > 0) + (below > 0) <= room
    assert [line.label for line in shown] == [str(at) for at in range(above, 50 - below)]
    assert (49 if active is None else active) in range(above, 50 - below)

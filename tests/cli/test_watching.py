"""Following a run on a screen: the live tree on a terminal that is really a buffer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from runkon_client.cli.run_tree import RunTree
from runkon_client.cli.session import Settings
from runkon_client.cli.watching import LiveTree, PlainLines, can_draw, follow, run_goes_on
from runkon_client.values import GateState, RunStatus, StepCompleted, StepStatus
from support.run_events import RUN_ID, Story, gate, step

if TYPE_CHECKING:
    from runkon_client.values import Gate, RunEvent


def history() -> list[RunEvent]:
    """A run with a step and a gate."""
    story = Story()
    resolved = gate(state=GateState.APPROVED, resolved_by="bob")
    return [
        story.started(),
        story.step(StepCompleted, step("body.0", "greet", StepStatus.COMPLETED)),
        story.gate_waiting(gate(), "body.1"),
        story.gate_resolved(resolved, "body.1"),
        story.finished(RunStatus.COMPLETED),
    ]


def terminal() -> Console:
    """A terminal of 100 columns, which remembers what is written to it."""
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=30)


def written_to(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_last_picture_of_the_tree_stays() -> None:
    """Whole, with how the run ended; the cursor is shown again."""
    console = terminal()
    with LiveTree(Settings(), RunTree(), console) as live:
        follow(history(), live)
    text = written_to(console)
    last = text[text.rindex("A workflow") :]

    assert "completed" in last
    assert "approved by bob" in last
    assert text.rstrip().endswith("\x1b[?25h")


def test_whoever_answers_a_gate_has_the_terminal_alone() -> None:
    """Nothing is drawn between the opening of the gate and the answer; then drawing goes on."""
    console = terminal()
    asked: list[Gate] = []

    def answer(opened: Gate) -> None:
        asked.append(opened)
        console.file.write("<question>")

    with LiveTree(Settings(), RunTree(), console) as live:
        follow(history(), live, on_gate=answer)
    before, _, after = written_to(console).partition("<question>")

    assert [each.name for each in asked] == ["code-review"]
    assert "Gate code-review: Ship it?" in before
    assert "runkon gates approve gate-of-code-review --select merge" in before
    assert "Gate code-review" not in after[after.rindex("A workflow") :]


def test_plain_lines_show_how_to_answer_a_gate(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the gate's line, with the options of the command line that watches."""
    follow(history(), PlainLines(Settings(address="h:1")))
    lines = [line[10:] for line in capsys.readouterr().out.splitlines()]

    assert lines == [
        f"run {RUN_ID} of A workflow started by ada",
        "greet completed after 1.0 s",
        "gate code-review waits: Ship it?",
        "merge  Merge it",
        "runkon gates approve gate-of-code-review --select merge --address h:1",
        "runkon gates reject gate-of-code-review --feedback why --address h:1",
        "gate code-review approved by bob",
        "run completed",
    ]


def test_leaving_says_how_to_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the watching, not the run."""
    with pytest.raises(KeyboardInterrupt), run_goes_on(Settings(), RUN_ID):
        raise KeyboardInterrupt

    assert f"watch it again with: runkon runs watch {RUN_ID}" in capsys.readouterr().err


def test_nothing_is_drawn_where_it_could_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not into a pipe, not without colours, not on a dumb terminal, not when lines are wanted."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    into_a_pipe = can_draw(plain=False)
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", screen)
    on_a_terminal, as_lines = can_draw(plain=False), can_draw(plain=True)
    monkeypatch.setenv("NO_COLOR", "1")
    without_colour = can_draw(plain=False)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")

    assert on_a_terminal
    assert not any((into_a_pipe, as_lines, without_colour, can_draw(plain=False)))

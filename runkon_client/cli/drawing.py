"""What a run's tree looks like on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.text import Text

from runkon_client.cli.lines import ACTIVE, Mark
from runkon_client.cli.telling import between, first_line, last_line, printable, span
from runkon_client.values import RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runkon_client.cli.lines import Line
    from runkon_client.cli.run_tree import RunTree

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SPINS_PER_S: Final = 10
_INDENT: Final = 2
_LABEL_WIDTH_MAX: Final = 44
_TIME_WIDTH: Final = 11
_ROOM_MIN: Final = 3

_SIGN: Final = {
    Mark.GROUP: ("▸", "bold"),
    Mark.AHEAD: ("·", "bright_black"),
    Mark.NOT_TAKEN: ("○", "bright_black"),
    Mark.RUNNING: ("", "cyan"),  # the spinner
    Mark.RETRYING: ("↻", "yellow"),
    Mark.WAITING: ("?", "bold magenta"),
    Mark.COMPLETED: ("✔", "green"),
    Mark.FAILED: ("✖", "red"),
    Mark.SKIPPED: ("○", "bright_black"),
    Mark.TIMED_OUT: ("✖", "red"),
}
_FAINT: Final = frozenset({Mark.AHEAD, Mark.NOT_TAKEN, Mark.SKIPPED})

STATUS_STYLE: Final = {
    RunStatus.PENDING: "bright_black",
    RunStatus.RUNNING: "cyan",
    RunStatus.WAITING: "bold magenta",
    RunStatus.CANCELLING: "yellow",
    RunStatus.COMPLETED: "bold green",
    RunStatus.FAILED: "bold red",
    RunStatus.CANCELLED: "bold yellow",
}


def draw(
    tree: RunTree, *, now: datetime, answers: Sequence[str] = (), height: int | None = None
) -> Group:
    """The whole picture: heading, steps, what the run waits for.

    Args:
        tree: the run.
        now: for the time that unfinished steps have taken so far.
        answers: the command lines that answer the gate which has waited longest.
        height: of the terminal; lines that are over are left out at the top to fit. None: all.
    """
    head = [heading(tree, now)]
    foot = _waiting(tree, answers)
    if tree.error and tree.status.is_terminal:
        foot.append(Text(printable(tree.error), style="red"))
    lines = tree.lines()
    width = min(_LABEL_WIDTH_MAX, max(map(_label_width, lines), default=0))
    room = len(lines) if height is None else max(_ROOM_MIN, height - len(head) - len(foot) - 2)
    above, shown, below = crop(lines, room)
    picture = [draw_line(line, width, now) for line in shown]
    if above:
        picture.insert(0, Text(f"  … {above} lines above", style="bright_black"))
    if below:
        picture.append(Text(f"  … {below} more", style="bright_black"))
    return Group(*head, *picture, *foot)


def heading(tree: RunTree, now: datetime) -> Text:
    """The run's name, status and time."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(printable(tree.title or "run"), style="bold")
    text.append(f"  {tree.status}", style=STATUS_STYLE.get(tree.status, ""))
    if took := between(tree.started_at, tree.ended_at or now):
        text.append(f"  {took}", style="bright_black")
    return text


def draw_line(line: Line, width: int, now: datetime) -> Text:
    """One line; `width` is that of the column of labels."""
    sign, style = _SIGN[line.mark]
    if line.mark is Mark.RUNNING:
        sign = _SPINNER[int(now.timestamp() * _SPINS_PER_S) % len(_SPINNER)]
    text = Text(" " * (_INDENT * line.depth), no_wrap=True, overflow="ellipsis")
    text.append(f"{sign} ", style=style)
    label_style = "bright_black" if line.mark in _FAINT else ""
    label = printable(line.label)
    took = _took(line, now)
    if took or line.notes or line.text:
        text.append(label.ljust(width - _INDENT * line.depth), style=label_style)
        text.append(f" {took:>{_TIME_WIDTH}}", style="bright_black")
    else:
        text.append(label, style=label_style)
    for note in line.notes:
        text.append(f"  {printable(first_line(note))}", style="yellow" if note[0] == "[" else "")
    if line.text:
        is_bad = line.mark in (Mark.FAILED, Mark.RETRYING, Mark.TIMED_OUT)
        said = last_line(line.text) if is_bad else first_line(line.text)
        text.append(f"  {printable(said)}", style="red" if is_bad else "bright_black")
    return text


def _took(line: Line, now: datetime) -> str:
    if line.began_at is None:
        return ""
    if line.ended_at is not None:
        return span(line.ended_at - line.began_at)
    return span(now - line.began_at) if line.mark in ACTIVE else ""


def _label_width(line: Line) -> int:
    return _INDENT * line.depth + len(line.label)


def crop(lines: Sequence[Line], room: int) -> tuple[int, Sequence[Line], int]:
    """Leave out what does not fit, around the first active line or the newest.

    Args:
        lines: all of them.
        room: how many lines there may be, those included that say what was left out; at least 3.

    Returns:
        How many are left out above, the lines that stay, how many are left out below.
    """
    count = len(lines)
    if count <= room:
        return 0, lines, 0
    active = (at for at, line in enumerate(lines) if line.mark in ACTIVE)
    first = next(active, count)
    between = room - 2
    start = max(0, min(first, count - 1) - between // 2)
    if start == 0:
        stop = room - 1
    elif start + between >= count:
        start, stop = count - room + 1, count
    else:
        stop = start + between
    return start, lines[start:stop], count - stop


def _waiting(tree: RunTree, answers: Sequence[str]) -> list[Text]:
    """What the longest waiting gate asks, and how to answer."""
    question = tree.question()
    if question is None:
        return []
    lines = [Text(""), Text(question.heading(), style="bold magenta")]
    if (missing := tree.missing_votes(question.gate_id)) > 1:
        lines.append(Text(f"  {missing} people have to approve"))
    lines += [Text(f"  {line}") for line in question.choices()]
    lines += [Text(f"  {answer}", style="cyan", overflow="fold") for answer in answers]
    return lines

"""Following a run: JSON lines, plain lines, or a tree that is redrawn as events come."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, Self

import click
from rich.console import Console
from rich.live import Live

from runkon_client.cli.documents import json_line
from runkon_client.cli.drawing import draw
from runkon_client.cli.exits import Exit
from runkon_client.cli.outline import read_outline
from runkon_client.cli.questions import question_of, question_of_child
from runkon_client.cli.run_tree import RunTree
from runkon_client.cli.session import print_document
from runkon_client.cli.telling import printable, tell
from runkon_client.values import GateState, GateWaiting, RunStatus, RunWaiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from runkon_client import SyncRunHandle
    from runkon_client.cli.questions import Question
    from runkon_client.cli.session import Settings
    from runkon_client.values import Gate, Run, RunEvent, Step

_REDRAWS_PER_S: Final = 10
_WIDTH_WITHOUT_TERMINAL: Final = 160

EXIT_OF: Final = {
    RunStatus.COMPLETED: Exit.OK,
    RunStatus.FAILED: Exit.FAILED,
    RunStatus.CANCELLED: Exit.RUN_CANCELLED,
}
"""The exit code that a run's end means."""


class Screen(Protocol):
    """Where a run is shown."""

    def show(self, event: RunEvent) -> None:
        """Show what changed."""

    def aside(self) -> AbstractContextManager[None]:
        """Leave the terminal to somebody else for a while."""


class JsonLines:
    """One JSON document per event and line."""

    def show(self, event: RunEvent) -> None:
        """Print the event."""
        click.echo(json_line(event))

    def aside(self) -> AbstractContextManager[None]:
        """Nothing to do: lines stand where they were printed."""
        return contextlib.nullcontext()


class PlainLines:
    """One line of text per event, and the commands that answer a gate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def show(self, event: RunEvent) -> None:
        """Print the event's line, if it has one."""
        line = tell(event)
        if line is not None:
            click.echo(f"{event.at.astimezone():%H:%M:%S}  {line}")
        question = _asked(event)
        if question is not None:
            asked = [question.heading()] if question.child_run_id else []
            for text in (*asked, *question.choices(), *question.answers(self._settings)):
                click.echo(f"          {text}")

    def aside(self) -> AbstractContextManager[None]:
        """Nothing to do: lines stand where they were printed."""
        return contextlib.nullcontext()


class LiveTree:
    """The whole run as a tree, redrawn many times a second; the last picture stays."""

    def __init__(self, settings: Settings, tree: RunTree, console: Console) -> None:
        self._settings = settings
        self._tree = tree
        self._lock = threading.Lock()  # rich redraws in a thread of its own
        self._is_over = False
        self._console = console
        self._live = self._begin()

    def _begin(self) -> Live:
        """A new picture, below whatever is on the terminal."""
        return Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=_REDRAWS_PER_S,
            vertical_overflow="visible",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self._live.stop()

    def show(self, event: RunEvent) -> None:
        """Take the event into the next picture."""
        with self._lock:
            self._tree.apply(event)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the picture as it is, and go on with a new one below."""
        self._live.stop()
        yield
        self._live = self._begin()
        self._live.start(refresh=True)

    def _picture(self) -> RenderableType:
        with self._lock:
            question = self._tree.question()
            return draw(
                self._tree,
                now=datetime.now(UTC),
                answers=() if question is None else question.answers(self._settings),
                height=None if self._is_over else self._console.height,
            )


def _asked(event: RunEvent) -> Question | None:
    """What an event asks people; None if it asks nothing."""
    match event:
        case GateWaiting():
            return question_of(event.gate)
        case RunWaiting():
            return question_of_child(event.blocked_on, event.run_id)
        case _:
            return None


def can_draw(*, plain: bool) -> bool:
    """Whether a tree can be redrawn on standard output, and the user wants it."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return (
        not plain
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
        and encoding.startswith("utf")
    )


def console_for_output() -> Console:
    """A console on standard output; without a terminal, wide and without colours."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, highlight=False, emoji=False, markup=False)


def empty_tree(run: Run) -> RunTree:
    """A run's tree before its first event; without its definition it will be a list of steps."""
    return RunTree(outline=read_outline(run.definition_snapshot), title=run.display_name)


@contextlib.contextmanager
def screen_for(settings: Settings, run: Run, *, plain: bool) -> Iterator[Screen]:
    """The screen that fits standard output and what was asked for."""
    if settings.as_json:
        yield JsonLines()
    elif can_draw(plain=plain):
        with LiveTree(settings, empty_tree(run), console_for_output()) as live:
            yield live
    else:
        yield PlainLines(settings)


def follow(
    events: Iterable[RunEvent],
    screen: Screen,
    *,
    on_gate: Callable[[Gate], None] | None = None,
) -> None:
    """Show every event.

    Args:
        events: a run's, until its end.
        screen: where.
        on_gate: called when a gate opens, with the terminal at its disposal.
    """
    for event in events:
        screen.show(event)
        if on_gate is not None and isinstance(event, GateWaiting):
            with screen.aside():
                on_gate(event.gate)


def watch_run(
    settings: Settings, handle: SyncRunHandle, *, plain: bool = False, after_seq: int = 0
) -> Exit:
    """Show a run until it ends; after Ctrl-C it goes on. The exit code says how it ended."""
    with run_goes_on(settings, handle.id):
        return show_run(settings, handle, plain=plain, after_seq=after_seq)


def show_run(
    settings: Settings,
    handle: SyncRunHandle,
    *,
    plain: bool,
    after_seq: int = 0,
    on_gate: Callable[[Gate], None] | None = None,
) -> Exit:
    """Show a run until it ends; `on_gate` as in `follow`. The exit code says how it ended."""
    run = handle.get(full=True)
    with screen_for(settings, run, plain=plain) as screen:
        follow(handle.events(after_seq), screen, on_gate=on_gate)
    return EXIT_OF.get(handle.get().status, Exit.FAILED)


def wait_for_run(settings: Settings, handle: SyncRunHandle) -> Exit:
    """Wait until a run has ended, and print it then."""
    with run_goes_on(settings, handle.id):
        run = handle.wait()
    if settings.as_json:
        print_document(run)
    else:
        click.echo(f"{run.id} {run.status}" + (f": {printable(run.error)}" if run.error else ""))
    return EXIT_OF.get(run.status, Exit.FAILED)


def print_run(settings: Settings, run: Run, steps: Iterable[Step], gates: Iterable[Gate]) -> None:
    """Print a run's tree as it is now."""
    tree = empty_tree(run)
    tree.status, tree.error = run.status, run.error
    tree.started_at, tree.ended_at = run.started_at, run.ended_at
    for step in steps:
        tree.put(step)
    tree.gates = {gate.id: gate for gate in gates if gate.state is GateState.PENDING}
    tree.run_id, tree.blocked_on = run.id, run.blocked_on
    question = tree.question()
    words = () if question is None else question.answers(settings)
    console_for_output().print(draw(tree, now=datetime.now(UTC), answers=words))


@contextlib.contextmanager
def run_goes_on(settings: Settings, run_id: str) -> Iterator[None]:
    """On Ctrl-C, say how to come back to the run."""
    try:
        yield
    except KeyboardInterrupt:
        again = settings.command("runs", "watch", run_id)
        click.echo(f"\nthe run goes on; watch it again with: {again}", err=True)
        raise

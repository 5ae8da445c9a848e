"""One run played by hand: workers, people and clocks answer by name; the laws hold after each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon_server.core.engine import advance
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    GateDecided,
    GateDecision,
    Outcome,
    Reported,
    Started,
    TimerDue,
)
from support.histories import World, check_laws, epoch_of
from support.workflows import accepted

if TYPE_CHECKING:
    from runkon_server.core.decision import Dispatch, OpenGate, SetTimer
    from runkon_server.core.facts import Fact


class Play:
    """A run of a workflow with these contents, started unless it is told otherwise.

    Further arguments are columns of the run's row, or `schemas` by name.
    """

    def __init__(
        self, text: str, inputs: dict[str, str] | None = None, *, start: bool = True, **run: Any
    ) -> None:
        self.world = World(accepted(text), inputs or {}, **run)
        if start:
            self.happen(Started())

    def happen(self, fact: Fact) -> None:
        """Let one fact be recorded, and applied by a replica that has just taken the run over.

        Applied twice, it changes nothing more.
        """
        self.world.record(fact)
        self.world.crash()
        state = self.world.apply(fact).state
        check_laws(self.world)
        assert advance(state, fact).state is state

    def complete(self, *names: str, markers: tuple[str, ...] = (), **report: Any) -> None:
        """Each of these steps completes."""
        for name in names:
            task = self.task(name).task_id
            done = Outcome.COMPLETED
            self.happen(Reported(task_id=task, outcome=done, markers=markers, **report))

    def fail(self, name: str, error: str = "broken", **report: Any) -> None:
        """An attempt at a step fails."""
        task = self.task(name).task_id
        self.happen(Reported(task_id=task, outcome=Outcome.FAILED, error=error, **report))

    def stopped(self, name: str) -> None:
        """A worker says that it has stopped a step."""
        self.happen(Reported(task_id=self.task(name).task_id, outcome=Outcome.CANCELLED))

    def end_child(self, status: str = "completed", **more: Any) -> None:
        """The one child run that is awaited ends."""
        ((name, child),) = self.world.children.items()
        about: dict[str, Any] = {"child_run_id": name, "child_epoch": epoch_of(child)}
        self.happen(ChildEnded(**about, status=status, **more))

    def block_child(self, gate: dict[str, Any] | None) -> None:
        """The one child run that is awaited comes to a gate, or leaves it."""
        ((name, child),) = self.world.children.items()
        about: dict[str, Any] = {"child_run_id": name, "child_epoch": epoch_of(child)}
        self.happen(ChildBlocked(**about, blocked_on=gate))

    def approve(self, feedback: str | None = None, selections: tuple[str, ...] = ()) -> None:
        """The open gate is approved."""
        self._decide(GateDecision.APPROVED, feedback=feedback, selections=selections)

    def reject(self, feedback: str | None = None) -> None:
        """The open gate is rejected."""
        self._decide(GateDecision.REJECTED, feedback=feedback)

    def let_gate_time_out(self) -> None:
        """Nobody decides the open gate."""
        self._decide(GateDecision.TIMED_OUT)

    def _decide(self, decision: GateDecision, **more: Any) -> None:
        self.happen(GateDecided(gate_id=self.gate().gate_id, decision=decision, **more))

    def pass_time(self, kind: str) -> None:
        """The one timer of a kind goes off."""
        self.happen(TimerDue(timer_id=self.timer(kind).timer_id))

    def cancel(self, reason: str = "enough", *, force: bool = False) -> None:
        """Somebody cancels the run."""
        self.happen(CancelAsked(reason=reason, force=force))

    @property
    def status(self) -> str:
        """The run's status."""
        return str(self.world.run["status"])

    @property
    def error(self) -> str | None:
        """The run's error."""
        error: str | None = self.world.run.get("error")
        return error

    @property
    def open_steps(self) -> list[str]:
        """Names of the steps that workers are working on."""
        return sorted(task.step_name for task in self.world.tasks.values())

    @property
    def started(self) -> list[str]:
        """Names of the steps that workers were given, in order, once per attempt."""
        return [task.step_name for task in self.world.dispatched]

    @property
    def kinds(self) -> list[str]:
        """Kinds of all events."""
        return [event.kind for event in self.world.events]

    def task(self, name: str) -> Dispatch:
        """The open task of a step; of several, the first."""
        return next(task for task in self.world.tasks.values() if task.step_name == name)

    def given(self, name: str) -> Dispatch:
        """The newest task that a step was given."""
        return next(task for task in reversed(self.world.dispatched) if task.step_name == name)

    def timer(self, kind: str) -> SetTimer:
        """The one timer of a kind."""
        (timer,) = (timer for timer in self.world.timers.values() if timer.kind == kind)
        return timer

    def gate(self) -> OpenGate:
        """The open gate."""
        (gate,) = self.world.gates.values()
        return gate

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All rows of a step, in the order in which they were made."""
        return [row for row in self.world.steps.values() if row["step_name"] == name]

    def row(self, name: str) -> dict[str, Any]:
        """The only row of a step."""
        (row,) = self.rows(name)
        return row

    def statuses(self, name: str) -> list[str]:
        """The statuses of all rows of a step."""
        return [row["status"] for row in self.rows(name)]

    def payload(self, kind: str) -> dict[str, Any]:
        """What the newest event of a kind says."""
        return next(event.payload for event in reversed(self.world.events) if event.kind == kind)

"""The state that `--watch` draws: a run's events, folded into lines.

Pure. Knows nothing of terminals: what a line looks like is decided in `drawing`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from runkon_client.cli.fan_outs import FanOut, count
from runkon_client.cli.lines import Line, Mark
from runkon_client.cli.outline import Part, Shape
from runkon_client.cli.questions import Question, question_of, question_of_child
from runkon_client.values import (
    ChildRunStarted,
    DefinitionWarning,
    FanOutItemCompleted,
    FanOutItemStarted,
    GateResolved,
    GateVoted,
    GateWaiting,
    RunCancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
    RunStatus,
    RunUnblocked,
    RunWaiting,
    StepEvent,
    StepProgress,
    StepRetrying,
    StepStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from runkon_client.values import BlockedOn, Gate, RunEvent, Step

_MARK_OF: Final = {
    StepStatus.PENDING: Mark.AHEAD,
    StepStatus.RUNNING: Mark.RUNNING,
    StepStatus.WAITING: Mark.WAITING,
    StepStatus.COMPLETED: Mark.COMPLETED,
    StepStatus.FAILED: Mark.FAILED,
    StepStatus.SKIPPED: Mark.SKIPPED,
    StepStatus.TIMED_OUT: Mark.TIMED_OUT,
}


_Place = tuple[str, tuple[int, ...]]
"""Definition path and the passes of all enclosing loops."""


@dataclass(slots=True)
class RunTree:
    """One run, as far as its events have been applied."""

    outline: tuple[Part, ...] = ()
    """Without it the steps are lines of one list, in the order in which they began."""
    title: str = ""
    status: RunStatus = RunStatus.PENDING
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    gates: dict[str, Gate] = field(default_factory=dict)
    """The gates that wait for an answer, by id, oldest first."""
    run_id: str = ""
    blocked_on: BlockedOn | None = None
    """What the run waits for, while it does."""
    seq: int = 0
    """Sequence of the newest event applied."""
    _rows: defaultdict[_Place, dict[int, Step]] = field(default_factory=lambda: defaultdict(dict))
    _passes: defaultdict[_Place, set[int]] = field(default_factory=lambda: defaultdict(set))
    """For every block with rows below it, and the passes around the block: the passes of a loop."""
    _lines: list[Line] | None = None
    _progress: dict[str, str] = field(default_factory=dict)
    _retrying: set[str] = field(default_factory=set)
    _votes: dict[str, int] = field(default_factory=dict)
    _fan_outs: defaultdict[str, FanOut] = field(default_factory=lambda: defaultdict(FanOut))
    """By the row of the `foreach`."""
    _children: dict[str, str] = field(default_factory=dict)
    """The child run of a step, by the step's id."""

    def apply(self, event: RunEvent) -> None:
        """Take note of one event. What is not drawn changes nothing but `seq`."""
        self.seq, self.run_id = event.seq, event.run_id
        self._lines = None
        match event:
            case RunStarted():
                self.title, self.started_at = event.display_name, event.at
                self.status = RunStatus.RUNNING
            case RunResumed():
                self.status, self.ended_at, self.error = RunStatus.RUNNING, None, ""
            case RunWaiting():
                self.status, self.blocked_on = RunStatus.WAITING, event.blocked_on
            case RunUnblocked():
                self.status, self.blocked_on = RunStatus.RUNNING, None
            case RunCancelRequested():
                self.status = RunStatus.CANCELLING
            case RunFinished():
                self.status, self.ended_at, self.error = event.status, event.at, event.error
            case DefinitionWarning():
                self.warnings.append(event.diagnostic.message)
            case StepProgress():
                self._progress[event.step_id] = event.progress
            case GateVoted():
                self._votes[event.gate_id] = self._votes.get(event.gate_id, 0) + 1
            case StepEvent():
                self._apply_step(event)
            case FanOutItemStarted():
                self._fan_outs[event.item.step_run_id].start(event.item)
            case FanOutItemCompleted():
                self._fan_outs[event.item.step_run_id].complete(event.item, event.counts)
            case ChildRunStarted() if not event.fan_out_item_id:
                self._children[event.step_id] = event.child_run_id
            case _:
                pass  # child runs have trees of their own; the rest is not drawn

    def _apply_step(self, event: StepEvent) -> None:
        self.put(event.step)
        match event:
            case StepRetrying():
                self._retrying.add(event.step.id)
            case GateWaiting():
                self.gates[event.gate.id] = event.gate
            case GateResolved():
                self.gates.pop(event.gate.id, None)
            case _:
                pass  # the row says it all

    def put(self, step: Step) -> None:
        """Take a step's row as it stands, from an event or a list; an empty row says nothing."""
        if not step.id:
            return
        self._lines = None
        if (step.path, step.iterations) not in self._rows:
            self._enter_blocks(step)
        rows = self._rows[step.path, step.iterations]
        if any(row.epoch < step.epoch for row in rows.values()):
            rows.clear()  # a resume repeats the step: its earlier attempts are replaced
        rows[step.retry_count] = step
        self._retrying -= {row.id for row in rows.values() if row.retry_count < step.retry_count}

    def _enter_blocks(self, step: Step) -> None:
        """Note for all blocks around a step that, and in which passes, they were entered.

        Which of them are loops only the outline knows, so each is noted for every number of loops
        that may be around it.
        """
        iterations = step.iterations
        path, _, _ = step.path.rpartition(".")
        while path:
            for level in range(len(iterations) + 1):
                self._passes[path, iterations[:level]].update(iterations[level : level + 1])
            path, _, _ = path.rpartition(".")

    def question(self) -> Question | None:
        """What the run has waited longest to be told; None if it waits for nobody."""
        if self.status.is_terminal:
            return None
        gate = next(iter(self.gates.values()), None)
        if gate is not None:
            return question_of(gate)
        return question_of_child(self.blocked_on, self.run_id)

    def missing_votes(self, gate_id: str) -> int:
        """How many more people have to approve; 0 for a gate of a child run."""
        gate = self.gates.get(gate_id)
        return 0 if gate is None else max(0, gate.approvers - self._votes.get(gate_id, 0))

    def lines(self) -> Sequence[Line]:
        """The whole tree, top to bottom; made anew only after a change."""
        if self._lines is None:
            self._lines = self._make_lines()
        return self._lines

    def _make_lines(self) -> list[Line]:
        placed: set[_Place] = set()
        found = [line for part in self.outline for line in self._part(part, 0, (), placed)]
        rest = sorted(
            (place for place in self._rows if place not in placed),
            key=lambda place: min(row.position for row in self._rows[place].values()),
        )
        for place in rest:
            found += self._step(place, 0, passes=place[1])
        return _without_what_was_passed(found, over=self.status.is_terminal)

    def _part(
        self, part: Part, depth: int, passes: tuple[int, ...], placed: set[_Place]
    ) -> Iterator[Line]:
        if part.shape is Shape.LEAF:
            yield from self._leaf(part, depth, passes, placed)
            return
        started = (part.path, passes) in self._passes
        mark = Mark.GROUP if started else Mark.AHEAD
        yield Line(depth=depth, mark=mark, label=part.label)
        if part.shape is not Shape.LOOP:
            for child in part.parts:
                yield from self._part(child, depth + 1, passes, placed)
            return
        for number in sorted(self._passes[part.path, passes]) if started else [0]:
            inside = depth + 1
            if started:
                yield Line(depth=inside, mark=Mark.GROUP, label=f"pass {number + 1}")
                inside += 1
            for child in part.parts:
                yield from self._part(child, inside, (*passes, number), placed)

    def _leaf(
        self, part: Part, depth: int, passes: tuple[int, ...], placed: set[_Place]
    ) -> Iterator[Line]:
        place = (part.path, passes)
        if place not in self._rows:
            yield Line(depth=depth, mark=Mark.AHEAD, label=part.label)
            return
        placed.add(place)
        yield from self._step(place, depth)
        on_fail = (f"{part.path}.0", passes)
        if on_fail in self._rows:
            placed.add(on_fail)
            yield from self._step(on_fail, depth + 1)

    def _step(self, place: _Place, depth: int, passes: tuple[int, ...] = ()) -> Iterator[Line]:
        """The line of a step, with one below it for each failed attempt before the newest."""
        *earlier, newest = (row for _, row in sorted(self._rows[place].items()))
        mark = _MARK_OF.get(newest.status, Mark.RUNNING)
        if newest.id in self._retrying:
            mark = Mark.RETRYING
        notes = self._notes(newest)
        if passes:
            notes = (f"pass {'.'.join(str(number + 1) for number in passes)}", *notes)
        yield Line(
            depth=depth,
            mark=mark,
            label=newest.step_name,
            began_at=newest.started_at,
            ended_at=newest.ended_at,
            notes=notes,
            text=newest.step_error or ("" if newest.gate is not None else newest.context),
        )
        if newest.id in self._fan_outs:
            yield from self._fan_outs[newest.id].lines(depth + 1)
        for row in earlier:
            yield Line(
                depth=depth + 1,
                mark=Mark.FAILED,
                label=f"attempt {row.retry_count + 1}",
                began_at=row.started_at,
                ended_at=row.ended_at,
                text=row.step_error,
            )

    def _notes(self, step: Step) -> tuple[str, ...]:
        notes = []
        if step.retry_count:
            notes.append(f"attempt {step.retry_count + 1}")
        notes += [f"[{marker}]" for marker in step.markers]
        if step.condition_met is False:
            notes.append(f"{step.condition_expr} does not hold")
        if step.gate is not None and step.gate.approved_by:
            verb = "approved" if step.status is StepStatus.COMPLETED else "rejected"
            notes.append(f"{verb} by {step.gate.approved_by}")
            notes += [f"selected {key}" for key in step.gate.selections]
            notes += [f"“{text}”" for text in [step.gate.feedback] if text]
        if step.status is StepStatus.RUNNING and step.id in self._progress:
            notes.append(self._progress[step.id])
        counts = step.fan_out
        if step.id in self._fan_outs and step.status is StepStatus.RUNNING:
            counts = self._fan_outs[step.id].counts or counts
        if counts is not None:
            notes.append(count(counts))
        child = step.child_run_id or self._children.get(step.id, "")
        if child:
            notes.append(f"run {child}")
        return tuple(notes)


def _without_what_was_passed(lines: Sequence[Line], *, over: bool) -> list[Line]:
    """Tell what is still ahead from what the run went past.

    A branch or loop it went past is one line, a step none; when the run is over nothing is ahead.
    """
    reached = [at for at, line in enumerate(lines) if line.mark not in (Mark.AHEAD, Mark.GROUP)]
    last = reached[-1] if reached else -1
    kept: list[Line] = []
    around: list[Line] = []  # the blocks that the line stands in, outermost first
    for at, line in enumerate(lines):
        while around and around[-1].depth >= line.depth:
            around.pop()
        if line.mark is not Mark.AHEAD or (at > last and not over):
            kept.append(line)
        elif at < last and _is_outermost_block(line, around, lines[at + 1]):
            kept.append(replace(line, mark=Mark.NOT_TAKEN, notes=("not taken",)))
        around.append(line)
    return kept


def _is_outermost_block(line: Line, around: Sequence[Line], after: Line) -> bool:
    """Whether the line heads a block, and stands in none that was not taken as a whole."""
    return after.depth > line.depth and not (around and around[-1].mark is Mark.AHEAD)

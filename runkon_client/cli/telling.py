"""Events in words, one line each: what `--watch` prints where nothing can be drawn."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_client.values import (
    AlwaysStarted,
    ChildRunFinished,
    ChildRunStarted,
    DefinitionWarning,
    FanOutItemCompleted,
    FanOutItemsCollected,
    FanOutItemStarted,
    GateResolved,
    GateState,
    GateVoted,
    GateWaiting,
    MetricsUpdated,
    RunCancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
    RunUnblocked,
    RunWaiting,
    StepCompleted,
    StepFailed,
    StepProgress,
    StepRetrying,
    StepRole,
    StepSkipped,
    StepStarted,
    StepTimedOut,
    UnknownEvent,
)

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from runkon_client.values import Gate, RunEvent, Step


_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_WITH_TENTHS_S: Final = 10
# Escape sequences in what workers and people wrote could take over the reader's terminal, and marks
# that turn the direction of a text could show another one than was written.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text, line breaks and tabs included, with all other control characters made visible."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def span(length: timedelta) -> str:
    """A length of time in at most two units: `0.4 s`, `1 min 3 s`, `2 h 5 min`."""
    seconds = max(0.0, length.total_seconds())
    if seconds < _WITH_TENTHS_S:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"


def between(began_at: datetime | None, ended_at: datetime | None) -> str:
    """The span from one instant to another; empty if one of them is not there yet."""
    return "" if began_at is None or ended_at is None else span(ended_at - began_at)


def last_line(text: str) -> str:
    """The last line that says something: of a traceback or a test report, the verdict."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def tell(event: RunEvent) -> str | None:
    """One line, without the time; None for what is of no interest to a person."""
    line = _tell(event)
    return None if line is None else printable(line)


def _tell(event: RunEvent) -> str | None:
    if isinstance(event, StepCompleted | StepFailed) and event.step.role is StepRole.GATE:
        return None  # the gate's own event says who decided what
    match event:
        case RunStarted():
            return f"run {event.run_id} of {event.display_name} started by {event.started_by}"
        case RunResumed():
            return f"run resumed by {event.resumed_by}, epoch {event.epoch}"
        case RunWaiting() if event.blocked_on and event.blocked_on.run_id != event.run_id:
            return f"child run {event.blocked_on.run_id} waits at a gate"
        case RunWaiting() | RunUnblocked() | MetricsUpdated() | UnknownEvent():
            return None  # the gate's own events say more
        case RunCancelRequested():
            return f"cancel asked for by {event.requested_by}" + _because(event.reason)
        case RunFinished():
            return f"run {event.status}" + _because(event.error)
        case AlwaysStarted():
            return f"the body {event.workflow_status}; always:"
        case DefinitionWarning():
            return f"warning: {event.diagnostic.message}"
        case GateVoted():
            return f"gate {event.gate_name}: {event.vote.principal} votes {event.vote.decision}"
        case GateWaiting():
            return f"gate {event.gate.name} waits{_pass(event.step)}" + _because(event.gate.prompt)
        case GateResolved():
            return f"gate {event.gate.name} {_verdict(event.gate)}"
        case ChildRunStarted():
            return f"child run {event.child_run_id} of {event.workflow_name} started"
        case ChildRunFinished():
            return f"child run {event.child_run_id} {event.status}" + _because(event.error)
        case FanOutItemStarted() | FanOutItemCompleted():
            item = event.item
            return f"item {item.item_ref or item.item_id} {item.status}" + _because(item.error)
        case _:
            return _tell_step(event)


def _tell_step(
    event: StepStarted
    | StepRetrying
    | StepCompleted
    | StepFailed
    | StepSkipped
    | StepTimedOut
    | StepProgress
    | FanOutItemsCollected,
) -> str:
    if isinstance(event, StepProgress):
        return f"{event.step_name or event.step_id}: {event.progress}"
    step = event.step
    name = f"{step.step_name}{_pass(step)}"
    took = between(step.started_at, step.ended_at)
    after = f" after {took}" if took else ""
    match event:
        case StepStarted():
            attempt = f", attempt {step.retry_count + 1}" if step.retry_count else ""
            return f"{name} started{attempt}"
        case StepRetrying():
            when = f"in {span(event.delay)}" if event.delay else "at once"
            return f"{name} will be tried again {when}"
        case StepCompleted():
            markers = "".join(f" [{marker}]" for marker in step.markers)
            return f"{name} completed{after}{markers}" + _because(first_line(step.context))
        case StepFailed():
            return f"{name} failed{after}" + _because(last_line(step.step_error))
        case StepSkipped():
            condition = f"{step.condition_expr} does not hold" if step.condition_expr else ""
            return f"{name} skipped" + _because(condition)
        case StepTimedOut():
            return f"{name} timed out{after}"
        case FanOutItemsCollected():
            return f"{name} has {event.count} items"


def _pass(step: Step) -> str:
    if not any(step.iterations):
        return ""
    return f" (pass {'.'.join(str(number + 1) for number in step.iterations)})"


def _because(text: str) -> str:
    line = first_line(text)
    return f": {line}" if line else ""


def _verdict(gate: Gate) -> str:
    words = [gate.state.replace("_", " ")]
    if gate.state in (GateState.APPROVED, GateState.REJECTED):
        words.append(f"by {gate.resolved_by}")
    if gate.selections:
        words.append(f"with {', '.join(gate.selections)}")
    if gate.feedback:
        words.append(f"“{first_line(gate.feedback)}”")
    return " ".join(words)

"""Events of the log to messages. The payload's keys are those of `core.events`."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runkon.v1 import events_pb2, types_pb2
from runkon_server.api.render.gates import render_gate, render_vote
from runkon_server.api.render.runs import render_blocked_on, run_status
from runkon_server.api.render.steps import render_step
from runkon_server.api.render.values import duration, metrics, timestamp
from runkon_server.store.rows import GateRow, StepRow, VoteRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runkon_server.api.recent import StoredEvent

    Payload = dict[str, Any]

__all__ = ["render_event"]

_STEP_COLUMNS: Final = frozenset(each.name for each in fields(StepRow))
_GATE_COLUMNS: Final = frozenset(each.name for each in fields(GateRow))
_VOTE_COLUMNS: Final = frozenset(each.name for each in fields(VoteRow))
_RESUME_MODES: Final[dict[str, events_pb2.ResumeMode.ValueType]] = {
    name.removeprefix("RESUME_MODE_").lower(): number
    for name, number in events_pb2.ResumeMode.items()
}
_ENDED: Final = frozenset({"completed", "failed", "skipped", "timed_out"})


def render_event(event: StoredEvent) -> events_pb2.RunEvent:
    """The event as callers see it. One of a kind that this server does not know has no payload."""
    message = events_pb2.RunEvent(
        seq=event.seq,
        run_id=event.run_id,
        time=timestamp(event.at),
        generation=event.generation,
        epoch=event.epoch,
    )
    render = _RENDERERS.get(event.kind)
    if render is not None:
        payload: Payload = json.loads(event.payload)
        getattr(message, event.kind).CopyFrom(render(payload, event))
    return message


def _run_started(payload: Payload, _event: StoredEvent) -> events_pb2.RunStarted:
    return events_pb2.RunStarted(
        workflow_name=payload.get("workflow_name", ""),
        workflow_version=payload.get("workflow_version") or 0,
        display_name=payload.get("display_name", ""),
        dry_run=payload.get("dry_run", False),
        trigger=payload.get("trigger") or "",
        started_by=payload.get("started_by") or "",
    )


def _run_resumed(payload: Payload, _event: StoredEvent) -> events_pb2.RunResumed:
    return events_pb2.RunResumed(
        workflow_name=payload.get("workflow_name", ""),
        mode=_RESUME_MODES.get(payload.get("mode", ""), events_pb2.RESUME_MODE_UNSPECIFIED),
        from_step_id=payload.get("from_step_id") or "",
        resumed_by=payload.get("resumed_by") or "",
    )


def _run_waiting(payload: Payload, event: StoredEvent) -> events_pb2.RunWaiting:
    return events_pb2.RunWaiting(blocked_on=render_blocked_on(payload["blocked_on"], event.run_id))


def _run_unblocked(_payload: Payload, _event: StoredEvent) -> events_pb2.RunUnblocked:
    return events_pb2.RunUnblocked()


def _run_cancel_requested(payload: Payload, _event: StoredEvent) -> events_pb2.RunCancelRequested:
    return events_pb2.RunCancelRequested(
        reason=payload.get("reason") or "",
        force=payload.get("force", False),
        requested_by=payload.get("requested_by") or "",
    )


def _run_finished(payload: Payload, _event: StoredEvent) -> events_pb2.RunFinished:
    return events_pb2.RunFinished(
        status=run_status(payload.get("status", "")),
        error=payload.get("error") or "",
        result_summary=payload.get("result_summary") or "",
        truncated=payload.get("truncated", False),
    )


def _of_step(kind: type[Any]) -> Callable[[Payload, StoredEvent], Any]:
    """A renderer of the kinds that hold a step and nothing else."""

    def render(payload: Payload, event: StoredEvent) -> Any:  # noqa: ANN401 - a message of `kind`
        return kind(step=_step(payload, event), truncated=payload.get("truncated", False))

    return render


def _step_retrying(payload: Payload, event: StoredEvent) -> events_pb2.StepRetrying:
    return events_pb2.StepRetrying(
        step=_step(payload, event),
        truncated=payload.get("truncated", False),
        attempt=payload.get("attempt", 0),
        delay=duration(timedelta(seconds=payload.get("delay_s") or 0)),
    )


def _step_progress(payload: Payload, _event: StoredEvent) -> events_pb2.StepProgress:
    return events_pb2.StepProgress(
        step_id=payload.get("step_id", ""),
        step_name=payload.get("step_name", ""),
        iteration=payload.get("iteration", 0),
        progress=payload.get("progress") or "",
    )


def _gate_waiting(payload: Payload, event: StoredEvent) -> events_pb2.GateWaiting:
    gate = _gate(payload["gate"], event)
    opened = replace(gate, opened_at=event.at, deadline_at=_deadline(payload["gate"], event.at))
    return events_pb2.GateWaiting(
        gate=render_gate(opened),
        step=_step(payload, event),
        truncated=payload.get("truncated", False),
    )


def _gate_voted(payload: Payload, event: StoredEvent) -> events_pb2.GateVoted:
    columns = {name: value for name, value in payload["vote"].items() if name in _VOTE_COLUMNS}
    return events_pb2.GateVoted(
        gate_id=payload.get("gate_id", ""),
        gate_name=payload.get("gate_name", ""),
        vote=render_vote(VoteRow(**columns | {"at": event.at})),
        truncated=payload.get("truncated", False),
    )


def _gate_resolved(payload: Payload, event: StoredEvent) -> events_pb2.GateResolved:
    return events_pb2.GateResolved(
        gate=render_gate(replace(_gate(payload["gate"], event), resolved_at=event.at)),
        step=_step(payload, event),
        truncated=payload.get("truncated", False),
    )


def _metrics_updated(payload: Payload, _event: StoredEvent) -> events_pb2.MetricsUpdated:
    return events_pb2.MetricsUpdated(metrics=metrics(payload.get("metrics")))


def _definition_warning(payload: Payload, _event: StoredEvent) -> events_pb2.DefinitionWarning:
    found: Mapping[str, Any] = payload["diagnostic"]
    diagnostic = types_pb2.Diagnostic(
        severity=types_pb2.SEVERITY_WARNING,
        **{name: found[name] for name in ("code", "message", "hint", "excerpt") if found.get(name)},
        **{name: found[name] for name in _PLACE if found.get(name)},
    )
    return events_pb2.DefinitionWarning(diagnostic=diagnostic)


_PLACE: Final = ("line", "column", "end_line", "end_column", "length")


def _always_started(payload: Payload, _event: StoredEvent) -> events_pb2.AlwaysStarted:
    return events_pb2.AlwaysStarted(workflow_status=run_status(payload.get("workflow_status", "")))


def _step(payload: Payload, event: StoredEvent) -> types_pb2.Step | None:
    """The step of an event; None if it names none. It ends when its event happens."""
    values = payload.get("step")
    if values is None:
        return None
    columns = {name: value for name, value in values.items() if name in _STEP_COLUMNS}
    columns["workflow_run_id"] = event.run_id
    began = columns.get("started_at")
    if began is not None:
        columns["started_at"] = datetime.fromisoformat(began)
    elif columns.get("status") in ("running", "waiting"):
        columns["started_at"] = event.at
    if columns.get("status") in _ENDED:
        columns["ended_at"] = event.at
        if columns.get("gate_approved_by") is not None:
            columns["gate_approved_at"] = event.at
    return render_step(StepRow(**columns))


def _gate(values: Payload, event: StoredEvent) -> GateRow:
    columns = {name: value for name, value in values.items() if name in _GATE_COLUMNS}
    return GateRow(**{"run_id": event.run_id, "namespace": "", **columns})


def _deadline(values: Payload, opened_at: datetime) -> datetime | None:
    timeout_s = values.get("timeout_s")
    return None if timeout_s is None else opened_at + timedelta(seconds=timeout_s)


_RENDERERS: Final[Mapping[str, Callable[[Payload, StoredEvent], Any]]] = MappingProxyType(
    {
        "run_started": _run_started,
        "run_resumed": _run_resumed,
        "run_waiting": _run_waiting,
        "run_unblocked": _run_unblocked,
        "run_cancel_requested": _run_cancel_requested,
        "run_finished": _run_finished,
        "step_started": _of_step(events_pb2.StepStarted),
        "step_retrying": _step_retrying,
        "step_completed": _of_step(events_pb2.StepCompleted),
        "step_failed": _of_step(events_pb2.StepFailed),
        "step_skipped": _of_step(events_pb2.StepSkipped),
        "step_timed_out": _of_step(events_pb2.StepTimedOut),
        "step_progress": _step_progress,
        "gate_waiting": _gate_waiting,
        "gate_voted": _gate_voted,
        "gate_resolved": _gate_resolved,
        "metrics_updated": _metrics_updated,
        "definition_warning": _definition_warning,
        "always_started": _always_started,
    }
)

"""Protobuf → events: one builder per payload of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from runkon.v1 import events_pb2
from runkon_client import values
from runkon_client.decode import (
    by_number,
    decode_blocked_on,
    decode_diagnostic,
    decode_fan_out_counts,
    decode_fan_out_item,
    decode_gate,
    decode_instant,
    decode_metrics,
    decode_run_status,
    decode_span,
    decode_step,
    decode_vote,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime


class _Header(TypedDict):
    seq: int
    run_id: str
    at: datetime
    generation: int
    epoch: int


_RESUME_MODE: Final = by_number(events_pb2.DESCRIPTOR, values.ResumeMode)


def decode_event(message: events_pb2.RunEvent) -> values.RunEvent:
    """The event; an `UnknownEvent` if its payload is that of a newer server."""
    header: _Header = {
        "seq": message.seq,
        "run_id": message.run_id,
        "at": decode_instant(message.time),
        "generation": message.generation,
        "epoch": message.epoch,
    }
    payload = message.WhichOneof("payload")
    build = _BUILDERS.get(payload) if payload is not None else None
    return values.UnknownEvent(**header) if build is None else build(message, header)


def _run_started(message: events_pb2.RunEvent, header: _Header) -> values.RunStarted:
    payload = message.run_started
    return values.RunStarted(
        **header,
        workflow_name=payload.workflow_name,
        workflow_version=payload.workflow_version,
        display_name=payload.display_name,
        dry_run=payload.dry_run,
        trigger=payload.trigger,
        started_by=payload.started_by,
    )


def _run_resumed(message: events_pb2.RunEvent, header: _Header) -> values.RunResumed:
    payload = message.run_resumed
    return values.RunResumed(
        **header,
        workflow_name=payload.workflow_name,
        mode=_RESUME_MODE.get(payload.mode, values.ResumeMode.UNKNOWN),
        from_step_id=payload.from_step_id,
        resumed_by=payload.resumed_by,
    )


def _run_waiting(message: events_pb2.RunEvent, header: _Header) -> values.RunWaiting:
    payload = message.run_waiting
    blocked_on = decode_blocked_on(payload.blocked_on) if payload.HasField("blocked_on") else None
    return values.RunWaiting(**header, blocked_on=blocked_on)


def _run_unblocked(_message: events_pb2.RunEvent, header: _Header) -> values.RunUnblocked:
    return values.RunUnblocked(**header)


def _run_cancel_requested(
    message: events_pb2.RunEvent, header: _Header
) -> values.RunCancelRequested:
    payload = message.run_cancel_requested
    return values.RunCancelRequested(
        **header, reason=payload.reason, force=payload.force, requested_by=payload.requested_by
    )


def _run_finished(message: events_pb2.RunEvent, header: _Header) -> values.RunFinished:
    payload = message.run_finished
    return values.RunFinished(
        **header,
        status=decode_run_status(payload.status),
        error=payload.error,
        result_summary=payload.result_summary,
        truncated=payload.truncated,
    )


def _step_started(message: events_pb2.RunEvent, header: _Header) -> values.StepStarted:
    payload = message.step_started
    return values.StepStarted(**header, step=decode_step(payload.step), truncated=payload.truncated)


def _step_retrying(message: events_pb2.RunEvent, header: _Header) -> values.StepRetrying:
    payload = message.step_retrying
    return values.StepRetrying(
        **header,
        step=decode_step(payload.step),
        truncated=payload.truncated,
        attempt=payload.attempt,
        delay=decode_span(payload.delay),
    )


def _step_completed(message: events_pb2.RunEvent, header: _Header) -> values.StepCompleted:
    payload = message.step_completed
    return values.StepCompleted(
        **header, step=decode_step(payload.step), truncated=payload.truncated
    )


def _step_failed(message: events_pb2.RunEvent, header: _Header) -> values.StepFailed:
    payload = message.step_failed
    return values.StepFailed(**header, step=decode_step(payload.step), truncated=payload.truncated)


def _step_skipped(message: events_pb2.RunEvent, header: _Header) -> values.StepSkipped:
    payload = message.step_skipped
    return values.StepSkipped(**header, step=decode_step(payload.step), truncated=payload.truncated)


def _step_timed_out(message: events_pb2.RunEvent, header: _Header) -> values.StepTimedOut:
    payload = message.step_timed_out
    return values.StepTimedOut(
        **header, step=decode_step(payload.step), truncated=payload.truncated
    )


def _step_progress(message: events_pb2.RunEvent, header: _Header) -> values.StepProgress:
    payload = message.step_progress
    return values.StepProgress(
        **header,
        step_id=payload.step_id,
        step_name=payload.step_name,
        iteration=payload.iteration,
        progress=payload.progress,
    )


def _gate_waiting(message: events_pb2.RunEvent, header: _Header) -> values.GateWaiting:
    payload = message.gate_waiting
    return values.GateWaiting(
        **header,
        gate=decode_gate(payload.gate),
        step=decode_step(payload.step),
        truncated=payload.truncated,
    )


def _gate_voted(message: events_pb2.RunEvent, header: _Header) -> values.GateVoted:
    payload = message.gate_voted
    return values.GateVoted(
        **header,
        gate_id=payload.gate_id,
        gate_name=payload.gate_name,
        vote=decode_vote(payload.vote),
        truncated=payload.truncated,
    )


def _gate_resolved(message: events_pb2.RunEvent, header: _Header) -> values.GateResolved:
    payload = message.gate_resolved
    return values.GateResolved(
        **header,
        gate=decode_gate(payload.gate),
        step=decode_step(payload.step),
        truncated=payload.truncated,
    )


def _items_collected(message: events_pb2.RunEvent, header: _Header) -> values.FanOutItemsCollected:
    payload = message.fan_out_items_collected
    return values.FanOutItemsCollected(
        **header,
        step=decode_step(payload.step),
        truncated=payload.truncated,
        count=payload.count,
    )


def _item_started(message: events_pb2.RunEvent, header: _Header) -> values.FanOutItemStarted:
    payload = message.fan_out_item_started
    return values.FanOutItemStarted(
        **header, item=decode_fan_out_item(payload.item), truncated=payload.truncated
    )


def _item_completed(message: events_pb2.RunEvent, header: _Header) -> values.FanOutItemCompleted:
    payload = message.fan_out_item_completed
    return values.FanOutItemCompleted(
        **header,
        item=decode_fan_out_item(payload.item),
        truncated=payload.truncated,
        counts=decode_fan_out_counts(payload.counts),
    )


def _child_run_started(message: events_pb2.RunEvent, header: _Header) -> values.ChildRunStarted:
    payload = message.child_run_started
    return values.ChildRunStarted(
        **header,
        step_id=payload.step_id,
        child_run_id=payload.child_run_id,
        workflow_name=payload.workflow_name,
        fan_out_item_id=payload.fan_out_item_id,
    )


def _child_run_finished(message: events_pb2.RunEvent, header: _Header) -> values.ChildRunFinished:
    payload = message.child_run_finished
    return values.ChildRunFinished(
        **header,
        step_id=payload.step_id,
        child_run_id=payload.child_run_id,
        status=decode_run_status(payload.status),
        error=payload.error,
        fan_out_item_id=payload.fan_out_item_id,
    )


def _metrics_updated(message: events_pb2.RunEvent, header: _Header) -> values.MetricsUpdated:
    return values.MetricsUpdated(**header, metrics=decode_metrics(message.metrics_updated.metrics))


def _definition_warning(message: events_pb2.RunEvent, header: _Header) -> values.DefinitionWarning:
    diagnostic = decode_diagnostic(message.definition_warning.diagnostic)
    return values.DefinitionWarning(**header, diagnostic=diagnostic)


def _always_started(message: events_pb2.RunEvent, header: _Header) -> values.AlwaysStarted:
    status = decode_run_status(message.always_started.workflow_status)
    return values.AlwaysStarted(**header, workflow_status=status)


_BUILDERS: Final[Mapping[str, Callable[[events_pb2.RunEvent, _Header], values.RunEvent]]] = {
    "run_started": _run_started,
    "run_resumed": _run_resumed,
    "run_waiting": _run_waiting,
    "run_unblocked": _run_unblocked,
    "run_cancel_requested": _run_cancel_requested,
    "run_finished": _run_finished,
    "step_started": _step_started,
    "step_retrying": _step_retrying,
    "step_completed": _step_completed,
    "step_failed": _step_failed,
    "step_skipped": _step_skipped,
    "step_timed_out": _step_timed_out,
    "step_progress": _step_progress,
    "gate_waiting": _gate_waiting,
    "gate_voted": _gate_voted,
    "gate_resolved": _gate_resolved,
    "fan_out_items_collected": _items_collected,
    "fan_out_item_started": _item_started,
    "fan_out_item_completed": _item_completed,
    "child_run_started": _child_run_started,
    "child_run_finished": _child_run_finished,
    "metrics_updated": _metrics_updated,
    "definition_warning": _definition_warning,
    "always_started": _always_started,
}

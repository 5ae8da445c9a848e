"""What workers are told: tasks, cancels and acknowledgements as messages."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from runkon.v1 import workers_pb2
from runkon_server.api.status import error_status
from runkon_server.runtime.commands import AckStatus

if TYPE_CHECKING:
    from datetime import timedelta

    from runkon_server import errors
    from runkon_server.runtime.commands import ReportAck, TaskCancel, TaskLease

__all__ = [
    "cancel_reason",
    "duration_of",
    "render_ack",
    "render_cancel",
    "render_lease",
    "render_refusal",
]


_REASONS: Final = {
    "run_cancelled": workers_pb2.CANCEL_REASON_RUN_CANCELLED,
    "timeout": workers_pb2.CANCEL_REASON_TIMEOUT,
    "fail_fast": workers_pb2.CANCEL_REASON_FAIL_FAST,
    "lease_lost": workers_pb2.CANCEL_REASON_LEASE_LOST,
}
_ACKS: Final = {
    AckStatus.ACCEPTED: workers_pb2.ACK_STATUS_ACCEPTED,
    AckStatus.DUPLICATE: workers_pb2.ACK_STATUS_DUPLICATE,
    AckStatus.STALE: workers_pb2.ACK_STATUS_STALE,
    AckStatus.REFUSED: workers_pb2.ACK_STATUS_REFUSED,
}


def render_lease(lease: TaskLease) -> workers_pb2.TaskLease:
    """One task for a worker."""
    generation, _, _ = lease.fence.partition(".")
    message = workers_pb2.TaskLease(
        task_id=lease.task_id,
        token=lease.token,
        kind=workers_pb2.TASK_KIND_ACTION,
        action=lease.action,
        namespace=lease.namespace,
        run_id=lease.run_id,
        workflow_name=lease.workflow_name,
        step_id=lease.step_id,
        step_name=lease.step_name,
        iteration=lease.iteration,
        attempt=lease.attempt,
        delivery=lease.delivery,
        idempotency_key=lease.idempotency_key,
        fence=int(generation),
        dry_run=lease.dry_run,
        iterations=lease.iterations,
        inputs=lease.inputs,
        retries_remaining=lease.retries_remaining,
        lease_duration=duration_of(lease.lease),
    )
    if lease.prior_contexts is None:
        message.prior_contexts_omitted = True
    else:
        message.prior_contexts = lease.prior_contexts
    if lease.retry_error:
        message.retry_error = lease.retry_error
    if lease.gate_feedback is not None:
        message.gate_feedback = lease.gate_feedback
    if lease.identity:
        message.identity = lease.identity
    if lease.max_turns is not None:
        message.max_turns = lease.max_turns
    if lease.plugin_dirs:
        message.plugin_dirs.extend(lease.plugin_dirs)
    if lease.deadline_at is not None:
        message.deadline_time.FromDatetime(lease.deadline_at)
    return message


@lru_cache(maxsize=16)
def duration_of(span: timedelta) -> Duration:
    """The span as a message; shared, so nobody may change it."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def render_cancel(cancel: TaskCancel) -> workers_pb2.TaskCancel:
    """Word that a task is no longer wanted."""
    return workers_pb2.TaskCancel(
        task_id=cancel.task_id, token=cancel.token, reason=cancel_reason(cancel.reason)
    )


def cancel_reason(reason: str) -> workers_pb2.CancelReason.ValueType:
    """Why, in the contract; unspecified for a reason that it does not know."""
    return _REASONS.get(reason, workers_pb2.CANCEL_REASON_UNSPECIFIED)


def render_ack(ack: ReportAck) -> workers_pb2.TaskAck:
    """The answer to one report of a frame."""
    message = workers_pb2.TaskAck(
        task_id=ack.task_id, token=ack.token, status=_ACKS[ack.verdict.status]
    )
    if ack.verdict.error is not None:
        message.error.CopyFrom(error_status(ack.verdict.error))
    return message


def render_refusal(
    report: workers_pb2.TaskReport, error: errors.RunkonError
) -> workers_pb2.TaskAck:
    """The answer to a report that cannot be one."""
    return workers_pb2.TaskAck(
        task_id=report.task_id,
        token=report.token,
        status=workers_pb2.ACK_STATUS_REFUSED,
        error=error_status(error),
    )

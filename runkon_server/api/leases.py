"""What workers are told: tasks, cancels and acknowledgements as messages."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration

from runkon.v1 import workers_pb2
from runkon_server.api.render.gates import approval_mode
from runkon_server.api.render.values import options
from runkon_server.api.status import error_status
from runkon_server.core.decision import GateWork, ItemsWork, ScriptWork
from runkon_server.runtime.commands import AckStatus

if TYPE_CHECKING:
    from runkon_server import errors
    from runkon_server.core.decision import TaskKind
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
    "gate_closed": workers_pb2.CANCEL_REASON_GATE_CLOSED,
}
_KINDS: Final[dict[TaskKind, workers_pb2.TaskKind.ValueType]] = {
    "action": workers_pb2.TASK_KIND_ACTION,
    "script": workers_pb2.TASK_KIND_SCRIPT,
    "items": workers_pb2.TASK_KIND_ITEMS,
    "gate": workers_pb2.TASK_KIND_GATE,
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
        kind=_KINDS[lease.kind],
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
    for name, text in lease.snippets:
        message.snippets.add(name=name, text=text)
    if lease.output_schema is not None:
        message.output_schema.name, message.output_schema.source = lease.output_schema
    if lease.work is not None:
        _add_work(message, lease.work)
    return message


def _add_work(message: workers_pb2.TaskLease, work: ScriptWork | ItemsWork | GateWork) -> None:
    match work:
        case ScriptWork():
            script = message.script
            script.text = work.text
            script.environment.update(work.environment)
            if work.timeout_s is not None:
                script.timeout.CopyFrom(duration_of(timedelta(seconds=work.timeout_s)))
        case ItemsWork():
            message.items.CopyFrom(
                workers_pb2.ItemsWork(
                    provider=work.provider,
                    has_scope=work.scope is not None,
                    scope=work.scope,
                    filter=work.filter,
                    ordered=work.ordered,
                    items_max=work.items_max,
                )
            )
        case GateWork():
            message.gate_poll.CopyFrom(
                workers_pb2.GatePoll(
                    gate_id=work.gate_id,
                    gate_name=work.name,
                    gate_type=work.gate_type,
                    prompt=work.prompt or "",
                    options=options(work.options),
                    min_approvals=work.min_approvals,
                    approval_mode=approval_mode(work.approval_mode),
                )
            )


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

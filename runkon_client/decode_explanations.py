"""Protobuf → plain values: explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon.v1 import explanations_pb2
from runkon_client import values
from runkon_client.decode import (
    by_number,
    decode_gate,
    decode_instant,
    decode_run_status,
    decode_step_summary,
)
from runkon_client.decode_admin import decode_limit

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from runkon_client.values.explanations import Details

_KIND: Final = by_number(explanations_pb2.DESCRIPTOR, values.BlockerKind)


def decode_explanation(message: explanations_pb2.Explanation) -> values.Explanation:
    """An explanation with those inside it."""
    has_step = message.HasField("current_step")
    return values.Explanation(
        run_id=message.run_id,
        workflow_name=message.workflow_name,
        status=decode_run_status(message.status),
        current_step=decode_step_summary(message.current_step) if has_step else None,
        headline=message.headline,
        blockers=tuple(map(_blocker, message.blockers)),
        blockers_left_out=message.blockers_left_out,
        at=_instant(message.time, is_set=message.HasField("time")),
    )


def _blocker(message: explanations_pb2.Blocker) -> values.Blocker:
    return values.Blocker(
        kind=_KIND.get(message.kind, values.BlockerKind.UNKNOWN),
        text=message.text,
        remedy=message.remedy,
        needs_action=message.needs_action,
        step_id=message.step_id,
        step_name=message.step_name,
        since=_instant(message.since_time, is_set=message.HasField("since_time")),
        until=_instant(message.until_time, is_set=message.HasField("until_time")),
        details=_details(message),
    )


def _details(message: explanations_pb2.Blocker) -> Details:
    match message.WhichOneof("details"):
        case "gate":
            return decode_gate(message.gate)
        case "child":
            return decode_explanation(message.child)
        case "task":
            return _task(message.task)
        case "owner":
            owner = message.owner
            return values.BlockingOwner(
                replica=owner.replica,
                is_alive=owner.alive,
                lease_ends_at=_instant(
                    owner.lease_end_time, is_set=owner.HasField("lease_end_time")
                ),
            )
        case _:
            return None


def _task(task: explanations_pb2.BlockingTask) -> values.BlockingTask:
    return values.BlockingTask(
        task_id=task.task_id,
        action=task.action,
        attempt=task.attempt,
        delivery=task.delivery,
        queue_position=task.queue_position,
        workers=task.workers,
        last_worker_at=_instant(task.last_worker_time, is_set=task.HasField("last_worker_time")),
        worker_id=task.worker_id,
        queue=task.queue,
        limit=decode_limit(task.limit) if task.HasField("limit") else None,
        earliest_at=_instant(task.earliest_time, is_set=task.HasField("earliest_time")),
    )


def _instant(message: Timestamp, *, is_set: bool) -> datetime | None:
    return decode_instant(message) if is_set else None

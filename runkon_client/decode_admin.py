"""Protobuf → plain values: what operators look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_client import values
from runkon_client.decode import decode_instant, decode_span

if TYPE_CHECKING:
    from runkon.v1 import admin_pb2


def decode_limit(message: admin_pb2.ActionLimit) -> values.ActionLimit:
    """A limited action."""
    has_next = message.HasField("next_task_time")
    return values.ActionLimit(
        namespace=message.namespace,
        action=message.action,
        concurrency=message.concurrency if message.HasField("concurrency") else None,
        rate_per_s=message.rate_per_second if message.HasField("rate_per_second") else None,
        running=message.running,
        queued=message.queued,
        next_task_at=decode_instant(message.next_task_time) if has_next else None,
    )


def decode_replica(message: admin_pb2.Replica) -> values.Replica:
    """A replica."""
    return values.Replica(
        id=message.id,
        version=message.version,
        started_at=decode_instant(message.start_time),
        last_seen_at=decode_instant(message.last_seen_time),
        is_live=message.live,
        is_draining=message.draining,
        runs_owned=message.runs_owned,
        workers=message.workers,
    )


def decode_retention(message: admin_pb2.Retention) -> values.Retention:
    """How long runs are kept."""
    return values.Retention(
        namespace=message.namespace,
        keep_for=decode_span(message.keep_for) if message.HasField("keep_for") else None,
        is_inherited=message.inherited,
    )

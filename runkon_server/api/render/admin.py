"""What operators look at: limits of actions, replicas, retention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon.v1 import admin_pb2
from runkon_server.api.render.values import duration, timestamp

if TYPE_CHECKING:
    from runkon_server.core.standstill import LimitInUse
    from runkon_server.store.replicas import ReplicaRow
    from runkon_server.store.retention import Retention


def render_limit(namespace: str, usage: LimitInUse) -> admin_pb2.ActionLimit:
    """A limited action of a namespace."""
    return admin_pb2.ActionLimit(
        namespace=namespace,
        action=usage.action,
        concurrency=usage.concurrency,
        rate_per_second=usage.per_s,
        running=usage.running,
        queued=usage.queued,
        next_task_time=timestamp(usage.next_at),
    )


def render_replica(row: ReplicaRow) -> admin_pb2.Replica:
    """A replica."""
    return admin_pb2.Replica(
        id=row.replica,
        version=row.version,
        start_time=timestamp(row.started_at),
        last_seen_time=timestamp(row.seen_at),
        live=row.is_live,
        draining=row.is_draining,
        runs_owned=row.runs,
        workers=row.workers,
    )


def render_retention(namespace: str, retention: Retention) -> admin_pb2.Retention:
    """What holds for a namespace, or for all where its name is empty."""
    keep_for = retention.of(namespace)
    return admin_pb2.Retention(
        namespace=namespace,
        keep_for=None if keep_for is None else duration(keep_for),
        inherited=namespace not in retention.policies,
    )

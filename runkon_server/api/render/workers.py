"""Workers that are connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon.v1 import workers_pb2
from runkon_server.api.render.values import timestamp
from runkon_server.store.queues import display_queue

if TYPE_CHECKING:
    from runkon_server.store.rows import WorkerRow


def render_worker(row: WorkerRow) -> workers_pb2.ConnectedWorker:
    """A worker, as its replica told of it."""
    return workers_pb2.ConnectedWorker(
        namespace=row.namespace,
        worker_id=row.worker_id,
        client=row.client,
        queues=sorted(map(display_queue, row.queues)),
        actions=row.actions,
        item_providers=row.item_providers,
        gate_types=row.gate_types,
        scripts=row.scripts,
        concurrency=row.concurrency,
        polls=row.polls,
        connect_time=timestamp(row.connected_at),
        last_seen_time=timestamp(row.seen_at),
        replica=row.replica,
    )

"""Calls of WorkerService that are not a worker's own."""

from __future__ import annotations

from runkon.v1 import workers_pb2
from runkon_client import values
from runkon_client.calls.call import Call, Page, reader
from runkon_client.decode import decode_instant


def list_workers(
    namespace: str, *, page_size: int, token: str
) -> Call[Page[values.ConnectedWorker]]:
    """ListWorkers."""
    return Call(
        "/runkon.v1.WorkerService/ListWorkers",
        workers_pb2.ListWorkersRequest(namespace=namespace, page_size=page_size, page_token=token),
        reader(
            workers_pb2.ListWorkersResponse,
            lambda answer: Page(tuple(map(_worker, answer.workers)), answer.next_page_token),
        ),
    )


def _worker(message: workers_pb2.ConnectedWorker) -> values.ConnectedWorker:
    return values.ConnectedWorker(
        namespace=message.namespace,
        id=message.worker_id,
        client=message.client,
        queues=tuple(message.queues),
        actions=tuple(message.actions),
        item_providers=tuple(message.item_providers),
        gate_types=tuple(message.gate_types),
        scripts=message.scripts,
        concurrency=message.concurrency,
        polls=message.polls,
        connected_at=decode_instant(message.connect_time),
        last_seen_at=decode_instant(message.last_seen_time),
        replica=message.replica,
    )

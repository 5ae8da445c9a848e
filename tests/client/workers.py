"""A worker at work against a scripted server: what the worker's tests begin with."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from client.peers import Peer, WorkPeer, WorkStream, serve

from runkon.v1 import workers_pb2
from runkon_client import (
    Actions,
    Task,
    Worker,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


@contextlib.asynccontextmanager
async def working(
    actions: Actions,
    *,
    grace_s: float = 5,
    concurrency: int = 4,
    peer: Peer | None = None,
    queues: Sequence[str] = (),
) -> AsyncIterator[tuple[Worker, WorkPeer, asyncio.Task[None]]]:
    """A worker that runs against a scripted server; it is stopped at the end, if it still runs."""
    work = WorkPeer()
    async with serve(peer, work=work) as address:
        worker = Worker(
            address,
            namespace="team",
            worker_id="w1",
            concurrency=concurrency,
            actions=actions,
            grace=timedelta(seconds=grace_s),
            queues=queues,
        )
        running = asyncio.create_task(worker.run())
        try:
            yield worker, work, running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def one_action(function: Callable[[Task], Any]) -> Actions:
    actions = Actions()
    actions.action("act")(function)
    return actions


async def is_true(condition: Callable[[], object]) -> bool:
    return bool(condition())


def cancel(stream: WorkStream, token: str, reason: workers_pb2.CancelReason.ValueType) -> None:
    stream.send(cancels=[workers_pb2.TaskCancel(task_id="t", token=token, reason=reason)])


def lease_of(
    kind: workers_pb2.TaskKind.ValueType, name: str, **fields: Any
) -> workers_pb2.TaskLease:
    return workers_pb2.TaskLease(
        task_id="t", token="t/0", kind=kind, action=name, run_id="r", **fields
    )


async def reported(actions: Actions, lease: workers_pb2.TaskLease) -> workers_pb2.TaskReport:
    """What a worker with these actions makes of one task."""
    async with working(actions) as (_, work, _running):
        stream = await work.next_stream()
        stream.send(leases=[lease])
        return await stream.next_report()

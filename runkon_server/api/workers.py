"""WorkerService: tasks for workers, over one stream or by plain calls."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from runkon.v1 import workers_pb2, workers_pb2_grpc
from runkon_server.api.identity import current_principal
from runkon_server.api.leases import cancel_reason, duration_of, render_lease
from runkon_server.api.outcomes import parse_heartbeat, parse_report, too_heavy
from runkon_server.api.page_tokens import PageTokens, stored_key
from runkon_server.api.parsing.checks import LONG_POLL_MAX, namespace_of, page_rows, span_of
from runkon_server.api.parsing.workers import check_hello
from runkon_server.api.render import render_worker
from runkon_server.api.wire import ELEMENT_BYTES
from runkon_server.api.work_stream import MESSAGE_BYTES_MAX, StreamSettings, WorkStream
from runkon_server.errors import (
    DrainingError,
    InvalidArgumentError,
    RunkonError,
    TaskAttemptStaleError,
    Violation,
)
from runkon_server.runtime.commands import AckStatus, WorkerHello
from runkon_server.store.queues import served_queues
from runkon_server.store.reads.workers import list_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.work_stream import Context, Session
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import (
        HeartbeatAnswer,
        ReportAck,
        TaskHeartbeat,
        TaskLease,
        TaskReport,
    )
    from runkon_server.runtime.settings import EngineConfig

    Unary = grpc.aio.ServicerContext[object, object]

__all__ = ["WorkEngine", "WorkerService"]

TASKS_MAX: Final = 100


class WorkEngine(Protocol):
    """The part of the engine that workers need."""

    config: EngineConfig
    ambient: Ambient
    replica_id: str

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""

    def open_session(self, hello: WorkerHello, notify: Callable[[], None]) -> Session:
        """Connect a worker stream."""

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica starts to drain."""

    async def poll_tasks(
        self, hello: WorkerHello, *, max_tasks: int, wait_s: float
    ) -> list[TaskLease]:
        """Tasks for a worker without a stream."""

    async def report_task(self, namespace: str, report: TaskReport) -> ReportAck:
        """Record how a task ended."""

    async def heartbeat_task(self, namespace: str, beat: TaskHeartbeat) -> HeartbeatAnswer:
        """Extend a task's lease."""


class WorkerService(workers_pb2_grpc.WorkerServiceServicer):
    """See `workers.proto`."""

    def __init__(self, engine: WorkEngine, *, write_s: float = 30.0) -> None:
        self._engine = engine
        self._lease = timedelta(seconds=engine.config.task_lease_s)
        self._settings = StreamSettings(
            replica=engine.replica_id,
            lease=self._lease,
            jitter=engine.ambient.jitter,
            sleep=engine.ambient.sleep,
            write_s=write_s,
        )
        self._tokens = PageTokens(stored_key(engine))
        self._streams: set[WorkStream] = set()
        self._polls: set[asyncio.Future[list[TaskLease]]] = set()
        self._draining = False
        engine.on_drain(self._drain)

    async def Work(  # type: ignore[override] # grpc.aio also takes coroutines that write
        self, request_iterator: AsyncIterator[workers_pb2.WorkRequest], context: Context
    ) -> None:
        """Serve one worker's stream."""
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or not first.HasField("hello"):
            raise InvalidArgumentError([Violation("hello", "required in the first frame")])
        check_hello(first.hello)
        if self._draining:
            raise DrainingError
        hello = _hello(first.hello)
        stream = WorkStream(
            self._settings,
            lambda notify: self._engine.open_session(hello, notify),
            context,
            principal=hello.principal,
        )
        self._streams.add(stream)
        try:
            await stream.run(first, frames)
        finally:
            self._streams.discard(stream)

    async def PollTasks(
        self, request: workers_pb2.PollTasksRequest, context: Unary
    ) -> workers_pb2.PollTasksResponse:
        """Take tasks, waiting for a first one."""
        wait = span_of(request.wait) if request.HasField("wait") else LONG_POLL_MAX
        poll = asyncio.ensure_future(
            self._engine.poll_tasks(
                _hello(request),
                max_tasks=min(request.max_tasks or 1, TASKS_MAX),
                wait_s=min(wait, LONG_POLL_MAX).total_seconds(),
            )
        )
        self._polls.add(poll)
        poll.add_done_callback(self._polls.discard)
        try:
            leases = await poll
        except asyncio.CancelledError:
            if self._draining:
                raise DrainingError from None
            raise
        return await self._packed(namespace_of(request.namespace), leases)

    async def _packed(
        self, namespace: str, leases: Sequence[TaskLease]
    ) -> workers_pb2.PollTasksResponse:
        """As many leases as fit a message. The others run out, and their tasks are handed out anew.

        One that fits no message is reported as failed: it would never be worked on.
        """
        response = workers_pb2.PollTasksResponse()
        room = MESSAGE_BYTES_MAX
        for lease in leases:
            message = render_lease(lease)
            size = message.ByteSize() + ELEMENT_BYTES
            if size > MESSAGE_BYTES_MAX:
                # If it counts no more, it needs no report.
                with contextlib.suppress(RunkonError):
                    await self._engine.report_task(namespace, too_heavy(lease, size))
            elif size <= room:
                response.leases.append(message)
                room -= size
        return response

    async def ReportTask(
        self, request: workers_pb2.ReportTaskRequest, context: Unary
    ) -> workers_pb2.ReportTaskResponse:
        """End a task; answers after the commit."""
        jitter = self._engine.ambient.jitter
        report = parse_report(request.report, jitter, current_principal())
        ack = await self._engine.report_task(namespace_of(request.namespace), report)
        return workers_pb2.ReportTaskResponse(replayed=ack.verdict.status is AckStatus.DUPLICATE)

    async def HeartbeatTask(
        self, request: workers_pb2.HeartbeatTaskRequest, context: Unary
    ) -> workers_pb2.HeartbeatTaskResponse:
        """Keep a task's lease."""
        beat = parse_heartbeat(request.heartbeat)
        answer = await self._engine.heartbeat_task(namespace_of(request.namespace), beat)
        if not answer.known:
            raise TaskAttemptStaleError(beat.task_id, state="not leased under this token")
        response = workers_pb2.HeartbeatTaskResponse(lease_duration=duration_of(self._lease))
        if answer.cancel_reason is not None:
            response.cancel_requested = True
            response.cancel_reason = cancel_reason(answer.cancel_reason)
        return response

    async def ListWorkers(
        self, request: workers_pb2.ListWorkersRequest, context: Unary
    ) -> workers_pb2.ListWorkersResponse:
        """A page of the workers that are connected to any replica."""
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            page = await list_workers(
                conn,
                namespace=namespace_of(request.namespace),
                limit=page_rows(request.page_size),
                after=(place[0], place[1]) if place else None,
            )
        response = workers_pb2.ListWorkersResponse(workers=map(render_worker, page.rows))
        if page.more:
            last = page.rows[-1]
            where = [last.worker_id, last.replica_token]
            response.next_page_token = await self._tokens.seal(request, where)
        return response

    def _drain(self) -> None:
        self._draining = True
        for stream in self._streams:
            stream.drain()
        for poll in self._polls:
            poll.cancel()


def _hello(worker: workers_pb2.WorkerHello | workers_pb2.PollTasksRequest) -> WorkerHello:
    return WorkerHello(
        namespace=namespace_of(worker.namespace),
        worker_id=worker.worker_id,
        actions=frozenset(worker.actions),
        principal=current_principal(),
        queues=served_queues(worker.queues),
        item_providers=frozenset(worker.item_providers),
        gate_types=frozenset(worker.gate_types),
        scripts=worker.scripts,
        concurrency=worker.concurrency if isinstance(worker, workers_pb2.WorkerHello) else 0,
        client=worker.client if isinstance(worker, workers_pb2.WorkerHello) else "",
        in_hand=frozenset(worker.tokens_in_hand) if worker.tells_in_hand else None,
    )

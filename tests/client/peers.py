"""Servers that follow a script and speak the real contract: what the client's tests talk to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2

from runkon.v1 import events_pb2, runs_pb2, types_pb2, workers_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from google.protobuf.message import Message

RUN_ID: Final = "01JRUN"


@dataclass(frozen=True)
class Drop:
    """Ends a call with an error; with a reason it is one of a Runkon server."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    reason: str = ""
    message: str = "gone"
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    details: Sequence[Message] = ()

    async def abort(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(
                reason=self.reason, domain="runkon.dev", metadata=self.metadata
            )
            status.details.add().Pack(info)
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self.retry_after_s * 1000))
            status.details.add().Pack(retry)
        for detail in self.details:
            status.details.add().Pack(detail)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(
            self.code, self.message, trailing_metadata=trailing if status.details else ()
        )


class Hang:
    """Answers nothing more, and keeps the call open."""


Step = runs_pb2.StreamRunEventsResponse | Drop | Hang


class Peer(grpc.GenericRpcHandler):
    """Answers every unary RPC of the contract from `answers`, streams from `plan`."""

    def __init__(self) -> None:
        self.answers: dict[str, deque[Message | Drop]] = defaultdict(deque)
        self.calls: list[tuple[str, Any]] = []
        self.deadlines_s: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.opened: list[runs_pb2.StreamRunEventsRequest] = []
        self.plan: Callable[[int, runs_pb2.StreamRunEventsRequest], Iterable[Step]] = (
            lambda _number, _request: ()
        )

    def will_answer(self, method: str, *answers: Message | Drop) -> None:
        self.answers[method] += answers

    def requests(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        service, _, method = str(details.method).lstrip("/").partition("/")
        found = descriptor_pool.Default().FindMethodByName(f"{service}.{method}")
        read = message_factory.GetMessageClass(found.input_type).FromString
        if method == "StreamRunEvents":
            return grpc.unary_stream_rpc_method_handler(self._stream, read, _serialize)

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            self.calls.append((method, request))
            self.deadlines_s.append(context.time_remaining() or 0)
            self.metadata.append(dict(context.invocation_metadata() or ()))
            scripted = self.answers[method].popleft()
            if not isinstance(scripted, Drop):
                return scripted
            await scripted.abort(context)
            raise AssertionError("an abort raises")

        return grpc.unary_unary_rpc_method_handler(answer, read, _serialize)

    async def _stream(
        self,
        request: runs_pb2.StreamRunEventsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[runs_pb2.StreamRunEventsResponse]:
        self.opened.append(request)
        for step in self.plan(len(self.opened) - 1, request):
            if isinstance(step, Drop):
                await step.abort(context)
            elif isinstance(step, Hang):
                await asyncio.Event().wait()
            else:
                yield step


class WorkPeer:
    """A server's side of Work streams: what workers sent is read with `next_frame`."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[WorkStream] = asyncio.Queue()

    def handler(self) -> grpc.GenericRpcHandler:
        work = grpc.stream_stream_rpc_method_handler(
            self._work, workers_pb2.WorkRequest.FromString, _serialize
        )
        return grpc.method_handlers_generic_handler("runkon.v1.WorkerService", {"Work": work})

    async def _work(
        self,
        requests: AsyncIterator[workers_pb2.WorkRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[workers_pb2.WorkResponse]:
        stream = WorkStream()
        reading = asyncio.create_task(stream.read(requests))
        self.streams.put_nowait(stream)
        try:
            while True:
                item = await stream.outgoing.get()
                if item is None:
                    return
                if isinstance(item, Drop):
                    await item.abort(context)
                    return
                yield item
        finally:
            stream.is_over = True
            reading.cancel()

    async def next_stream(self, *, welcome: bool = True, **welcome_options: float) -> WorkStream:
        async with asyncio.timeout(60):
            stream = await self.streams.get()
        if welcome:
            stream.hello = (await stream.next_frame()).hello
            stream.welcome(**welcome_options)
        return stream


class WorkStream:
    """One Work stream as the server sees it; sums and lists are over all frames so far."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[workers_pb2.WorkRequest | None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[workers_pb2.WorkResponse | Drop | None] = asyncio.Queue()
        self.frames: list[workers_pb2.WorkRequest] = []
        self.hello = workers_pb2.WorkerHello()
        self._reports: deque[workers_pb2.TaskReport] = deque()
        self.is_over = False

    async def read(self, requests: AsyncIterator[workers_pb2.WorkRequest]) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            async for request in requests:
                self.incoming.put_nowait(request)
        self.incoming.put_nowait(None)

    async def next_frame(self) -> workers_pb2.WorkRequest:
        async with asyncio.timeout(60):
            frame = await self.incoming.get()
        assert frame is not None, "the worker has closed its side"
        self._note(frame)
        return frame

    async def is_closed_by_worker(self) -> bool:
        async with asyncio.timeout(60):
            while (frame := await self.incoming.get()) is not None:
                self._note(frame)
        return True

    def _note(self, frame: workers_pb2.WorkRequest) -> None:
        self.frames.append(frame)
        self._reports += frame.reports

    async def next_report(self) -> workers_pb2.TaskReport:
        return (await self.reports(1))[0]

    async def reports(self, count: int) -> list[workers_pb2.TaskReport]:
        """The next reports, read as far as there are so many."""
        while len(self._reports) < count:
            await self.next_frame()
        return [self._reports.popleft() for _ in range(count)]

    @property
    def credit(self) -> int:
        return sum(frame.credit for frame in self.frames)

    def send(self, **parts: Any) -> None:
        self.outgoing.put_nowait(workers_pb2.WorkResponse(**parts))

    def welcome(self, *, lease_s: float = 30, interval_s: float = 10) -> None:
        response = workers_pb2.WorkResponse()
        response.welcome.replica = "peer"
        response.welcome.lease_duration.FromMilliseconds(int(lease_s * 1000))
        response.welcome.heartbeat_interval.FromMilliseconds(int(interval_s * 1000))
        self.outgoing.put_nowait(response)

    def lease(self, *names: str, action: str = "act", **fields: Any) -> None:
        self.send(leases=[lease(name, action, **fields) for name in names])

    def ack(
        self,
        *reports: workers_pb2.TaskReport,
        status: workers_pb2.AckStatus.ValueType = workers_pb2.ACK_STATUS_ACCEPTED,
        code: int = 0,
    ) -> None:
        error = types_pb2.ErrorStatus(code=code, message="refused by the script") if code else None
        self.send(
            acks=[
                workers_pb2.TaskAck(
                    task_id=report.task_id, token=report.token, status=status, error=error
                )
                for report in reports
            ]
        )

    def drop(self, *drops: Drop) -> None:
        self.outgoing.put_nowait(drops[0] if drops else Drop())


def lease(name: str, action: str = "act", **fields: Any) -> workers_pb2.TaskLease:
    """A lease whose token is that of its delivery."""
    return workers_pb2.TaskLease(
        task_id=name,
        token=f"{name}/{fields.get('delivery', 0)}",
        kind=workers_pb2.TASK_KIND_ACTION,
        action=action,
        run_id=RUN_ID,
        **fields,
    )


@contextlib.asynccontextmanager
async def serve(
    peer: Peer | None = None, *, work: WorkPeer | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    """A server for the peers; gives its address."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    if work is not None:
        server.add_generic_rpc_handlers([work.handler()])
    if peer is not None:
        server.add_generic_rpc_handlers([peer])
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def header(after_seq: int = 0, head_seq: int = 0) -> runs_pb2.StreamRunEventsResponse:
    return runs_pb2.StreamRunEventsResponse(
        header=runs_pb2.StreamHeader(oldest_seq=1, head_seq=head_seq, after_seq=after_seq)
    )


def event(seq: int) -> events_pb2.RunEvent:
    message = events_pb2.RunEvent(seq=seq, run_id=RUN_ID, generation=1, epoch=1)
    message.time.FromSeconds(1_700_000_000 + seq)
    message.always_started.workflow_status = types_pb2.RUN_STATUS_COMPLETED
    return message


def events(*seqs: int, examined: int | None = None) -> runs_pb2.StreamRunEventsResponse:
    last = seqs[-1] if examined is None else examined
    return runs_pb2.StreamRunEventsResponse(
        events=runs_pb2.EventBatch(events=[event(seq) for seq in seqs], examined_seq=last)
    )


def heartbeat(examined: int, head: int | None = None) -> runs_pb2.StreamRunEventsResponse:
    return runs_pb2.StreamRunEventsResponse(
        heartbeat=runs_pb2.StreamHeartbeat(examined_seq=examined, head_seq=head or examined)
    )


def end(head: int) -> runs_pb2.StreamRunEventsResponse:
    return runs_pb2.StreamRunEventsResponse(
        end=runs_pb2.StreamEnd(head_seq=head, epoch=1, status=types_pb2.RUN_STATUS_COMPLETED)
    )


def snapshot(
    seq: int, *steps: str, run: bool = True, last: bool = True
) -> runs_pb2.StreamRunEventsResponse:
    return runs_pb2.StreamRunEventsResponse(
        snapshot=runs_pb2.StreamSnapshot(
            seq=seq,
            run=types_pb2.Run(id=RUN_ID, status=types_pb2.RUN_STATUS_RUNNING) if run else None,
            steps=[types_pb2.Step(id=step, run_id=RUN_ID) for step in steps],
            last=last,
        )
    )


def faithful(
    count: int, request: runs_pb2.StreamRunEventsRequest
) -> list[runs_pb2.StreamRunEventsResponse]:
    """What a server sends that has `count` events of an ended run: two to a batch."""
    after = request.after_seq
    frames = [header(after, count)]
    for first in range(after + 1, count + 1, 2):
        frames += [
            events(*range(first, min(first + 2, count + 1))),
            heartbeat(min(first + 1, count)),
        ]
    return [*frames, end(count)]

"""One worker's stream: frames in, handled in the contract's order; out, as few frames as possible.

Reader and writer are two tasks that share counters and flags. The writer empties the session's
outbox whenever there is something in it; the reader waits for it only while far too many reports
are unanswered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

import grpc

from runkon.v1 import workers_pb2
from runkon_server.api.frames import server_time
from runkon_server.api.leases import (
    duration_of,
    render_ack,
    render_cancel,
    render_lease,
    render_refusal,
)
from runkon_server.api.outcomes import parse_heartbeat, parse_report, short_progress, too_heavy
from runkon_server.api.parsing.workers import CREDIT_MAX, check_heartbeat, check_report
from runkon_server.api.wire import ELEMENT_BYTES
from runkon_server.errors import (
    DrainingError,
    InvalidArgumentError,
    ResourceExhaustedError,
    RunkonError,
    UnavailableError,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from google.protobuf.message import Message

    from runkon_server.runtime.commands import (
        ReportAck,
        TaskCancel,
        TaskHeartbeat,
        TaskLease,
        TaskReport,
    )

__all__ = ["MESSAGE_BYTES_MAX", "Session", "StreamSettings", "WorkStream"]

_Part = TypeVar("_Part", bound="Message")
Response: TypeAlias = workers_pb2.WorkResponse
Context: TypeAlias = grpc.aio.ServicerContext[workers_pb2.WorkRequest, Response]

FRAME_BYTES: Final = 1024 * 1024
FRAME_LEASES: Final = 256
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 - 64 * 1024
"""A lease above this fits no message, so its task cannot be worked on."""
UNANSWERED_MAX: Final = 10_000
"""Reports without an acknowledgement at which reading stops."""
PORTION_BYTES: Final = 64 * 1024
"""Of a frame's parts, before others get the event loop: some milliseconds of work."""
PART_BYTES: Final = 256
"""What a part weighs besides itself: a frame has room for a million empty ones."""
FAREWELL_S: Final = 10.0
"""How long a worker that has closed its side waits for its last acknowledgements."""
DRAIN_S: Final = 0.2
"""How long a replica that goes away waits for them."""
RECONNECT_MAX: Final = timedelta(milliseconds=500)
"""Workers reconnect after a random part of it, so that they do not all come at once."""


class Session(Protocol):
    """The engine's side of a worker; see `runtime.sessions`."""

    @property
    def is_closed(self) -> bool:
        """Whether it will never have anything to tell again."""

    def add_credit(self, n: int) -> None:
        """Allow `n` more tasks."""

    def report(self, reports: Sequence[TaskReport]) -> None:
        """Take reports; each is acknowledged in the outbox."""

    def heartbeat(self, beats: Sequence[TaskHeartbeat]) -> None:
        """Extend leases."""

    def take(self) -> tuple[list[TaskLease], list[TaskCancel], list[ReportAck]]:
        """Empty the outbox."""

    def drain(self) -> None:
        """Hand out nothing more."""

    def close(self) -> None:
        """The stream is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What the streams of one replica have in common."""

    replica: str
    lease: timedelta
    jitter: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    write_s: float = 30.0
    """How long a frame may wait to be taken before the worker is given up."""


class WorkStream:
    """One stream, from its hello on."""

    def __init__(
        self,
        settings: StreamSettings,
        open_session: Callable[[Callable[[], None]], Session],
        context: Context,
        *,
        principal: str,
    ) -> None:
        self._settings = settings
        self._principal = principal
        self._context = context
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._refusals: list[workers_pb2.TaskAck] = []
        self._unanswered = 0
        self._credit = 0
        self._closing = False
        self._drain: workers_pb2.ServerDrain | None = None
        self._drained = False
        self._session = open_session(self._wake.set)

    def drain(self) -> None:
        """Tell the worker that the replica goes away, and end the stream.

        The engine commits what it has and takes no more, so the grace that is told is zero.
        """
        self._drain = workers_pb2.ServerDrain(
            reconnect_delay=duration_of(RECONNECT_MAX * round(self._settings.jitter(), 1)),
            grace=duration_of(timedelta(0)),
        )
        asyncio.get_running_loop().call_later(DRAIN_S, self._end_drain)
        self._wake.set()

    async def run(
        self, first: workers_pb2.WorkRequest, frames: AsyncIterator[workers_pb2.WorkRequest]
    ) -> None:
        """Serve the stream until the worker closes its side or one of the two fails.

        Raises:
            InvalidArgumentError: a frame breaks a rule.
            DrainingError: the replica goes away.
            UnavailableError: the engine has closed the session.
            ResourceExhaustedError: the worker does not read.
        """
        try:
            # Before any frame is looked at: a first write that is cut off by an error leaves the
            # call in a state in which gRPC cannot send the error.
            await self._send(Response(welcome=self._welcome()))
        except BaseException:
            self._session.close()
            raise
        reader = asyncio.create_task(self._read(first, frames))
        writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
                self._session.drain()
                self._closing = True
                self._wake.set()
                await asyncio.wait((writer,), timeout=FAREWELL_S)
            if writer.done():
                writer.result()
        finally:
            self._session.close()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(
        self, first: workers_pb2.WorkRequest, frames: AsyncIterator[workers_pb2.WorkRequest]
    ) -> None:
        await self._take_frame(first)
        async for frame in frames:
            if frame.HasField("hello"):
                raise InvalidArgumentError([Violation("hello", "only in the first frame")])
            await self._take_frame(frame)
            await self._room.wait()

    async def _take_frame(self, frame: workers_pb2.WorkRequest) -> None:
        for number, reports in enumerate(_portions(frame.reports)):
            if number:
                await self._give_way()
            self._take_reports(reports)
        taken = 0
        for beats in _portions(frame.heartbeats):
            if taken:
                await self._give_way()
            self._take_heartbeats(beats, taken)
            taken += len(beats)
        if frame.credit:
            self._credit += frame.credit
            if not 0 < frame.credit <= CREDIT_MAX or self._credit > CREDIT_MAX:
                raise InvalidArgumentError(
                    [Violation("credit", f"between 0 and {CREDIT_MAX} open at a time")]
                )
            self._session.add_credit(frame.credit)
        if frame.HasField("drain"):
            self._session.drain()

    async def _give_way(self) -> None:
        """Let others go on in the midst of a frame, the writer above all."""
        await self._settings.sleep(0)
        await self._room.wait()

    def _take_reports(self, frames: Sequence[workers_pb2.TaskReport]) -> None:
        reports = []
        for report in frames:
            try:
                check_report(report)
            except RunkonError as error:
                self._refusals.append(render_refusal(report, error))
                self._wake.set()
            else:
                reports.append(parse_report(report, self._settings.jitter, self._principal))
        self._unanswered += len(frames)
        if self._unanswered > UNANSWERED_MAX:
            self._room.clear()
        if reports:
            self._session.report(reports)

    def _take_heartbeats(self, beats: Sequence[workers_pb2.TaskHeartbeat], first: int) -> None:
        for number, beat in enumerate(beats, first):
            if beat.progress:
                # Too long a word must not cost the lease: it is cut, not refused.
                beat.progress = short_progress(beat.progress)
            check_heartbeat(beat, number)
        self._session.heartbeat([parse_heartbeat(beat) for beat in beats])

    async def _write(self) -> None:
        told = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._session.is_closed:
                raise UnavailableError("the server lost this stream; open another one")
            for frame in self._frames():
                await self._send(frame)
            if self._drain is not None and not told:
                await self._send(Response(drain=self._drain))
                told = True
            if told and (self._drained or self._unanswered <= 0):
                raise DrainingError
            if self._closing and self._unanswered <= 0 and not self._wake.is_set():
                return

    def _frames(self) -> Iterator[Response]:
        """What the outbox holds, in frames that fit a message."""
        leases, cancels, acks = self._session.take()
        refusals, self._refusals = self._refusals, []
        self._unanswered -= len(acks) + len(refusals)
        if self._unanswered <= UNANSWERED_MAX:
            self._room.set()
        self._credit -= len(leases)
        parts: list[tuple[str, Message]] = [
            *(("cancels", render_cancel(cancel)) for cancel in cancels),
            *(("acks", refusal) for refusal in refusals),
            *(("acks", render_ack(ack)) for ack in acks),
            *(("leases", message) for message in self._fitting(leases)),
        ]
        yield from _packed(parts)

    def _fitting(self, leases: Iterable[TaskLease]) -> Iterator[workers_pb2.TaskLease]:
        """The leases as messages; one that fits no message is reported as failed instead."""
        for lease in leases:
            message = render_lease(lease)
            size = message.ByteSize()
            if size <= MESSAGE_BYTES_MAX:
                yield message
            else:
                self._unanswered += 1
                self._session.report([too_heavy(lease, size)])

    async def _send(self, response: Response) -> None:
        try:
            async with asyncio.timeout(self._settings.write_s):
                await self._context.write(response)
        except TimeoutError:
            limit = f"{self._settings.write_s:g} s without taking a frame"
            raise ResourceExhaustedError("worker stream", limit=limit) from None

    def _welcome(self) -> workers_pb2.WorkerWelcome:
        return workers_pb2.WorkerWelcome(
            replica=self._settings.replica,
            lease_duration=duration_of(self._settings.lease),
            heartbeat_interval=duration_of(self._settings.lease / 3),
            server_time=server_time(),
        )

    def _end_drain(self) -> None:
        self._drained = True
        self._wake.set()


def _portions(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """What a frame carries, in portions that are taken in one go."""
    portion: list[_Part] = []
    weight = 0
    for part in parts:
        portion.append(part)
        weight += PART_BYTES + part.ByteSize()
        if weight >= PORTION_BYTES:
            yield portion
            portion, weight = [], 0
    if portion:
        yield portion


def _packed(parts: Iterable[tuple[str, Message]]) -> Iterator[Response]:
    """Messages by the field that they go into, in as few frames as they fit."""
    frame, weight = Response(), 0
    for field, part in parts:
        size = part.ByteSize() + ELEMENT_BYTES
        if weight and (weight + size > FRAME_BYTES or len(frame.leases) >= FRAME_LEASES):
            yield frame
            frame, weight = Response(), 0
        getattr(frame, field).append(part)
        weight += size
    if weight:
        yield frame

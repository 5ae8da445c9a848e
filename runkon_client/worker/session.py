"""One Work stream, from hello to its end: who reads, who writes, who beats."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

import grpc
import grpc.aio

from runkon_client.decode import decode_span

if TYPE_CHECKING:
    from runkon.v1 import workers_pb2
    from runkon_client.worker.ledger import Ledger

WORK_PATH: Final = "/runkon.v1.WorkerService/Work"
_WELCOME_S: Final = 10.0
_INTERVAL_MIN_S: Final = 0.05


class StreamSilentError(Exception):
    """The server does not answer on a stream that is open."""


class SessionHost(Protocol):
    """What a session tells its worker."""

    def welcomed(self, replica: str) -> None:
        """The stream is there."""

    def take(self, lease: workers_pb2.TaskLease) -> None:
        """A task came."""

    def cancel(self, cancel: workers_pb2.TaskCancel) -> None:
        """A task is no longer wanted."""

    def acknowledge(self, ack: workers_pb2.TaskAck) -> None:
        """A report was answered."""


class Session:
    """One stream. Whoever changes the ledger calls `wake`, and what is due goes out."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[workers_pb2.WorkRequest, workers_pb2.WorkResponse],
        ledger: Ledger,
        host: SessionHost,
    ) -> None:
        self.is_welcomed = False
        self._call = call
        self._ledger = ledger
        self._host = host
        self._due = asyncio.Event()
        self._is_closing = False
        self._leave_at: float | None = None
        self._reconnect_delay_s: float | None = None

    def wake(self) -> None:
        """The ledger may have something to send."""
        self._due.set()

    def close(self) -> None:
        """Send what is due, then close this side of the stream."""
        self._is_closing = True
        self._due.set()

    async def run(self) -> float | None:
        """Work until the stream ends well.

        Returns:
            Seconds that the server wants the worker to stay away; None if it named none.

        Raises:
            StreamSilentError: no welcome, or no acks, in time.
            grpc.RpcError: the stream broke, or the worker was refused.
        """
        self._ledger.open_stream()
        try:
            lease_s, interval_s = await self._greet()
            self.is_welcomed = True
            writer = asyncio.create_task(self._write())
            watchers = {
                asyncio.create_task(self._read()),
                asyncio.create_task(self._beat(lease_s, interval_s)),
            }
            try:
                ended = await _first_to_end(watchers, writer)
            finally:
                for task in (writer, *watchers):
                    task.cancel()
                await asyncio.gather(writer, *watchers, return_exceptions=True)
            for task in ended:
                task.result()
        finally:
            self._call.cancel()
        return self._reconnect_delay_s

    async def _greet(self) -> tuple[float, float]:
        """Say hello, and learn how long leases are good and how often to beat, in seconds."""
        hello = self._ledger.next_frame(now=time.monotonic())
        assert hello is not None
        try:
            async with asyncio.timeout(_WELCOME_S):
                # A call that is over before its first frame says why only to its reader.
                with contextlib.suppress(asyncio.InvalidStateError):
                    await self._call.write(hello)
                frame = await self._next()
        except TimeoutError as error:
            raise StreamSilentError("no welcome in time") from error
        if frame is None:
            raise StreamSilentError("closed without a welcome")
        self._host.welcomed(frame.welcome.replica)
        self._receive(frame)
        interval_s = decode_span(frame.welcome.heartbeat_interval).total_seconds()
        lease_s = decode_span(frame.welcome.lease_duration).total_seconds()
        return lease_s, max(_INTERVAL_MIN_S, interval_s)

    async def _next(self) -> workers_pb2.WorkResponse | None:
        frame = await self._call.read()
        return None if frame is grpc.aio.EOF else cast("workers_pb2.WorkResponse", frame)

    async def _read(self) -> None:
        while self._leave_at is None or self._ledger.unacked_count:
            try:
                async with asyncio.timeout_at(self._leave_at):
                    frame = await self._next()
            except TimeoutError:
                return
            if frame is None:
                return
            self._receive(frame)

    def _receive(self, frame: workers_pb2.WorkResponse) -> None:
        for cancel in frame.cancels:
            self._host.cancel(cancel)
        for ack in frame.acks:
            self._host.acknowledge(ack)
        for lease in frame.leases:
            self._host.take(lease)
        if frame.HasField("drain"):
            grace_s = decode_span(frame.drain.grace).total_seconds()
            self._leave_at = asyncio.get_running_loop().time() + grace_s
            self._reconnect_delay_s = decode_span(frame.drain.reconnect_delay).total_seconds()
        # Every frame can change what is due: credit was used, a report has to be replaced.
        self._due.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                while (frame := self._ledger.next_frame(now=time.monotonic())) is not None:
                    await self._call.write(frame)
                if self._is_closing:
                    await self._call.done_writing()
                    return
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The stream is over; its reader learns why.
            return

    async def _beat(self, lease_s: float, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            if self._ledger.is_overdue(now=time.monotonic(), limit_s=lease_s):
                raise StreamSilentError("reports are not acknowledged")
            self._ledger.beat()
            self.wake()


async def _first_to_end(
    watchers: set[asyncio.Task[None]], writer: asyncio.Task[None]
) -> set[asyncio.Task[None]]:
    """Those of the watchers that end first. What a writer fails of is raised: nobody else asks."""
    pending = {writer, *watchers}
    while watchers <= pending:
        ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if writer in ended and not writer.cancelled():
            writer.result()
    return watchers - pending

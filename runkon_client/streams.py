"""Iterators over a run's events, one per stack; `following` decides, these wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import grpc
import grpc.aio

from runkon_client.errors import error_from_rpc
from runkon_client.transport import closed_error, is_cancelled

if TYPE_CHECKING:
    from runkon.v1 import runs_pb2
    from runkon_client.following import EventFollower
    from runkon_client.transport import AsyncTransport, EventCall, SyncTransport
    from runkon_client.values import RunEvent, Snapshot

_T = TypeVar("_T", bound="RunEvent | Snapshot")


class _Buffer(Generic[_T]):
    """What was received and not yet handed out, and how far the caller is."""

    def __init__(self, follower: EventFollower) -> None:
        self._follower = follower
        self._items: deque[_T] = deque()
        self._cursor = follower.seq
        self._disconnects = 0

    @property
    def cursor(self) -> int | None:
        """`after_seq` for whoever goes on from here: the event handed out last is done with.

        None until a stream from now, or a snapshot, has begun.
        """
        return self._cursor

    @property
    def disconnects(self) -> int:
        """How often a stream closed without an end and was opened again."""
        return self._disconnects

    def _pop(self) -> _T | None:
        if self._items:
            item = self._items.popleft()
            self._cursor = item.seq
            return item
        self._cursor = self._follower.seq
        return None

    def _feed(self, frame: runs_pb2.StreamRunEventsResponse) -> None:
        # Snapshots come only from a stream that was begun with one, which is what `_T` says.
        self._items += cast("list[_T]", self._follower.feed(frame))


class EventStream(_Buffer[_T]):
    """Asynchronous iterator over the events of a run, each once, until the run ends.

    It outlives servers and connections. `async with` closes it early.
    """

    def __init__(self, transport: AsyncTransport, follower: EventFollower) -> None:
        super().__init__(follower)
        self._transport = transport
        self._call: (
            grpc.aio.UnaryStreamCall[
                runs_pb2.StreamRunEventsRequest, runs_pb2.StreamRunEventsResponse
            ]
            | None
        ) = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """The next event.

        Raises:
            EventGapError: the server left events out.
            RunkonClientError: no stream of this run can be opened at the cursor.
        """
        while True:
            item = self._pop()
            if item is not None:
                return item
            if self._follower.gap is not None:
                await self.aclose()
                raise self._follower.gap
            if self._follower.is_ended:
                await self.aclose()
                raise StopAsyncIteration
            await self._receive()

    async def aclose(self) -> None:
        """Close the stream; may be called at any time, and again."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _receive(self) -> None:
        """Feed one frame, or deal with a stream that broke."""
        error = None
        if self._call is None:
            self._call = self._transport.follow(self._follower.request())
        try:
            async with asyncio.timeout(self._follower.silence_s):
                frame = await self._call.read()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            # The call does not survive the caller's cancelled wait; the next wait opens another.
            self._call = None
            if is_cancelled():
                raise
            raise closed_error() from None
        except grpc.RpcError as rpc_error:
            error = error_from_rpc(rpc_error)
        else:
            # mypy does not see through the class that stands for the end of a stream.
            if frame is not grpc.aio.EOF:
                self._feed(cast("runs_pb2.StreamRunEventsResponse", frame))
                return
        await self.aclose()
        delay_s = self._follower.delay_after(error)
        self._disconnects += 1
        await asyncio.sleep(delay_s)


class SyncEventStream(_Buffer[_T]):
    """Iterator over the events of a run, each once, until the run ends.

    It outlives servers and connections. `with` closes it early, from any thread.
    """

    def __init__(self, transport: SyncTransport, follower: EventFollower) -> None:
        super().__init__(follower)
        self._transport = transport
        self._call: EventCall | None = None
        self._watchdog: _Watchdog | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """The next event.

        Raises:
            EventGapError: the server left events out.
            RunkonClientError: no stream of this run can be opened at the cursor.
        """
        while True:
            item = self._pop()
            if item is not None:
                return item
            if self._follower.gap is not None:
                self._hang_up()
                raise self._follower.gap
            if self._follower.is_ended or self._closed.is_set():
                self._hang_up()
                raise StopIteration
            self._receive()

    def __del__(self) -> None:
        # The watchdog's thread keeps the call alive, nothing else does.
        self._hang_up()

    def close(self) -> None:
        """End the iteration; may be called at any time, again, and from another thread."""
        self._closed.set()
        self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hang_up(self) -> None:
        # Taken once: `close` may come from another thread.
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _receive(self) -> None:
        """Feed one frame, or deal with a stream that broke."""
        error = None
        if self._call is None or self._watchdog is None:
            self._call = self._transport.follow(self._follower.request())
            self._watchdog = _Watchdog(self._call, self._follower.silence_s)
        call, watchdog = self._call, self._watchdog
        try:
            with watchdog:
                frame = next(call)
        except StopIteration:
            pass
        except grpc.RpcError as rpc_error:
            if not watchdog.has_bitten:
                error = error_from_rpc(rpc_error)
        else:
            self._feed(frame)
            return
        self._hang_up()
        if self._closed.is_set():
            return
        delay_s = self._follower.delay_after(error)
        self._disconnects += 1
        self._closed.wait(delay_s)


class _Watchdog:
    """Cancels a call when one `with` block around it takes too long.

    The sync stack has no other bound on the wait for a stream's next message. The time that the
    caller takes between messages does not count.
    """

    def __init__(self, call: EventCall, limit_s: float) -> None:
        self.has_bitten = False
        self._call = call
        self._limit_s = limit_s
        self._since: float | None = None
        self._wake = threading.Event()
        if not call.add_callback(self._wake.set):
            self._wake.set()
        threading.Thread(target=self._watch, name="runkon-watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def _watch(self) -> None:
        left_s = self._limit_s
        while not self._wake.wait(left_s):
            since = self._since
            left_s = self._limit_s
            if since is not None:
                left_s = since + self._limit_s - time.monotonic()
                if left_s <= 0:
                    self.has_bitten = True
                    self._call.cancel()
                    return

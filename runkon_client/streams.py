"""Iterators over streams, one per stack; `following` and `feeds` decide, these wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import grpc
import grpc.aio

from runkon_client.errors import RunkonClientError, error_from_rpc
from runkon_client.transport import closed_error, is_cancelled
from runkon_client.values import NamespaceEvent, RunEvent, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from runkon_client.transport import AsyncTransport, StreamCall, SyncTransport

_I = TypeVar("_I")
_T = TypeVar("_T")
_R = TypeVar("_R", bound="RunEvent | Snapshot")
_C = TypeVar("_C")


class Follower(Protocol[_I, _C]):
    """Knows what to ask for, what frames mean, and what a broken stream means."""

    is_ended: bool
    gap: RunkonClientError | None

    @property
    def path(self) -> str:
        """The method."""

    @property
    def response(self) -> type[Message]:
        """Its frames."""

    @property
    def place(self) -> _C | None:
        """Everything up to here was fed."""

    @property
    def silence_s(self) -> float:
        """A stream without a frame for so long is dead."""

    def request(self) -> Message:
        """What to open the next stream with."""

    def feed(self, frame: Any) -> list[tuple[_I, _C | None]]:  # noqa: ANN401 - a message of the method
        """What a frame brings, and the place that each of it reaches, if it is one."""

    def delay_after(self, error: RunkonClientError | None) -> float:
        """Seconds until the next stream; raises `error` if there is no use in one."""


class _Buffer(Generic[_I, _T, _C]):
    """What was received and not yet handed out, and how far the caller is."""

    def __init__(self, follower: Follower[_I, _C], show: Callable[[_I], _T]) -> None:
        self._follower = follower
        self._show = show
        self._items: deque[tuple[_I, _C | None]] = deque()
        self._cursor = follower.place
        self._disconnects = 0

    @property
    def cursor(self) -> _C | None:
        """For whoever goes on from here: what was handed out last is done with. Store it after.

        None until there is a place: a stream from now has begun, a snapshot or a list is whole.
        """
        return self._cursor

    @property
    def disconnects(self) -> int:
        """How often a stream closed without an end and was opened again."""
        return self._disconnects

    def _has_next(self) -> bool:
        if not self._items:
            self._cursor = self._follower.place
        return bool(self._items)

    def _pop(self) -> _T:
        item, place = self._items.popleft()
        if place is not None:
            self._cursor = place
        return self._show(item)


class AsyncStream(_Buffer[_I, _T, _C]):
    """Asynchronous iterator that outlives servers and connections. `async with` closes it early."""

    def __init__(
        self, transport: AsyncTransport, follower: Follower[_I, _C], show: Callable[[_I], _T]
    ) -> None:
        super().__init__(follower, show)
        self._transport = transport
        self._call: grpc.aio.UnaryStreamCall[Message, Message] | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """The next one.

        Raises:
            EventGapError: the server left events out.
            RunkonClientError: no stream can be opened at the cursor.
        """
        while not self._is_closed:
            if self._has_next():
                return self._pop()
            if self._follower.gap is not None:
                self._hang_up()
                raise self._follower.gap
            if self._follower.is_ended:
                break
            await self._receive()
        self._hang_up()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iteration; may be called at any time, and again."""
        self._is_closed = True
        self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _receive(self) -> None:
        """Feed one frame, or deal with a stream that broke."""
        error = None
        if self._call is None:
            self._call = self._transport.follow(self._follower)
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
            if self._is_closed:
                return
            raise closed_error() from None
        except grpc.RpcError as rpc_error:
            error = error_from_rpc(rpc_error)
        else:
            if frame is not grpc.aio.EOF:
                self._items += self._follower.feed(frame)
                return
        self._hang_up()
        if self._is_closed:
            return
        delay_s = self._follower.delay_after(error)
        self._disconnects += 1
        await asyncio.sleep(delay_s)


class SyncStream(_Buffer[_I, _T, _C]):
    """Iterator that outlives servers and connections. `with` closes it early, from any thread."""

    def __init__(
        self, transport: SyncTransport, follower: Follower[_I, _C], show: Callable[[_I], _T]
    ) -> None:
        super().__init__(follower, show)
        self._transport = transport
        self._call: StreamCall | None = None
        self._watchdog: _Watchdog | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """The next one.

        Raises:
            EventGapError: the server left events out.
            RunkonClientError: no stream can be opened at the cursor.
        """
        while not self._closed.is_set():
            if self._has_next():
                return self._pop()
            if self._follower.gap is not None:
                self._hang_up()
                raise self._follower.gap
            if self._follower.is_ended:
                break
            self._receive()
        self._hang_up()
        raise StopIteration

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

    def _open(self) -> tuple[StreamCall, _Watchdog]:
        """The stream that is open, or another one."""
        call, watchdog = self._call, self._watchdog
        if call is None or watchdog is None:
            call = self._transport.follow(self._follower)
            watchdog = _Watchdog(call, self._follower.silence_s)
            self._call, self._watchdog = call, watchdog
            if self._closed.is_set():
                self._hang_up()  # `close` may have found no call
        return call, watchdog

    def _receive(self) -> None:
        """Feed one frame, or deal with a stream that broke."""
        error = None
        call, watchdog = self._open()
        try:
            with watchdog:
                frame = next(call)
        except StopIteration:
            pass
        except grpc.RpcError as rpc_error:
            if not watchdog.has_bitten:
                error = error_from_rpc(rpc_error)
        else:
            self._items += self._follower.feed(frame)
            return
        self._hang_up()
        if self._closed.is_set():
            return
        delay_s = self._follower.delay_after(error)
        self._disconnects += 1
        self._closed.wait(delay_s)


class EventStream(AsyncStream["RunEvent | Snapshot", _R, int]):
    """Asynchronous iterator over the events of a run, each once, until the run ends."""


class NamespaceStream(AsyncStream[NamespaceEvent, NamespaceEvent, str]):
    """Asynchronous iterator over the events of all runs of a namespace; it never ends."""


class SyncEventStream(SyncStream["RunEvent | Snapshot", _R, int]):
    """Iterator over the events of a run, each once, until the run ends."""


class SyncNamespaceStream(SyncStream[NamespaceEvent, NamespaceEvent, str]):
    """Iterator over the events of all runs of a namespace; it never ends."""


class _Watchdog:
    """Cancels a call when one `with` block around it takes too long.

    The sync stack has no other bound on the wait for a stream's next message. The time that the
    caller takes between messages does not count.
    """

    def __init__(self, call: StreamCall, limit_s: float) -> None:
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

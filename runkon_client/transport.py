"""Performing calls on either stack: retries, deadlines, metadata, errors.

The two classes do the same; each line that differs waits for bytes or for time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from runkon_client.errors import CallCancelledError, Code, error_from_rpc, unreadable_error
from runkon_client.retry import Attempts
from runkon_client.sizes import refuse_unsendable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from google.protobuf.message import Message

    from runkon_client.calls.call import Call, Page
    from runkon_client.channel import Endpoint, Options
    from runkon_client.retry import RetryPolicy

_T = TypeVar("_T")
CLOSE_S: Final = 2.0
"""For how long a sync client waits for gRPC to close its channel."""


def closed_error() -> CallCancelledError:
    """What a call comes to whose client was closed, before it or in the midst of it."""
    return CallCancelledError("the client was closed", code=Code.CANCELLED)


def is_cancelled() -> bool:
    """Whether a `CancelledError` is meant for this task; closing a channel raises it as well."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _read(call: Call[_T], data: bytes) -> _T:
    try:
        return call.read(data)
    except DecodeError as error:
        raise unreadable_error(call.path) from error


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class Followed(Protocol):
    """What a stream is opened for."""

    @property
    def path(self) -> str:
        """The method."""

    @property
    def response(self) -> type[Message]:
        """Its frames."""

    def request(self) -> Message:
        """What to open the next stream with."""


class StreamCall(Protocol):
    """A stream on the sync stack, as far as it is used here."""

    def __next__(self) -> Message: ...

    def cancel(self) -> object:
        """End it from this side; a wait in `next` fails."""

    def add_callback(self, callback: Callable[[], None]) -> object:
        """Call once it has ended."""


class AsyncTransport:
    """Calls on one channel, which belongs to the event loop that makes the first of them."""

    def __init__(self, endpoint: Endpoint, retry: RetryPolicy, options: Options) -> None:
        self.endpoint = endpoint
        self._retry = retry
        self._options = options
        self._is_closed = False
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Message, bytes]] = {}

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, which is opened by the first who asks.

        Raises:
            RuntimeError: another event loop opened it.
        """
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel = self.endpoint.open_async(self._options)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one in each loop")
        return self._channel

    async def close(self) -> None:
        """Close the channel; calls that are under way fail."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    async def perform(self, call: Call[_T], policy: RetryPolicy | None = None) -> _T:
        """Make the call until it succeeds, fails for good, or the retry window is over."""
        refuse_unsendable(call.request)
        channel = self.channel
        method = self._methods.get(call.path)
        if method is None:
            method = channel.unary_unary(call.path, _serialize, None)
            self._methods[call.path] = method
        attempts = Attempts(policy or self._retry, now=time.monotonic())
        while True:
            if self._is_closed:
                raise closed_error()
            try:
                data = await method(
                    call.request, timeout=call.timeout_s, metadata=self.endpoint.metadata
                )
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                raise closed_error() from None
            except grpc.RpcError as rpc_error:
                error = error_from_rpc(rpc_error)
                delay_s = attempts.delay_after(error, now=time.monotonic())
                if delay_s is None:
                    raise error from rpc_error
            else:
                return _read(call, data)
            await asyncio.sleep(delay_s)

    async def pages(self, page: Callable[[str], Call[Page[_T]]]) -> AsyncIterator[_T]:
        """Every item of a list, page after page; `page` makes the call for a token."""
        token = ""
        while True:
            found = await self.perform(page(token))
            for item in found.items:
                yield item
            token = found.next_token
            if not token:
                return

    def follow(self, followed: Followed) -> grpc.aio.UnaryStreamCall[Message, Message]:
        """Open one stream."""
        if self._is_closed:
            raise closed_error()
        method: grpc.aio.UnaryStreamMultiCallable[Message, Message] = self.channel.unary_stream(
            followed.path, _serialize, followed.response.FromString
        )
        return method(followed.request(), metadata=self.endpoint.metadata)


class SyncTransport:
    """Calls on one channel, from any thread."""

    def __init__(self, endpoint: Endpoint, retry: RetryPolicy) -> None:
        self.endpoint = endpoint
        self._retry = retry
        self._is_closed = False
        self._channel = endpoint.open_sync()
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Message, bytes]] = {}

    def close(self) -> None:
        """Close the channel; calls that are under way fail.

        gRPC waits without end for the thread that serves its streams. If Ctrl-C, or the handler of
        another signal, raised in the moment in which a stream began, there may be none. Then the
        channel is left to the end of the process, which must not hang for it.
        """
        self._is_closed = True
        closing = threading.Thread(target=self._channel.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def perform(self, call: Call[_T], policy: RetryPolicy | None = None) -> _T:
        """Make the call until it succeeds, fails for good, or the retry window is over."""
        refuse_unsendable(call.request)
        method = self._methods.get(call.path)
        if method is None:
            method = self._channel.unary_unary(call.path, _serialize, None)
            self._methods[call.path] = method
        attempts = Attempts(policy or self._retry, now=time.monotonic())
        while True:
            if self._is_closed:
                raise closed_error()
            try:
                data = method(call.request, timeout=call.timeout_s, metadata=self.endpoint.metadata)
            except grpc.RpcError as rpc_error:
                error = error_from_rpc(rpc_error)
                delay_s = attempts.delay_after(error, now=time.monotonic())
                if delay_s is None:
                    raise error from rpc_error
            except ValueError as reason:
                raise self._refused(reason) from reason
            else:
                return _read(call, data)
            time.sleep(delay_s)

    def pages(self, page: Callable[[str], Call[Page[_T]]]) -> Iterator[_T]:
        """Every item of a list, page after page; `page` makes the call for a token."""
        token = ""
        while True:
            found = self.perform(page(token))
            yield from found.items
            token = found.next_token
            if not token:
                return

    def follow(self, followed: Followed) -> StreamCall:
        """Open one stream."""
        if self._is_closed:
            raise closed_error()
        method: grpc.UnaryStreamMultiCallable[Message, Message] = self._channel.unary_stream(
            followed.path, _serialize, followed.response.FromString
        )
        try:
            return method(followed.request(), metadata=self.endpoint.metadata)
        except ValueError as reason:
            raise self._refused(reason) from reason

    def _refused(self, reason: ValueError) -> Exception:
        """What it means that gRPC takes no call: another thread may have closed the client."""
        return closed_error() if self._is_closed else reason

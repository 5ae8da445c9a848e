"""The outermost layer of every call: names it, guards it, answers for whatever is raised.

What it takes care of, so that no servicer has to:

* the call's id, method and principal, bound for logs; its outcome, told to an observer;
* messages that cannot be decoded are INVALID_ARGUMENT (gRPC would say UNKNOWN);
* what only administrators may do, only they do;
* field limits: a request that breaks one never reaches a servicer;
* calls without a deadline get one;
* domain errors and a database that is away get their status; anything else is a bug, logged with
  its traceback, and the caller learns a reference only (gRPC would send its text).
"""

from __future__ import annotations

import asyncio
import inspect
import re
from contextlib import aclosing
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import structlog
from google.protobuf.empty_pb2 import Empty
from grpc_status import rpc_status

from runkon_server import errors
from runkon_server.api import status
from runkon_server.api.identity import LocalIdentity, set_principal
from runkon_server.api.open_streams import OpenStreams
from runkon_server.api.parsing.table import validate
from runkon_server.store.failures import as_domain_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from types import TracebackType

    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

    from runkon_server.api.open_streams import OpenStream
    from runkon_server.runtime.ambient import Ambient

    Context = grpc.aio.ServicerContext[Any, Any]
    Continuation = Callable[
        [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
    ]

__all__ = ["CallGuard", "CallObserver", "Unobserved"]

log = structlog.get_logger(__name__)

DEADLINE_S: Final = 30.0
LONG_POLL_DEADLINE_S: Final = 60.0
_LONG_POLLS: Final = frozenset(
    {"/runkon.v1.RunService/AwaitRun", "/runkon.v1.WorkerService/PollTasks"}
)
_OURS: Final = "/runkon.v1."
_FOR_ADMINS: Final = "/runkon.v1.AdminService/"
_REQUEST_ID_KEY: Final = "x-request-id"
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_MALFORMED: Final = Empty()
"""Stands for a request that could not be decoded."""


class _Kind(Enum):
    """How a call is looked after while it lasts."""

    UNARY = auto()
    STREAM = auto()
    """Its caller is looked at again now and then."""
    EVENTS = auto()
    """So it is, and how many it has is limited."""


class CallObserver(Protocol):
    """Is told of every call; must not raise and not block."""

    def started(self, method: str) -> None:
        """A call began. `method` is `/package.Service/Method`."""

    def finished(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """It ended; a call whose client went away ends with CANCELLED."""


class Unobserved:
    """An observer that looks away."""

    def started(self, method: str) -> None:
        """Do nothing."""

    def finished(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """Do nothing."""


class CallGuard(grpc.aio.ServerInterceptor):
    """See the module.

    Args:
        ambient: clock for durations, ids for calls and references.
        observer: is told of every call.
        open_streams: knows callers, and which of them may have a stream.
    """

    def __init__(
        self,
        ambient: Ambient,
        observer: CallObserver | None = None,
        open_streams: OpenStreams | None = None,
    ) -> None:
        self.ambient = ambient
        self.observer = observer or Unobserved()
        self.streams = open_streams or OpenStreams(LocalIdentity())
        self._wrapped: dict[str, tuple[Any, grpc.RpcMethodHandler[Any, Any]]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the method with everything around it; None for an unknown method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        known, wrapped = self._wrapped.get(method, (None, None))
        if wrapped is None or known is not handler:
            wrapped = self._wrap(method, handler)
            self._wrapped[method] = (handler, wrapped)
        return wrapped

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        makers: dict[str, Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
            "unary_unary": grpc.unary_unary_rpc_method_handler,
            "unary_stream": grpc.unary_stream_rpc_method_handler,
            "stream_unary": grpc.stream_unary_rpc_method_handler,
            "stream_stream": grpc.stream_stream_rpc_method_handler,
        }
        kind = next(name for name in makers if getattr(handler, name) is not None)
        behaviour = self._guarded(method, handler, getattr(handler, kind))
        return makers[kind](
            behaviour,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=_unless_encoded(handler.response_serializer),
        )

    def _guarded(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], behaviour: Callable[..., Any]
    ) -> Callable[..., Any]:
        """The behaviour inside `_call`, of the same kind: a coroutine or a generator."""
        deadline_s = None
        if not handler.request_streaming and not handler.response_streaming:
            deadline_s = LONG_POLL_DEADLINE_S if method in _LONG_POLLS else DEADLINE_S
        checked = _checked_stream if handler.request_streaming else _checked
        kind = _kind_of(method, handler)

        if inspect.isasyncgenfunction(behaviour):

            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - any message
                async with (
                    _Call(self, method, context, kind),
                    aclosing(behaviour(checked(request), context)) as answers,
                ):
                    async for answer in answers:
                        yield answer

            return stream

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - as above
            async with _Call(self, method, context, kind, deadline_s):
                return await behaviour(checked(request), context)

        return call

    def failure(self, error: Exception, request_id: str) -> Status:
        """What a caller is told of an error; one that is nobody's fault but ours is logged."""
        known = error if isinstance(error, errors.RunkonError) else as_domain_error(error)
        if known is not None and type(known) in status.CODES:
            return status.to_status(known, request_id=request_id)
        reference = self.ambient.ulid()
        log.error("call.failed", reference=reference, exc_info=error)
        return status.internal(reference)


class _Call:
    """One call from begin to end, as an asynchronous context.

    A class, since a generator would be a frame more that every idle stream holds.
    """

    __slots__ = (
        "_began_s", "_context", "_deadline_s", "_guard", "_kind", "_limit", "_method",
        "_request_id", "_stream",
    )  # fmt: skip

    def __init__(
        self,
        guard: CallGuard,
        method: str,
        context: Context,
        kind: _Kind,
        deadline_s: float | None = None,
    ) -> None:
        self._guard = guard
        self._method = method
        self._context = context
        self._kind = kind
        self._deadline_s = deadline_s
        self._began_s = 0.0
        self._request_id = ""
        self._stream: OpenStream | None = None
        self._limit: asyncio.Timeout | None = None
        """Of calls that came without a deadline of their own."""

    async def __aenter__(self) -> None:
        self._began_s = self._guard.ambient.boottime_s()
        self._guard.observer.started(self._method)
        try:
            await self._begin()
        except BaseException as error:
            await self._finish(error)
            raise

    async def _begin(self) -> None:
        context = self._context
        metadata = tuple(context.invocation_metadata() or ())
        self._request_id = _given_request_id(metadata) or self._guard.ambient.ulid()
        structlog.contextvars.bind_contextvars(method=self._method, request_id=self._request_id)
        streams = self._guard.streams
        caller = streams.identity.identify(metadata, context.peer())
        set_principal(caller.principal)
        if self._method.startswith(_FOR_ADMINS) and not caller.is_admin:
            raise errors.AdminRequiredError(caller.principal)
        if self._kind is not _Kind.UNARY:
            stream = streams.admit(caller, is_counted=self._kind is _Kind.EVENTS)
            self._stream = stream.__enter__()
        elif self._deadline_s is not None and not _has_deadline(context):
            self._limit = await asyncio.timeout(self._deadline_s).__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._limit is not None:
            try:
                await self._limit.__aexit__(kind, error, traceback)
            except TimeoutError as expired:
                error = expired
        await self._finish(error)

    async def _finish(self, error: BaseException | None) -> None:
        """Answer for what was raised, unless gRPC has to see that itself."""
        if self._stream is not None:
            self._stream.__exit__()
        code, failure = self._outcome(error)
        guard = self._guard
        guard.observer.finished(self._method, code, guard.ambient.boottime_s() - self._began_s)
        if failure is not None:
            rendered = rpc_status.to_status(failure)
            await self._context.abort(rendered.code, rendered.details, rendered.trailing_metadata)

    def _outcome(self, error: BaseException | None) -> tuple[grpc.StatusCode, Status | None]:
        """What to tell the observer, and the caller if it is not told already."""
        if error is None:
            return grpc.StatusCode.OK, None
        if isinstance(error, grpc.aio.AbortError):
            return _code(self._context.code()), None
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            stream = self._stream
            if stream is None or stream.failure is None:
                return grpc.StatusCode.CANCELLED, None
            # The cancel was ours, and it is answered for.
            if stream.task is not None:
                stream.task.uncancel()
            error = stream.failure
        failure: Status | None = None
        if not isinstance(error, Exception):  # the process ends
            return grpc.StatusCode.OK, None
        if isinstance(error, TimeoutError) and self._limit is not None and self._limit.expired():
            failure = status.deadline_exceeded(self._deadline_s or 0, request_id=self._request_id)
        else:
            failure = self._guard.failure(error, self._request_id)
        return _code(failure.code), failure


def _kind_of(method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> _Kind:
    if not handler.response_streaming:
        return _Kind.UNARY
    is_ours = method.startswith(_OURS) and not handler.request_streaming
    return _Kind.EVENTS if is_ours else _Kind.STREAM


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """A deserializer that gives `_MALFORMED` instead of raising, so that the guard can answer."""
    assert deserialize is not None

    def decode(data: bytes) -> Any:  # noqa: ANN401 - any message
        try:
            return deserialize(data)
        except Exception:  # noqa: BLE001 - whatever a decoder may raise on bytes of a stranger
            return _MALFORMED

    return decode


def _unless_encoded(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    """A serializer that lets pass what is bytes already: frames that many streams share."""
    assert serialize is not None

    def encode(response: Any) -> bytes:  # noqa: ANN401 - any message
        return response if isinstance(response, bytes) else serialize(response)

    return encode


def _decoded(request: Message) -> Message:
    if request is _MALFORMED:
        raise errors.InvalidArgumentError(
            [errors.Violation("", "the bytes are no message of the type that the method takes")]
        )
    return request


def _checked(request: Any) -> Message:  # noqa: ANN401 - as above
    message = _decoded(request)
    validate(message)
    return message


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Message]:
    """Frames of a stream; what they say is checked by who reads them, piece by piece."""
    async for request in requests:
        yield _decoded(request)


def _has_deadline(context: Any) -> bool:  # noqa: ANN401 - the stubs do not know of None
    return context.time_remaining() is not None


def _given_request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The caller's own name for the call, if it is fit for a log."""
    for key, value in metadata:
        if key == _REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return None


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _code(code: int | grpc.StatusCode | None) -> grpc.StatusCode:
    if isinstance(code, grpc.StatusCode):
        return code
    return grpc.StatusCode.UNKNOWN if code is None else _CODES[code]

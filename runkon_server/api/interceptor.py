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
from contextlib import aclosing, asynccontextmanager, nullcontext
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
    from contextlib import AbstractContextManager

    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

    from runkon_server.api.identity import Caller
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
        self._ambient = ambient
        self._observer = observer or Unobserved()
        self._streams = open_streams or OpenStreams(LocalIdentity())
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
                    self._call(method, context, None, kind),
                    aclosing(behaviour(checked(request), context)) as answers,
                ):
                    async for answer in answers:
                        yield answer

            return stream

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - as above
            async with self._call(method, context, deadline_s, kind):
                return await behaviour(checked(request), context)

        return call

    @asynccontextmanager
    async def _call(
        self, method: str, context: Context, deadline_s: float | None, kind: _Kind
    ) -> AsyncIterator[None]:
        began_s = self._ambient.boottime_s()
        self._observer.started(method)
        code, failure = grpc.StatusCode.OK, None
        metadata = tuple(context.invocation_metadata() or ())
        request_id = _given_request_id(metadata) or self._ambient.ulid()
        structlog.contextvars.bind_contextvars(method=method, request_id=request_id)
        limit = asyncio.timeout(None if _has_deadline(context) else deadline_s)
        stream: OpenStream | None = None
        try:
            caller = self._streams.identity.identify(metadata, context.peer())
            set_principal(caller.principal)
            if method.startswith(_FOR_ADMINS) and not caller.is_admin:
                raise errors.AdminRequiredError(caller.principal)
            with self._admitted(caller, kind) as stream:
                async with limit:
                    yield
        except grpc.aio.AbortError:
            code = _code(context.code())
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if stream is None or stream.failure is None:
                code = grpc.StatusCode.CANCELLED
                raise
            # The cancel was ours, and it is answered for.
            if stream.task is not None:
                stream.task.uncancel()
            failure = self._failure(stream.failure, request_id)
            code = _code(failure.code)
        except Exception as error:  # noqa: BLE001 - nobody is left who could answer for it
            if isinstance(error, TimeoutError) and limit.expired():
                failure = status.deadline_exceeded(deadline_s or 0, request_id=request_id)
            else:
                failure = self._failure(error, request_id)
            code = _code(failure.code)
        finally:
            self._observer.finished(method, code, self._ambient.boottime_s() - began_s)
        if failure is not None:
            rendered = rpc_status.to_status(failure)
            await context.abort(rendered.code, rendered.details, rendered.trailing_metadata)

    def _admitted(self, caller: Caller, kind: _Kind) -> AbstractContextManager[OpenStream | None]:
        if kind is _Kind.UNARY:
            return nullcontext()
        return self._streams.admit(caller, is_counted=kind is _Kind.EVENTS)

    def _failure(self, error: Exception, request_id: str) -> Status:
        known = error if isinstance(error, errors.RunkonError) else as_domain_error(error)
        if known is not None and type(known) in status.CODES:
            return status.to_status(known, request_id=request_id)
        reference = self._ambient.ulid()
        log.error("call.failed", reference=reference, exc_info=error)
        return status.internal(reference)


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

"""Everything the client raises; a gRPC exception never leaves the package.

Which class is decided by the canonical code, what happened by `reason`: a stable word, listed in
the error reference, and empty when the answer did not come from a Runkon server.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, cast

from google.protobuf.message import DecodeError

# Their own stubs lie beside them, but the distribution does not mark itself as typed.
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import grpc

    from runkon.v1 import types_pb2

DOMAIN: Final = "runkon.dev"
_DETAILS_KEY: Final = "grpc-status-details-bin"


class Code(StrEnum):
    """Canonical code of an error, as gRPC names it."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


_BY_NUMBER: Final = dict(enumerate(Code, start=1))


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: a field of the request, a place of a source, or a state.

    `field` is the path of the field, or the subject of a violated precondition.
    """

    field: str
    description: str


class RunkonClientError(Exception):
    """A call failed, or a stream broke its promises."""

    def __init__(
        self,
        message: str,
        *,
        code: Code = Code.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = violations
        self.retry_after = retry_after

    def __str__(self) -> str:
        label = f"{self.code} {self.reason}".rstrip()
        return f"{self.message} [{label}]"


class InvalidArgumentError(RunkonClientError):
    """The request is wrong; `violations` name the places."""


class NotFoundError(RunkonClientError):
    """No such run, gate, workflow or task in the namespace."""


class AlreadyExistsError(RunkonClientError):
    """The key is in use, or the request id was used with another request."""


class PreconditionError(RunkonClientError):
    """Not in this state: the gate is resolved, the run is over."""


class OutOfRangeError(RunkonClientError):
    """A cursor that lies ahead of the newest event or below what is kept."""


class AbortedError(RunkonClientError):
    """The request lost a race; read again, then repeat."""


class ResourceExhaustedError(RunkonClientError):
    """A quota or a size limit was hit."""


class UnauthenticatedError(RunkonClientError):
    """No credential, or one that is not valid."""


class PermissionDeniedError(RunkonClientError):
    """The principal may not do this."""


class UnavailableError(RunkonClientError):
    """The server or its database is away; a mutation may have happened, see `reason`."""


class DeadlineExceededError(RunkonClientError):
    """No answer in time; a mutation may have happened."""


class UnimplementedError(RunkonClientError):
    """The server does not know the method: it is older, or it is not a Runkon server."""


class ServerFaultError(RunkonClientError):
    """A fault of the server; its message holds a reference for the server's log."""


class CallCancelledError(RunkonClientError):
    """The call was cut off before its answer came; a mutation may have happened."""


class WaitTimeoutError(RunkonClientError, TimeoutError):
    """The run had not ended when the time given to `wait` was over; it goes on."""


class EventGapError(RunkonClientError):
    """A stream left events out: the next one after `after_seq` was not `after_seq + 1`."""

    def __init__(self, run_id: str, after_seq: int, found_seq: int) -> None:
        super().__init__(
            f"run {run_id}: events after {after_seq} are missing, the stream is at {found_seq}",
            code=Code.DATA_LOSS,
            reason="EVENT_GAP",
        )
        self.run_id = run_id
        self.after_seq = after_seq
        self.found_seq = found_seq


_CLASSES: Final[Mapping[Code, type[RunkonClientError]]] = {
    Code.INVALID_ARGUMENT: InvalidArgumentError,
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: AlreadyExistsError,
    Code.FAILED_PRECONDITION: PreconditionError,
    Code.OUT_OF_RANGE: OutOfRangeError,
    Code.ABORTED: AbortedError,
    Code.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    Code.UNAUTHENTICATED: UnauthenticatedError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.UNAVAILABLE: UnavailableError,
    Code.DEADLINE_EXCEEDED: DeadlineExceededError,
    Code.UNIMPLEMENTED: UnimplementedError,
    Code.INTERNAL: ServerFaultError,
    Code.DATA_LOSS: ServerFaultError,
    Code.UNKNOWN: ServerFaultError,
    Code.CANCELLED: CallCancelledError,
}


class _Outcome(Protocol):
    """What the exceptions of both stacks say about a call; gRPC's base class does not."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_from_rpc(rpc_error: grpc.RpcError) -> RunkonClientError:
    """The error that a failed call means, of the sync stack or of the async one."""
    outcome = cast("_Outcome", rpc_error)
    code = Code(outcome.code().name)
    message = outcome.details() or "the call failed"
    for key, value in outcome.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            # Details that cannot be read are none of ours; the code and the message still hold.
            with contextlib.suppress(DecodeError):
                return _with_details(code, message, status_pb2.Status.FromString(value))
    return _CLASSES[code](message, code=code)


def unreadable_error(path: str) -> RunkonClientError:
    """The error of an answer that is not the contract's."""
    return ServerFaultError(f"the answer of {path} cannot be read", code=Code.DATA_LOSS)


def error_from_status(status: types_pb2.ErrorStatus) -> RunkonClientError:
    """The error inside an otherwise successful answer: of an item of a batch, or of an ack."""
    code = _BY_NUMBER.get(status.code, Code.UNKNOWN)
    return _CLASSES[code](
        status.message, code=code, reason=status.reason, metadata=dict(status.metadata)
    )


def _with_details(code: Code, message: str, status: status_pb2.Status) -> RunkonClientError:
    reason = ""
    metadata: dict[str, str] = {}
    violations: list[Violation] = []
    retry_after: timedelta | None = None
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    retry_info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            if info.domain == DOMAIN:
                reason = info.reason
                metadata = dict(info.metadata)
        elif detail.Unpack(bad_request):
            violations += [Violation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(precondition):
            violations += [Violation(v.subject, v.description) for v in precondition.violations]
        elif detail.Unpack(retry_info):
            delay = retry_info.retry_delay
            retry_after = timedelta(seconds=delay.seconds, microseconds=delay.nanos // 1000)
    return _CLASSES[code](
        message,
        code=code,
        reason=reason,
        metadata=metadata,
        violations=tuple(violations),
        retry_after=retry_after,
    )

"""Errors on the wire: the one place where a gRPC code is chosen.

Every error but an internal one carries a `google.rpc.ErrorInfo`; what else it carries depends on
its kind. All of it travels in the trailing metadata, of which clients take 8 KiB, so long texts
and long lists are cut here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration
from google.rpc import (
    error_details_pb2,
    status_pb2,
)
from grpc import StatusCode

from runkon.v1 import types_pb2
from runkon_server import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

__all__ = ["CODES", "DOMAIN", "deadline_exceeded", "error_status", "internal", "to_status"]

DOMAIN: Final = "runkon.dev"

CODES: Final[Mapping[type[errors.RunkonError], StatusCode]] = MappingProxyType(
    {
        errors.InvalidArgumentError: StatusCode.INVALID_ARGUMENT,
        errors.InputsInvalidError: StatusCode.INVALID_ARGUMENT,
        errors.DslSyntaxError: StatusCode.INVALID_ARGUMENT,
        errors.DslLimitError: StatusCode.INVALID_ARGUMENT,
        errors.DslSemanticError: StatusCode.INVALID_ARGUMENT,
        errors.DslUnsupportedError: StatusCode.INVALID_ARGUMENT,
        errors.PageTokenInvalidError: StatusCode.INVALID_ARGUMENT,
        errors.FilterInvalidError: StatusCode.INVALID_ARGUMENT,
        errors.CursorInvalidError: StatusCode.INVALID_ARGUMENT,
        errors.GateSelectionInvalidError: StatusCode.INVALID_ARGUMENT,
        errors.NotFoundError: StatusCode.NOT_FOUND,
        errors.WorkflowDeletedError: StatusCode.NOT_FOUND,
        errors.WorkflowNotFoundError: StatusCode.NOT_FOUND,
        errors.RunNotFoundError: StatusCode.NOT_FOUND,
        errors.RunPurgedError: StatusCode.NOT_FOUND,
        errors.StepNotFoundError: StatusCode.NOT_FOUND,
        errors.GateNotFoundError: StatusCode.NOT_FOUND,
        errors.TaskNotFoundError: StatusCode.NOT_FOUND,
        errors.RequestIdReusedError: StatusCode.ALREADY_EXISTS,
        errors.RunKeyInUseError: StatusCode.ALREADY_EXISTS,
        errors.ReportConflictError: StatusCode.ALREADY_EXISTS,
        errors.PreconditionError: StatusCode.FAILED_PRECONDITION,
        errors.RunStateError: StatusCode.FAILED_PRECONDITION,
        errors.StartRefusedError: StatusCode.FAILED_PRECONDITION,
        errors.RunIsChildError: StatusCode.FAILED_PRECONDITION,
        errors.ResumeRefusedError: StatusCode.FAILED_PRECONDITION,
        errors.GateTypeMismatchError: StatusCode.FAILED_PRECONDITION,
        errors.GateAlreadyResolvedError: StatusCode.FAILED_PRECONDITION,
        errors.GateTimedOutError: StatusCode.FAILED_PRECONDITION,
        errors.GateClosedError: StatusCode.FAILED_PRECONDITION,
        errors.TaskAttemptStaleError: StatusCode.FAILED_PRECONDITION,
        errors.GateStarterExcludedError: StatusCode.PERMISSION_DENIED,
        errors.AdminRequiredError: StatusCode.PERMISSION_DENIED,
        errors.CursorAheadError: StatusCode.OUT_OF_RANGE,
        errors.CursorExpiredError: StatusCode.OUT_OF_RANGE,
        errors.FeedExpiredError: StatusCode.OUT_OF_RANGE,
        errors.CursorForeignError: StatusCode.OUT_OF_RANGE,
        errors.StreamLimitError: StatusCode.RESOURCE_EXHAUSTED,
        errors.CredentialsRevokedError: StatusCode.UNAUTHENTICATED,
        errors.ResourceExhaustedError: StatusCode.RESOURCE_EXHAUSTED,
        errors.SlowConsumerError: StatusCode.RESOURCE_EXHAUSTED,
        errors.UnavailableError: StatusCode.UNAVAILABLE,
        errors.DatabaseUnavailableError: StatusCode.UNAVAILABLE,
        errors.DatabaseReadOnlyError: StatusCode.UNAVAILABLE,
        errors.DatabaseFullError: StatusCode.UNAVAILABLE,
        errors.DrainingError: StatusCode.UNAVAILABLE,
        errors.OutcomeUnknownError: StatusCode.UNAVAILABLE,
        errors.ConflictError: StatusCode.ABORTED,
        errors.LeaseLostError: StatusCode.ABORTED,
    }
)
"""The code of every domain error; subclasses stand for themselves."""

_EXISTING: Final[Mapping[type[errors.RunkonError], tuple[str, str]]] = MappingProxyType(
    {
        errors.RequestIdReusedError: ("request", "request_id"),
        errors.RunKeyInUseError: ("run", "run_id"),
        errors.ReportConflictError: ("task", "task_id"),
    }
)
"""What already exists: its type, and the metadata that names it."""

_RETRY_S: Final = MappingProxyType(
    {
        StatusCode.UNAVAILABLE: 1.0,
        StatusCode.RESOURCE_EXHAUSTED: 1.0,
        StatusCode.ABORTED: 0.1,
    }
)
"""How long a caller should wait before the next attempt, by code."""

_MESSAGE_BYTES: Final = 600
_VALUE_BYTES: Final = 400
_VIOLATION_BYTES: Final = 400
_VIOLATIONS_BYTES: Final = 2_400


def to_status(error: errors.RunkonError, *, request_id: str = "") -> status_pb2.Status:
    """Render a domain error for the trailing metadata of a call.

    Args:
        request_id: how the server's logs name the call; empty leaves it out.

    Raises:
        KeyError: `CODES` lacks the class; a test walks over all of them.
    """
    code = CODES[type(error)]
    status = status_pb2.Status(code=_number(code), message=_cut(error.message, _MESSAGE_BYTES))
    metadata = _metadata(error)
    details = _details(error, code)
    if isinstance(error, errors.InvalidArgumentError):
        shown, left_out = _bad_request(error)
        details.insert(0, shown)
        if left_out:
            metadata["violations_left_out"] = str(left_out)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    for detail in (info, *details, *_named(request_id)):
        status.details.add().Pack(detail)
    return status


def error_status(error: errors.RunkonError) -> types_pb2.ErrorStatus:
    """Render a domain error as a part of a successful answer."""
    return types_pb2.ErrorStatus(
        code=_number(CODES[type(error)]),
        message=_cut(error.message, _MESSAGE_BYTES),
        reason=error.reason,
        metadata=_metadata(error),
    )


def internal(reference: str) -> status_pb2.Status:
    """What a caller learns of a bug: a reference to look for in the logs, and nothing else."""
    return status_pb2.Status(
        code=_number(StatusCode.INTERNAL), message=f"internal error; ref={reference}"
    )


def deadline_exceeded(seconds: float, *, request_id: str = "") -> status_pb2.Status:
    """The deadline that the server gives to calls without one is over."""
    status = status_pb2.Status(
        code=_number(StatusCode.DEADLINE_EXCEEDED),
        message=f"no answer within {seconds:g} s; set a deadline to wait longer",
    )
    info = error_details_pb2.ErrorInfo(
        reason="DEADLINE_EXCEEDED", domain=DOMAIN, metadata={"seconds": f"{seconds:g}"}
    )
    for detail in (info, *_named(request_id)):
        status.details.add().Pack(detail)
    return status


def _number(code: StatusCode) -> int:
    number: int = code.value[0]
    return number


def _metadata(error: errors.RunkonError) -> dict[str, str]:
    return {name: _cut(value, _VALUE_BYTES) for name, value in error.metadata.items()}


def _details(error: errors.RunkonError, code: StatusCode) -> list[Message]:
    details: list[Message] = []
    if isinstance(error, errors.NotFoundError):
        details.append(_resource(error.kind, error.name, "not found"))
    elif type(error) in _EXISTING:
        kind, name = _EXISTING[type(error)]
        details.append(_resource(kind, error.metadata[name], error.message))
    elif isinstance(error, errors.PreconditionError):
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type="STATE",
            subject=_cut(error.subject, _VALUE_BYTES),
            description=_cut(error.state, _VALUE_BYTES),
        )
        details.append(failure)
    elif code is StatusCode.RESOURCE_EXHAUSTED:
        failure_of_quota = error_details_pb2.QuotaFailure()
        subject = next(iter(error.metadata.values()), "")
        failure_of_quota.violations.add(
            subject=_cut(subject, _VALUE_BYTES), description=_cut(error.message, _VALUE_BYTES)
        )
        details.append(failure_of_quota)
    if code in _RETRY_S:
        delay = Duration()
        delay.FromMilliseconds(int(_RETRY_S[code] * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _bad_request(error: errors.InvalidArgumentError) -> tuple[error_details_pb2.BadRequest, int]:
    """As many violations as there is room for, and how many are left out."""
    bad_request = error_details_pb2.BadRequest()
    room = _VIOLATIONS_BYTES
    for violation in error.violations:
        field = _cut(violation.field, _VIOLATION_BYTES)
        description = _cut(violation.description, _VIOLATION_BYTES)
        room -= len(field.encode()) + len(description.encode())
        if room < 0 and bad_request.field_violations:
            break
        bad_request.field_violations.add(field=field, description=description)
    return bad_request, len(error.violations) - len(bad_request.field_violations)


def _resource(kind: str, name: str, description: str) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=kind,
        resource_name=_cut(name, _VALUE_BYTES),
        description=_cut(description, _VALUE_BYTES),
    )


def _named(request_id: str) -> list[Message]:
    return [error_details_pb2.RequestInfo(request_id=request_id)] if request_id else []


def _cut(text: str, size: int) -> str:
    """The text in at most `size` bytes, with a mark where something is missing.

    Lone surrogates, which no message can carry, become `?`.
    """
    data = text.encode(errors="replace")
    if len(data) <= size:
        return data.decode()
    return data[: size - 3].decode(errors="ignore") + "…"

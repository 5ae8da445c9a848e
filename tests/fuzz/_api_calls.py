"""Making a call, and judging how it ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from runkon_server.api.status import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from fuzz._api_requests import Call

LIMIT_S: Final = 5.0
"""Longest that an answer may take; calls that wait for something are given less."""
PATIENCE_S: Final = 20.0
OPEN_S: Final = 0.2
"""How long calls that wait or stream are looked at."""
BETWEEN_S: Final = 0.005
"""Between the messages of a stream: the end of one that is refused meanwhile has to be seen."""
CUT: Final = "Internal error from Core"
"""What gRPC's client says when it was about to send while the server refused; not the answer."""
MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""What is larger, gRPC itself refuses."""
WAITING: Final = frozenset({"AwaitRun", "PollTasks"})
READ_MAX: Final = 8
Code = grpc.StatusCode
BUGS: Final = frozenset({Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS, Code.UNIMPLEMENTED})
DETAILS: Final = {
    Code.INVALID_ARGUMENT: "BadRequest",
    Code.NOT_FOUND: "ResourceInfo",
    Code.ALREADY_EXISTS: "ResourceInfo",
    Code.RESOURCE_EXHAUSTED: "QuotaFailure",
    Code.UNAVAILABLE: "RetryInfo",
    Code.ABORTED: "RetryInfo",
}
"""What an error has to carry besides its reason."""


@dataclass(slots=True)
class Outcome:
    """How a call ended, or how far it came."""

    code: grpc.StatusCode = Code.OK
    error: Any = None
    answers: list[Any] = field(default_factory=list)
    took_s: float = 0.0
    is_open: bool = False
    """It would have gone on: a stream, or one that waits."""


async def perform(channel: grpc.aio.Channel, call: Call) -> Outcome:
    """Make a call; one that lasts is given up after a while."""
    outcome = Outcome()
    method = call.method
    is_lasting = method.server_streaming or method.name in WAITING
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(OPEN_S if is_lasting else PATIENCE_S):
            async for answer in _answers(channel, call):
                outcome.answers.append(answer)
                if len(outcome.answers) >= READ_MAX:
                    break
    except TimeoutError:
        outcome.is_open = is_lasting
        outcome.code = Code.OK if is_lasting else Code.DEADLINE_EXCEEDED
    except grpc.aio.AioRpcError as error:
        outcome.code, outcome.error = error.code(), error
    outcome.took_s = time.monotonic() - began_s
    return outcome


async def _answers(channel: Any, call: Call) -> Any:
    method = call.method
    kind = (
        ("unary", "stream")[method.client_streaming],
        ("unary", "stream")[method.server_streaming],
    )
    make = getattr(channel, "_".join(kind))(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=_encoded,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    if method.client_streaming:
        running = make(_sent(call), metadata=call.metadata)
    else:
        running = make(call.messages[0], metadata=call.metadata)
    try:
        if method.server_streaming:
            async for answer in running:
                yield answer
        else:
            yield await running
    finally:
        running.cancel()


async def _sent(call: Call) -> Any:
    for message in call.messages:
        yield message
        await asyncio.sleep(BETWEEN_S)
    await asyncio.sleep(OPEN_S / 2)


def _encoded(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def complaints(call: Call, outcome: Outcome) -> Iterator[str]:
    """What is wrong with the way a call ended; the same words for the same fault."""
    name = call.method.name
    if outcome.took_s > LIMIT_S and not outcome.is_open:
        yield f"{name} takes longer than {LIMIT_S:g} s"
    for answer in outcome.answers:
        for inside in _errors_in(answer):
            if not inside.reason or not inside.message or inside.code in (0, 2, 12, 13, 15):
                yield f"{name} answers with an error of a part that is a bug: {inside.code}"
    if outcome.error is None or is_refused_by_grpc(call, outcome):
        return
    if outcome.code in BUGS or outcome.code is Code.DEADLINE_EXCEEDED:
        yield f"{name} ends with {outcome.code.name}"
    else:
        for each in _untold(call, outcome):
            yield f"{name} ends with {outcome.code.name} {each}"


def is_refused_by_grpc(call: Call, outcome: Outcome) -> bool:
    """Whether the error is none that the server chose."""
    if outcome.code is Code.RESOURCE_EXHAUSTED:
        return any(len(_encoded(message)) > MESSAGE_BYTES for message in call.messages)
    return outcome.code is Code.INTERNAL and str(outcome.error.details()).startswith(CUT)


def _errors_in(answer: Any) -> Iterator[Any]:
    """The errors that an answer tells of parts of its request."""
    for part in (*getattr(answer, "outcomes", ()), *getattr(answer, "acks", ())):
        if part.HasField("error"):
            yield part.error


def _untold(call: Call, outcome: Outcome) -> Iterator[str]:
    """What an error does not say."""
    status: Any = rpc_status.from_call(outcome.error)
    if status is None:
        yield "without details"
        return
    details = {detail.TypeName().rpartition(".")[2]: detail for detail in status.details}
    if not status.message.strip():
        yield "without a message"
    info = error_details_pb2.ErrorInfo()
    if "ErrorInfo" not in details or not details["ErrorInfo"].Unpack(info):
        yield "without ErrorInfo"
    elif info.domain != DOMAIN or not info.reason:
        yield f"with the reason {info.reason!r} of {info.domain!r}"
    wanted = DETAILS.get(outcome.code)
    if wanted is not None and wanted not in details:
        yield f"without {wanted}"
    if wanted == "BadRequest" and wanted in details:
        bad = error_details_pb2.BadRequest()
        details[wanted].Unpack(bad)
        yield from _unplaced(call, bad)


def _unplaced(call: Call, bad: Any) -> Iterator[str]:
    """Violations that name no place of the request, or do not say what is wrong there."""
    if not bad.field_violations:
        yield "without a violation"
    places = {each.name for each in call.method.input_type.fields}
    places |= {each.name for each in call.method.input_type.oneofs}
    places |= {name for name, _ in call.metadata}
    for violation in bad.field_violations:
        if not violation.description.strip():
            yield f"without a word on {violation.field}"
        first = (
            violation.field.replace("[", ".").replace(":", ".").replace(" ", ".").replace(",", ".")
        )
        is_whole = not violation.field and violation.description
        if not is_whole and first.split(".")[0] not in places:
            yield f"with the place {violation.field!r}, which the request does not have"

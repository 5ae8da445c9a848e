"""The guard of every call, against a real server whose servicer does as it is told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
import sqlalchemy.exc
import structlog
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from runkon.v1 import runs_pb2, runs_pb2_grpc, workers_pb2, workers_pb2_grpc
from runkon_server import errors
from runkon_server.api import interceptor
from runkon_server.api.identity import current_principal
from runkon_server.api.interceptor import CallGuard
from runkon_server.api.server import OPTIONS
from runkon_server.runtime.ambient import SystemAmbient
from support.rows import ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Script = Callable[[Any], Awaitable[None]]

RUN = ulid(1)
GET = runs_pb2.GetRunRequest(run_id=RUN)
STREAM = runs_pb2.StreamRunEventsRequest(run_id=RUN)
ANSWER = runs_pb2.GetRunResponse()
FRAME = runs_pb2.StreamRunEventsResponse()


class Observer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.ended: list[tuple[str, StatusCode]] = []

    def started(self, method: str) -> None:
        self.open.append(method.rpartition("/")[2])

    def finished(self, method: str, code: StatusCode, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append((method.rpartition("/")[2], code))

    async def has_ended(self) -> bool:
        return len(self.ended) == len(self.open) > 0


class Scripted:
    """One servicer for all kinds of calls; `script` is what it does."""

    def __init__(self) -> None:
        self.script: Script = self.nothing
        self.reached = 0

    async def nothing(self, context: Any) -> None:
        return

    async def GetRun(self, request: Any, context: Any) -> runs_pb2.GetRunResponse:
        self.reached += 1
        await self.script(context)
        return ANSWER

    async def StreamRunEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.reached += 1
        yield FRAME
        await self.script(context)

    async def Work(self, frames: Any, context: Any) -> None:
        """Writes its answers, as the servicer of the real method does."""
        async for _ in frames:
            self.reached += 1
            await self.script(context)
            await context.write(workers_pb2.WorkResponse())


class World:
    """A server, a way to call it, and what was seen."""

    def __init__(self, channel: grpc.aio.Channel, servicer: Scripted, observer: Observer) -> None:
        self.channel = channel
        self.servicer = servicer
        self.observer = observer
        self.runs = runs_pb2_grpc.RunServiceStub(channel)
        self.workers = workers_pb2_grpc.WorkerServiceStub(channel)

    async def failure(self, call: Awaitable[Any]) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        return raised.value


@asynccontextmanager
async def serving() -> AsyncIterator[World]:
    """A server with the options of the real one."""
    observer, servicer = Observer(), Scripted()
    server = grpc.aio.server(interceptors=[CallGuard(SystemAmbient(), observer)], options=OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetRun": grpc.unary_unary_rpc_method_handler(
            servicer.GetRun,
            request_deserializer=runs_pb2.GetRunRequest.FromString,
            response_serializer=runs_pb2.GetRunResponse.SerializeToString,
        ),
        "StreamRunEvents": grpc.unary_stream_rpc_method_handler(
            servicer.StreamRunEvents,
            request_deserializer=runs_pb2.StreamRunEventsRequest.FromString,
            response_serializer=runs_pb2.StreamRunEventsResponse.SerializeToString,
        ),
    }
    work = grpc.stream_stream_rpc_method_handler(
        servicer.Work,
        request_deserializer=workers_pb2.WorkRequest.FromString,
        response_serializer=workers_pb2.WorkResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("runkon.v1.RunService", handlers),
            grpc.method_handlers_generic_handler("runkon.v1.WorkerService", {"Work": work}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]
        ) as channel:
            yield World(channel, servicer, observer)
    finally:
        await server.stop(0)


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in an error's details; empty if there is none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an error is a call
    info = error_details_pb2.ErrorInfo()
    found = [each for each in status.details if each.Is(info.DESCRIPTOR)] if status else []
    for each in found:
        each.Unpack(info)
    return str(info.reason)


def raises(error: BaseException) -> Script:
    async def script(context: Any) -> None:
        raise error

    return script


async def test_calls_that_end_well_are_counted() -> None:
    async with serving() as world:
        await world.runs.GetRun(GET)
        assert [frame async for frame in world.runs.StreamRunEvents(STREAM)] == [FRAME]
        await eventually(world.observer.has_ended, "both to be told")

        assert world.observer.open == ["GetRun", "StreamRunEvents"]
        assert world.observer.ended == [
            ("GetRun", StatusCode.OK),
            ("StreamRunEvents", StatusCode.OK),
        ]


@pytest.mark.parametrize("kind", ["unary", "server stream", "both ways"])
async def test_a_domain_error_gets_its_status_in_every_kind_of_call(kind: str) -> None:
    async with serving() as world:
        world.servicer.script = raises(errors.RunNotFoundError(RUN))
        error = await world.failure(one_call(world, kind))

        assert (error.code(), reason(error)) == (StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        await eventually(world.observer.has_ended, "the end to be told")
        assert world.observer.ended[0][1] is StatusCode.NOT_FOUND


@pytest.mark.parametrize("kind", ["unary", "server stream", "both ways"])
async def test_a_bug_is_hidden_behind_a_reference_that_the_log_explains(kind: str) -> None:
    """No text of the exception reaches the caller, in no part of the status."""
    async with serving() as world:
        world.servicer.script = raises(ValueError("secret dsn=postgres://u:p@h/d"))
        with structlog.testing.capture_logs() as logs:
            error = await world.failure(one_call(world, kind))
        (logged,) = [each for each in logs if each["event"] == "call.failed"]

        assert error.code() is StatusCode.INTERNAL
        assert error.details() == f"internal error; ref={logged['reference']}"
        assert reason(error) == ""
        assert "secret" not in str(error)
        assert isinstance(logged["exc_info"], ValueError)


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.OperationalError("gone")),
        sqlalchemy.exc.TimeoutError("no connection in the pool"),
        psycopg.OperationalError("gone"),
        psycopg.InterfaceError("closed"),
    ],
    ids=["sqlalchemy", "pool", "driver", "interface"],
)
async def test_a_database_that_is_away_is_unavailable(error: Exception) -> None:
    async with serving() as world:
        world.servicer.script = raises(error)
        failure = await world.failure(world.runs.GetRun(GET))
        status = rpc_status.from_call(failure)  # type: ignore[arg-type]  # an error is a call

        assert (failure.code(), reason(failure)) == (
            StatusCode.UNAVAILABLE,
            "DATABASE_UNAVAILABLE",
        )
        assert status is not None
        assert any(each.TypeName() == "google.rpc.RetryInfo" for each in status.details)


def begin_call(world: World, kind: str) -> Any:
    """A call of a kind, on its way."""
    if kind == "unary":
        return world.runs.GetRun(GET)
    if kind == "server stream":
        return world.runs.StreamRunEvents(STREAM)
    return world.workers.Work(iter([workers_pb2.WorkRequest()]))


async def one_call(world: World, kind: str) -> None:
    """One call of a kind, to its end."""
    call = begin_call(world, kind)
    if kind == "unary":
        await call
    else:
        async for _ in call:
            pass


@pytest.mark.parametrize("method", ["RunService/GetRun", "RunService/StreamRunEvents"])
@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x12\x02\xc3\x28", b"\x0a" * 500],
    ids=["wire", "utf-8", "lengths"],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    method: str, garbage: bytes
) -> None:
    async with serving() as world:
        raw: Any = world.channel
        if method.endswith("GetRun"):
            call = raw.unary_unary(f"/runkon.v1.{method}")(garbage)
        else:
            call = raw.unary_stream(f"/runkon.v1.{method}")(garbage).read()
        error = await world.failure(call)

        assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert (error.details() or "").startswith("the bytes are no message")
        assert world.servicer.reached == 0


async def test_a_malformed_frame_ends_a_stream_of_requests_the_same_way() -> None:
    """The frame before it was served."""
    async with serving() as world:
        good = workers_pb2.WorkRequest(credit=1).SerializeToString()
        raw: Any = world.channel
        call = raw.stream_stream("/runkon.v1.WorkerService/Work")(iter([good, b"\xff"]))
        assert await call.read() == b""
        error = await world.failure(call.read())

        assert (error.code(), world.servicer.reached) == (StatusCode.INVALID_ARGUMENT, 1)


async def test_a_request_beyond_its_limits_never_reaches_the_servicer() -> None:
    async with serving() as world:
        unary = await world.failure(world.runs.GetRun(runs_pb2.GetRunRequest(run_id="../x")))
        stream = await world.failure(
            world.runs.StreamRunEvents(runs_pb2.StreamRunEventsRequest()).read()
        )

        assert unary.code() is stream.code() is StatusCode.INVALID_ARGUMENT
        assert unary.details() == "run_id: is not the id of a run"
        assert world.servicer.reached == 0


async def test_the_longest_error_fits_what_clients_take() -> None:
    """A hundred violations of a text that swells on the wire: the client still reads the status."""
    violations = [errors.Violation(f"source:{n}:1", "ü" * 90) for n in range(100)]
    async with serving() as world:
        world.servicer.script = raises(errors.DslSyntaxError(violations))
        for _ in range(20):  # a client refuses metadata over its soft limit by chance
            error = await world.failure(world.runs.GetRun(GET))

            assert (error.code(), reason(error)) == (StatusCode.INVALID_ARGUMENT, "DSL_SYNTAX")


async def test_a_call_without_a_deadline_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servicer would wait for ever; a caller with a deadline of its own is not cut short.

    He has his answer from a servicer that takes six times as long as calls without one may.
    """
    monkeypatch.setattr(interceptor, "DEADLINE_S", 0.05)
    async with serving() as world:
        world.servicer.script = waits_for_ever
        error = await world.failure(world.runs.GetRun(GET))
        world.servicer.script = takes_its_time
        answer = await world.runs.GetRun(GET, timeout=60)

        assert (error.code(), reason(error)) == (
            StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_EXCEEDED",
        )
        assert answer == ANSWER


async def waits_for_ever(context: Any) -> None:
    await asyncio.Event().wait()


async def takes_its_time(context: Any) -> None:
    await asyncio.sleep(0.3)


async def test_a_timeout_inside_a_servicer_is_a_bug_and_no_deadline() -> None:
    async with serving() as world:
        world.servicer.script = raises(TimeoutError())

        assert (await world.failure(world.runs.GetRun(GET))).code() is StatusCode.INTERNAL


@pytest.mark.parametrize("kind", ["unary", "server stream", "both ways"])
async def test_a_client_that_goes_away_is_counted_as_cancelled(kind: str) -> None:
    """The call is cancelled while the servicer waits; the servicer is cancelled, too."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def script(context: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving() as world:
        world.servicer.script = script
        # A task that reads is not enough: cancelled before it knows that its request was sent, it
        # leaves the call alone.
        call = begin_call(world, kind)
        await asyncio.wait_for(began.wait(), 60)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 60)
        await eventually(world.observer.has_ended, "the end to be told")

        assert [code for _, code in world.observer.ended] == [StatusCode.CANCELLED]


async def test_a_status_that_a_servicer_chose_itself_stays() -> None:
    async def script(context: Any) -> None:
        await context.abort(StatusCode.DATA_LOSS, "holes")

    async with serving() as world:
        world.servicer.script = script
        error = await world.failure(world.runs.GetRun(GET))
        await eventually(world.observer.has_ended, "the end to be told")

        assert (error.code(), error.details()) == (StatusCode.DATA_LOSS, "holes")
        assert world.observer.ended == [("GetRun", StatusCode.DATA_LOSS)]


@pytest.mark.parametrize(
    ("metadata", "principal"),
    [
        ((), "anonymous"),
        ((("runkon-principal", "zoe"),), "zoe"),
        ((("runkon-principal", "adam"), ("runkon-principal", "zoe b.")), "zoe b."),
    ],
    ids=["none", "one", "last"],
)
async def test_the_principal_is_who_the_metadata_says(
    metadata: tuple[tuple[str, str], ...], principal: str
) -> None:
    seen: list[str] = []

    async def script(context: Any) -> None:
        seen.append(current_principal())

    async with serving() as world:
        world.servicer.script = script
        await world.runs.GetRun(GET, metadata=metadata)
        async for _ in world.runs.StreamRunEvents(STREAM, metadata=metadata):
            pass

        assert seen == [principal] * 2


async def test_a_principal_without_a_name_or_an_end_is_refused() -> None:
    async with serving() as world:
        for name in ("", "x" * 257):
            error = await world.failure(
                world.runs.GetRun(GET, metadata=(("runkon-principal", name),))
            )

            assert error.code() is StatusCode.INVALID_ARGUMENT
        assert world.servicer.reached == 0


async def test_logs_of_a_call_name_it() -> None:
    """The caller's own id if it is fit for a log, else one of ours; the method either way."""
    seen: list[dict[str, Any]] = []

    async def script(context: Any) -> None:
        seen.append(structlog.contextvars.get_contextvars())

    async with serving() as world:
        world.servicer.script = script
        await world.runs.GetRun(GET, metadata=(("x-request-id", "call-7"),))
        await world.runs.GetRun(GET, metadata=(("x-request-id", "x" * 129),))

        assert [each["method"] for each in seen] == ["/runkon.v1.RunService/GetRun"] * 2
        assert seen[0]["request_id"] == "call-7"
        assert len(seen[1]["request_id"]) == 26


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving() as world:
        raw: Any = world.channel
        error = await world.failure(raw.unary_unary("/runkon.v1.RunService/No")(b""))

        assert error.code() is StatusCode.UNIMPLEMENTED


async def test_a_message_beyond_four_mebibytes_is_too_large() -> None:
    """Also one that only unpacks to that."""
    async with serving() as world:
        raw: Any = world.channel
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            call = raw.unary_unary("/runkon.v1.RunService/GetRun")
            error = await world.failure(call(bytes(5 * 1024 * 1024), compression=compression))

            assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert world.servicer.reached == 0

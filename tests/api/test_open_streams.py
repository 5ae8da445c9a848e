"""Who may have streams, how many, and for how long: the guard, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from sqlalchemy import text

from runkon.v1 import runs_pb2, runs_pb2_grpc
from runkon_server.api.hub import Hub
from runkon_server.api.identity import Caller, principal_of
from runkon_server.api.open_streams import OpenStreams, StreamLimits
from runkon_server.api.streams import EventStreams
from runkon_server.runtime.ambient import SystemAmbient
from support.feeds import refusal_of
from support.live_api import Refusal
from support.replicas import FakeReplica, read, serving
from support.rows import add_events, add_run, engine_of, ulid
from support.told import as_bytes, stored
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

RUN = ulid(1)


class Register:
    """An identity whose credentials can be revoked: the name is the credential."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.until_s: float | None = None
        self.is_away = False
        self.asked = 0

    def identify(self, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Caller:
        name = principal_of(metadata, peer)
        return Caller(name, peer, credentials=name, until_s=self.until_s)

    async def still_holds(self, caller: Caller) -> bool:
        self.asked += 1
        if self.is_away:
            raise OSError("nobody answers")
        return caller.credentials not in self.revoked


class _Runs(runs_pb2_grpc.RunServiceServicer):
    """The one method under test."""

    def __init__(self, streams: EventStreams) -> None:
        self._streams = streams

    def StreamRunEvents(  # type: ignore[override] # as the servicer of the real method does it
        self, request: runs_pb2.StreamRunEventsRequest, context: Any
    ) -> Coroutine[Any, Any, None]:
        return self._streams.serve(request, context)


class Bench:
    """Streams behind the guard, and a channel of the test's own."""

    def __init__(self, channel: grpc.aio.Channel, streams: OpenStreams, hub: Hub) -> None:
        self.streams = streams
        self.hub = hub
        self._stub = runs_pb2_grpc.RunServiceStub(channel)

    async def open(self, name: str = "", after_seq: int = 0) -> Any:
        """A stream whose header has come."""
        metadata = (("runkon-principal", name),) if name else ()
        call = self._stub.StreamRunEvents(
            runs_pb2.StreamRunEventsRequest(run_id=RUN, after_seq=after_seq), metadata=metadata
        )
        await read(call)
        return call


@contextlib.asynccontextmanager
async def bench_on(
    database: str, register: Register, limits: StreamLimits | None = None
) -> AsyncIterator[Bench]:
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, RUN)
        replica = FakeReplica(engine)
        hub = Hub(replica)
        servicer = _Runs(EventStreams(replica, hub))  # type: ignore[abstract] # one is called
        streams = OpenStreams(register, limits)

        def add(server: grpc.aio.Server) -> None:
            runs_pb2_grpc.add_RunServiceServicer_to_server(servicer, server)

        async with serving(add, open_streams=streams) as channel:
            yield Bench(channel, streams, hub)


async def test_an_idle_stream_holds_two_frames_and_no_event(database: str) -> None:
    """The guard's and its own: compared with what exists before the streams do.

    What every stream holds is what a replica's memory goes to: each frame on the way costs a
    quarter of a KiB, an `asyncio.Event` three of them.
    """
    async with bench_on(database, Register()) as bench:
        (await bench.open()).cancel()  # so that connections and the like are there
        await until(lambda: not _held()["_guarded.<locals>.call"], "its end")
        before = _held()

        calls = [await bench.open() for _ in range(10)]
        expected = before + Counter({"_guarded.<locals>.call": 10, "run": 10})
        await until(lambda: _held() == expected, "all are idle")

        assert len(calls) == bench.hub.watches_open == 10


def _held() -> Counter[str]:
    """Coroutines and generators of the server by name, and events of asyncio, that exist.

    What has ended may lie in a ring with its traceback, until the collector comes by.
    """
    gc.collect()
    held: Counter[str] = Counter()
    for each in gc.get_objects():
        if isinstance(each, CoroutineType | GeneratorType | AsyncGeneratorType):
            code = getattr(each, "cr_code", None) or getattr(each, "gi_code", None)
            if code is not None and "runkon_server" in code.co_filename:
                held[each.__qualname__.partition(".")[2]] += 1
        elif isinstance(each, asyncio.Event):
            held["asyncio.Event"] += 1
    return held


async def test_a_revocation_ends_streams_that_are_open(database: str) -> None:
    """Of that caller only; one question per credentials; nothing is left behind."""
    register = Register()
    async with bench_on(database, register) as bench:
        zoe = [await bench.open("zoe") for _ in range(3)]
        await bench.open("ada")
        register.revoked.add("zoe")

        await bench.streams.recheck(0)
        ends = [await refusal_of(call) for call in zoe]
        await until(lambda: bench.hub.watches_open == 1, "that one is left")

    assert [end.code for end in ends] == [StatusCode.UNAUTHENTICATED] * 3
    assert {end.reason for end in ends} == {"CREDENTIALS_REVOKED"}
    assert register.asked == 2


async def test_a_revocation_in_mid_page_costs_no_event_once_it_is_taken_back(
    database: str,
) -> None:
    """Two readers at one place, more history than a connection holds; one of them is sent away.

    Both histories are the table's, byte for byte.
    """
    register, count = Register(), 600
    async with bench_on(database, register) as bench, engine_of(database) as engine:
        async with engine.connect() as conn:
            progress = ("step_progress", {"step_id": "s", "progress": "ü" * 2_000})
            await add_events(conn, RUN, *[progress] * count)
            await conn.execute(text("UPDATE workflow_runs SET last_seq = :n"), {"n": count})
        whole = await stored(engine, RUN)
        zoe, ada = await bench.open("zoe"), await bench.open("ada")
        histories = [as_bytes((await read(call)).events.events) for call in (zoe, ada)]
        register.revoked.add("zoe")
        await bench.streams.recheck(0)
        refused = await collect(zoe, histories[0], count)
        before = len(histories[0])
        register.revoked.clear()
        again = await bench.open("zoe", after_seq=before)
        await collect(again, histories[0], count)
        await collect(ada, histories[1], count)

    assert refused == StatusCode.UNAUTHENTICATED
    assert before < count
    assert [history == whole for history in histories] == [True, True]


async def collect(call: Any, history: list[bytes], count: int) -> StatusCode | None:
    """Add what comes until there are so many events; the code if the stream is refused before."""
    try:
        while len(history) < count:
            history += as_bytes((await read(call)).events.events)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_credentials_that_run_out_end_their_streams(database: str) -> None:
    """At that moment, not at the next minute's look: the loop sleeps no longer."""
    register = Register()
    register.until_s = 50.0
    async with bench_on(database, register) as bench:
        call = await bench.open("zoe")
        await bench.streams.recheck(49.9)
        pause_s = bench.streams._pause_s(49.9)
        await bench.streams.recheck(50.0)
        pause_behind_s = bench.streams._pause_s(50.1)

        assert (await refusal_of(call)).reason == "CREDENTIALS_REVOKED"
    assert pause_s == pytest.approx(0.1)
    assert pause_behind_s > 1  # a stream on its way out is not waited for in a spin


async def test_who_cannot_be_asked_about_may_stay(database: str) -> None:
    register = Register()
    register.is_away = True
    async with bench_on(database, register) as bench:
        await bench.open("zoe")
        await bench.streams.recheck(0)

        assert bench.hub.watches_open == 1


async def test_the_loop_looks_by_itself(database: str) -> None:
    register = Register()
    async with bench_on(database, register) as bench:
        call = await bench.open("zoe")
        register.revoked.add("zoe")
        bench.streams._recheck_s = 0.01
        following = asyncio.create_task(bench.streams.follow(SystemAmbient()))

        assert (await refusal_of(call)).reason == "CREDENTIALS_REVOKED"
        following.cancel()


@pytest.mark.parametrize(
    ("limits", "names", "subject"),
    [
        (StreamLimits(per_connection=2), ["", ""], "this connection"),
        (StreamLimits(per_principal=2), ["zoe", "zoe"], "zoe"),
    ],
)
async def test_one_stream_too_many_is_refused(
    database: str, limits: StreamLimits, names: list[str], subject: str
) -> None:
    """The one beyond the limit; when another is closed there is room again."""
    async with bench_on(database, Register(), limits) as bench:
        calls = [await bench.open(name) for name in names]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await bench.open(names[0])
        calls[0].cancel()
        await until(lambda: bench.hub.watches_open == 1, "room")

        await bench.open(names[0])

    refusal = Refusal(raised.value)
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "STREAM_LIMIT")
    assert refusal.metadata == {"subject": subject, "limit": "2"}


async def test_callers_without_a_name_are_not_one_principal(database: str) -> None:
    async with bench_on(database, Register(), StreamLimits(per_principal=1)) as bench:
        for _ in range(3):
            await bench.open()

        assert bench.hub.watches_open == 3

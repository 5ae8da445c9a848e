"""StreamRunEvents over real gRPC, on real PostgreSQL; the engine is one that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sqlalchemy import text

from runkon.v1 import events_pb2, runs_pb2, runs_pb2_grpc, types_pb2
from runkon_server.api.hub import Hub
from runkon_server.api.streams import EventStreams
from runkon_server.runtime.commands import EventRecord
from support.replicas import FakeReplica, read, serving
from support.rows import NOON, add_events, add_run, add_step, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

RUN = ulid(1)
DONE = ("run_finished", {"status": "completed"})
PROGRESS = ("step_progress", {"step_id": "s", "step_name": "s", "progress": "on it"})


class _Runs(runs_pb2_grpc.RunServiceServicer):
    """The one method under test."""

    def __init__(self, streams: EventStreams) -> None:
        self._streams = streams

    async def StreamRunEvents(  # type: ignore[override] # grpc.aio also takes coroutines
        self, request: runs_pb2.StreamRunEventsRequest, context: Any
    ) -> None:
        await self._streams.serve(request, context)


class Bench:
    """A served hub and what a test needs around it."""

    def __init__(
        self,
        replica: FakeReplica,
        hub: Hub,
        streams: EventStreams,
        stub: runs_pb2_grpc.RunServiceAsyncStub,
    ) -> None:
        self.replica = replica
        self.hub = hub
        self.streams = streams
        self._stub = stub

    def waiting_for_snapshots(self) -> int:
        """How many streams wait for their turn to read one."""
        return len(self.streams.snapshots._waiters or ())

    async def add(self, *events: tuple[str, dict[str, Any]], first: int = 1) -> None:
        """Commit events, on some other replica."""
        async with self.replica.reads.connect() as conn:
            await add_events(conn, RUN, *events, first_seq=first)
            await conn.execute(
                text("UPDATE workflow_runs SET last_seq = :n WHERE id = :id"),
                {"n": first + len(events) - 1, "id": RUN},
            )

    async def execute(self, statement: str) -> None:
        async with self.replica.reads.connect() as conn:
            await conn.execute(text(statement), {"id": RUN})

    def open(self, **fields: Any) -> Any:
        return self._stub.StreamRunEvents(
            runs_pb2.StreamRunEventsRequest(**{"run_id": RUN, **fields})
        )


@contextlib.asynccontextmanager
async def bench_on(engine: AsyncEngine, write_s: float = 30) -> AsyncIterator[Bench]:
    replica = FakeReplica(engine)
    hub = Hub(replica)
    streams = EventStreams(replica, hub, write_s=write_s)
    servicer = _Runs(streams)  # type: ignore[abstract] # the other methods are not called

    def add(server: grpc.aio.Server) -> None:
        runs_pb2_grpc.add_RunServiceServicer_to_server(servicer, server)

    async with serving(add) as channel:
        yield Bench(replica, hub, streams, runs_pb2_grpc.RunServiceStub(channel))


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, RUN)
        async with bench_on(engine) as made:
            yield made


def record(seq: int, kind: str = "step_progress", payload: str = "{}") -> EventRecord:
    return EventRecord(RUN, seq, 1, kind, NOON, 1, payload)


async def header_of(call: Any) -> runs_pb2.StreamHeader:
    frame = await read(call)
    assert frame.WhichOneof("frame") == "header", frame
    header: runs_pb2.StreamHeader = frame.header
    return header


async def events_of(call: Any) -> list[int]:
    """Sequences of the next frame, which is one of events."""
    frame = await read(call)
    assert frame.WhichOneof("frame") == "events", frame
    return [event.seq for event in frame.events.events]


async def rest_of(call: Any) -> tuple[list[int], runs_pb2.StreamEnd]:
    """Sequences of all further events, and the end."""
    seqs: list[int] = []
    while True:
        frame = await read(call)
        if frame.WhichOneof("frame") == "end":
            assert await read(call) is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            return seqs, frame.end
        assert frame.events.events[-1].seq == frame.events.examined_seq
        seqs += [event.seq for event in frame.events.events]


async def _drained(call: Any) -> None:
    while await read(call) is not grpc.aio.EOF:
        pass


async def failure_of(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """How the call fails: its code, and its details by their type."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await _drained(call)
    status = rpc_status.from_call(failed.value)  # type: ignore[arg-type] # it has what is asked
    assert status is not None
    details: dict[str, Any] = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
        for packed in status.details:
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                details[kind.__name__] = detail
    return failed.value.code(), details


async def test_a_stream_opens_with_a_header(bench: Bench) -> None:
    """The first frame says where the run stands, where the stream begins and who serves it."""
    await bench.add(PROGRESS, PROGRESS, PROGRESS)

    header = await header_of(bench.open(after_seq=1))

    assert (header.oldest_seq, header.head_seq, header.after_seq) == (1, 3, 1)
    assert header.replica == "replica-1"
    assert header.server_time.seconds > NOON.timestamp() - 1e9


async def test_a_run_without_events_has_a_header_too(bench: Bench) -> None:
    """A pending run is followed from nothing."""
    header = await header_of(bench.open())

    assert (header.oldest_seq, header.head_seq, header.after_seq) == (1, 0, 0)


async def test_replay_gives_every_event_and_the_end(bench: Bench) -> None:
    """600 events come in order, in several frames; then the end, and the call is OK."""
    await bench.add(*[PROGRESS] * 599, DONE)
    await bench.execute(
        "UPDATE workflow_runs SET status = 'completed', ended_at = now() WHERE id = :id"
    )
    call = bench.open(from_start=True)
    await header_of(call)

    seqs, end = await rest_of(call)

    assert seqs == list(range(1, 601))
    assert (end.head_seq, end.epoch) == (600, 1)
    assert end.status == types_pb2.RUN_STATUS_COMPLETED


async def test_a_cursor_is_exclusive(bench: Bench) -> None:
    """`after_seq` 2 begins with 3."""
    await bench.add(PROGRESS, PROGRESS, PROGRESS, DONE)
    call = bench.open(after_seq=2)
    await header_of(call)

    seqs, _ = await rest_of(call)

    assert seqs == [3, 4]


async def test_a_finished_run_ends_at_once_when_there_is_nothing_left(bench: Bench) -> None:
    """A client that reconnects with the last sequence learns that it was the last."""
    await bench.add(PROGRESS, DONE)
    await bench.execute("UPDATE workflow_runs SET status='failed', ended_at=now() WHERE id = :id")
    call = bench.open(after_seq=2)
    await header_of(call)

    seqs, end = await rest_of(call)

    assert seqs == []
    assert end.status == types_pb2.RUN_STATUS_FAILED


async def test_a_resumed_run_goes_on_after_its_first_end(bench: Bench) -> None:
    """The event that ended epoch 1 is no end of the stream when there is an epoch 2."""
    await bench.add(PROGRESS, DONE, PROGRESS, PROGRESS)
    await bench.execute(
        "UPDATE run_events SET epoch = 2, kind = CASE seq WHEN 4 THEN 'run_finished' ELSE kind END"
        " WHERE run_id = :id AND seq > 2"
    )
    await bench.execute(
        "UPDATE workflow_runs SET status='completed', ended_at=now(), epoch=2 WHERE id = :id"
    )
    call = bench.open()
    await header_of(call)

    seqs, end = await rest_of(call)

    assert seqs == [1, 2, 3, 4]
    assert end.epoch == 2


async def test_a_frame_carries_at_most_a_mebibyte(bench: Bench) -> None:
    """50 events of 60 KiB come in frames that stay below the limit."""
    long = ("step_progress", {"step_id": "s", "progress": "x" * 60 * 1024})
    await bench.add(*[long] * 50, DONE)
    call = bench.open()
    await header_of(call)
    sizes, seqs = [], []

    while (frame := await read(call)).WhichOneof("frame") == "events":
        sizes.append(frame.ByteSize())
        seqs += [event.seq for event in frame.events.events]

    assert seqs == list(range(1, 52))
    assert max(sizes) <= 1024 * 1024 + 64
    assert len(sizes) == 3


async def test_what_the_engine_tells_needs_no_read(bench: Bench) -> None:
    """Events that are not in the table at all arrive, so they came straight from the engine."""
    call = bench.open()
    await header_of(call)

    bench.replica.tell(RUN, [record(1), record(2)])
    first = await events_of(call)
    bench.replica.tell(RUN, [record(3, *_done())])
    seqs, _ = await rest_of(call)

    assert (first, seqs) == ([1, 2], [3])


async def test_a_gap_in_what_the_engine_tells_is_read(bench: Bench) -> None:
    """Sequence 1 was committed by another replica: it comes from the table, before 2."""
    call = bench.open()
    await header_of(call)
    await bench.add(PROGRESS, PROGRESS)

    bench.replica.tell(RUN, [record(2)])
    seqs = await events_of(call)

    assert seqs == [1, 2]


@pytest.mark.parametrize("run_id", [RUN, "*"])
async def test_a_hint_without_events_makes_the_table_be_read(bench: Bench, run_id: str) -> None:
    """For the run itself and for every run."""
    call = bench.open()
    await header_of(call)
    await bench.add(PROGRESS)

    bench.replica.tell(run_id, None)

    assert await events_of(call) == [1]


async def test_without_any_hint_events_come_with_the_next_look(bench: Bench) -> None:
    """The look at the table every second is the guarantee."""
    following = asyncio.create_task(bench.hub.follow(bench.replica.ambient))
    call = bench.open()
    await header_of(call)

    await bench.add(PROGRESS)

    assert await events_of(call) == [1]
    following.cancel()


async def test_readers_faster_than_the_writer_see_each_event_once(bench: Bench) -> None:
    """Events one by one, told of in any way, in between hints about nothing; three readers."""
    calls = [bench.open(from_start=True) for _ in range(3)]
    for call in calls:
        await header_of(call)
    reading = [asyncio.create_task(rest_of(call)) for call in calls]
    for seq in range(1, 91):
        await bench.add(DONE if seq == 90 else PROGRESS, first=seq)
        match seq % 3:
            case 0:
                bench.replica.tell(RUN, [record(seq)] if seq < 90 else None)
            case 1:
                bench.replica.tell(RUN, None)
            case _:
                bench.replica.tell("*", None)
        bench.replica.tell(RUN, None)
    histories = await asyncio.gather(*reading)

    assert [seqs for seqs, _ in histories] == [list(range(1, 91))] * 3
    assert [end.head_seq for _, end in histories] == [90] * 3


async def test_from_now_leaves_out_what_was(bench: Bench) -> None:
    """The stream begins above the head it found."""
    await bench.add(PROGRESS, PROGRESS)
    call = bench.open(from_now=True)
    header = await header_of(call)

    bench.replica.tell(RUN, [record(3)])

    assert header.after_seq == 2
    assert await events_of(call) == [3]


async def test_from_snapshot_begins_with_the_state(bench: Bench) -> None:
    """The run and its steps as of the newest event, then what comes after it."""
    await bench.add(PROGRESS, PROGRESS)
    async with bench.replica.reads.connect() as conn:
        await add_step(conn, RUN, "b.0001", result_text="x" * 20_000)
        await add_step(conn, RUN, "b.0002", epoch=1)
    call = bench.open(from_snapshot=True)
    header = await header_of(call)

    frame = await read(call)
    bench.replica.tell(RUN, [record(3)])

    assert header.after_seq == frame.snapshot.seq == frame.snapshot.run.last_seq == 2
    assert frame.snapshot.run.id == RUN
    assert [step.step_name for step in frame.snapshot.steps] == ["b.0001", "b.0002"]
    assert len(frame.snapshot.steps[0].result_text) == 16 * 1024
    assert frame.snapshot.last
    assert await events_of(call) == [3]


async def test_the_end_follows_a_snapshot_that_knows_of_it(bench: Bench) -> None:
    """The run ends between the reading of head and snapshot, which is held up meanwhile."""
    await bench.add(PROGRESS)
    await bench.streams.snapshots.acquire()
    await bench.streams.snapshots.acquire()
    call = bench.open(from_snapshot=True)

    async def is_at_the_snapshot() -> bool:
        return bench.streams.snapshots.locked() and bool(bench.waiting_for_snapshots())

    await eventually(is_at_the_snapshot, "the stream waits for its turn")
    await bench.add(DONE, first=2)
    await bench.execute(
        "UPDATE workflow_runs SET status = 'completed', ended_at = now() WHERE id = :id"
    )
    bench.streams.snapshots.release()
    header = await header_of(call)
    snapshot = (await read(call)).snapshot
    end = (await read(call)).end

    assert (header.after_seq, snapshot.seq, end.head_seq) == (2, 2, 2)
    assert snapshot.run.status == end.status == types_pb2.RUN_STATUS_COMPLETED


async def test_a_large_snapshot_comes_in_chunks(bench: Bench) -> None:
    """900 steps with texts: the run in the first chunk, `last` on the last, one seq in all."""
    async with bench.replica.reads.connect() as conn:
        for number in range(900):
            await add_step(conn, RUN, f"b.{number:04}", result_text="x" * 4096)
    call = bench.open(from_snapshot=True)
    await header_of(call)
    chunks = [(await read(call)).snapshot]

    while not chunks[-1].last:
        chunks.append((await read(call)).snapshot)

    names = [step.step_name for chunk in chunks for step in chunk.steps]
    assert names == [f"b.{number:04}" for number in range(900)]
    assert [chunk.HasField("run") for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert len(chunks) > 3
    assert max(chunk.ByteSize() for chunk in chunks) <= 1024 * 1024 + 64


async def test_a_filter_says_how_far_it_looked(bench: Bench) -> None:
    """Only the kinds asked for come; each frame names the last sequence examined."""
    await bench.add(PROGRESS, ("run_unblocked", {}), PROGRESS, PROGRESS)
    call = bench.open(
        kinds=[events_pb2.EVENT_KIND_RUN_UNBLOCKED], heartbeat_interval=timedelta(seconds=1)
    )
    await header_of(call)

    batch = (await read(call)).events
    heartbeat = (await read(call)).heartbeat

    assert [event.seq for event in batch.events] == [2]
    assert batch.examined_seq == 4
    assert (heartbeat.examined_seq, heartbeat.head_seq) == (4, 4)


async def test_the_end_comes_although_its_event_is_filtered_out(bench: Bench) -> None:
    """A filter hides events, never the end."""
    await bench.add(PROGRESS, DONE)
    call = bench.open(kinds=[events_pb2.EVENT_KIND_RUN_UNBLOCKED])
    await header_of(call)

    frame = await read(call)

    assert frame.end.head_seq == 2


async def test_a_quiet_stream_has_a_pulse(bench: Bench) -> None:
    """Nothing happens: heartbeats say so."""
    call = bench.open(heartbeat_interval=timedelta(seconds=1))
    await header_of(call)

    beats = [(await read(call)).WhichOneof("frame") for _ in range(2)]

    assert beats == ["heartbeat", "heartbeat"]


async def test_a_cursor_above_the_head_is_refused(bench: Bench) -> None:
    """CURSOR_AHEAD names the head."""
    await bench.add(PROGRESS)

    code, details = await failure_of(bench.open(after_seq=2))

    assert code is grpc.StatusCode.OUT_OF_RANGE
    assert details["ErrorInfo"].reason == "CURSOR_AHEAD"
    assert details["ErrorInfo"].metadata["head_seq"] == "1"


@pytest.mark.parametrize("after_seq", [0, 1])
async def test_a_cursor_below_what_is_kept_is_refused(bench: Bench, after_seq: int) -> None:
    """Events 1 and 2 are purged: CURSOR_EXPIRED names the oldest."""
    await bench.add(PROGRESS, PROGRESS, PROGRESS)
    await bench.execute("DELETE FROM run_events WHERE run_id = :id AND seq <= 2")

    code, details = await failure_of(bench.open(after_seq=after_seq))

    assert code is grpc.StatusCode.OUT_OF_RANGE
    assert details["ErrorInfo"].reason == "CURSOR_EXPIRED"
    assert details["ErrorInfo"].metadata["oldest_seq"] == "3"


async def test_a_cursor_at_the_edge_of_what_is_kept_is_good(bench: Bench) -> None:
    """Events 1 and 2 are purged: after 2 misses nothing."""
    await bench.add(PROGRESS, PROGRESS, PROGRESS)
    await bench.execute("DELETE FROM run_events WHERE run_id = :id AND seq <= 2")
    call = bench.open(after_seq=2)
    await header_of(call)

    assert await events_of(call) == [3]


@pytest.mark.parametrize("fields", [{"run_id": ulid(2)}, {"namespace": "other"}])
async def test_an_unknown_run_is_not_found(bench: Bench, fields: dict[str, str]) -> None:
    """So is a run of another namespace."""
    code, details = await failure_of(bench.open(**fields))

    assert code is grpc.StatusCode.NOT_FOUND
    assert details["ErrorInfo"].reason == "RUN_NOT_FOUND"


async def test_a_drain_ends_streams_with_advice(bench: Bench) -> None:
    """Open and new streams alike: UNAVAILABLE, and when to come again."""
    call = bench.open()
    await header_of(call)

    bench.replica.drain()

    for ended in (call, bench.open()):
        code, details = await failure_of(ended)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details["ErrorInfo"].reason == "DRAINING"
        assert details["RetryInfo"].HasField("retry_delay")


async def test_a_reader_that_does_not_read_is_given_up(database: str) -> None:
    """40 MiB of events that nobody takes: SLOW_CONSUMER with the cursor, once they are taken."""
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, RUN)
        async with bench_on(engine, write_s=2) as bench:
            long = ("step_progress", {"step_id": "s", "progress": "x" * 60 * 1024})
            await bench.add(*[long] * 650)
            call = bench.open()
            await header_of(call)
            await all_gone(bench.hub)

            code, details = await failure_of(call)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "SLOW_CONSUMER"
    assert 0 < int(details["ErrorInfo"].metadata["after_seq"]) < 650


async def test_a_client_that_goes_away_leaves_nothing_behind(bench: Bench) -> None:
    """The hub forgets a run when its last stream is gone."""
    call = bench.open()
    await header_of(call)
    assert bench.hub.watches_open == 1

    call.cancel()

    await all_gone(bench.hub)


async def all_gone(hub: Hub) -> None:
    async def is_empty() -> bool:
        return hub.watches_open == 0

    await eventually(is_empty, "no stream is left")


def _done() -> tuple[str, str]:
    return "run_finished", '{"status": "completed"}'

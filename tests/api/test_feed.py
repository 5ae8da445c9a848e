"""StreamNamespaceEvents over real gRPC: order, cursors, filters, who shares what."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
from grpc import StatusCode
from sqlalchemy import event, text

from runkon.v1 import events_pb2, runs_pb2, runs_pb2_grpc
from runkon_server.api import feed
from runkon_server.api.feed import FeedHub
from runkon_server.api.feed_cursors import FeedCursors
from runkon_server.api.namespace_stream import NamespaceStreams
from runkon_server.api.pacing import Pace
from runkon_server.store.feed_floors import raise_floors
from runkon_server.store.reads.feed import FeedPlace
from support.feeds import events_until, frame_of, refusal_of
from support.replicas import FakeReplica, read, serving
from support.rows import add_events, add_run, engine_of, ulid
from support.waiting import eventually, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from support.live_api import Refusal

ONE, TWO = ulid(1), ulid(2)
PROGRESS = ("step_progress", {"step_id": "s", "progress": "on it"})
STEP = ("step_started", {"step": {"id": "s", "status": "running"}})


class _Runs(runs_pb2_grpc.RunServiceServicer):
    """The one method under test."""

    def __init__(self, streams: NamespaceStreams) -> None:
        self._streams = streams

    async def StreamNamespaceEvents(  # type: ignore[override] # grpc.aio also takes coroutines
        self, request: runs_pb2.StreamNamespaceEventsRequest, context: Any
    ) -> None:
        await self._streams.serve(request, context)


class Bench:
    """A served feed and what a test needs around it."""

    def __init__(
        self, replica: FakeReplica, hub: FeedHub, cursors: FeedCursors, channel: grpc.aio.Channel
    ) -> None:
        self.replica = replica
        self.hub = hub
        self.cursors = cursors
        self._stub = runs_pb2_grpc.RunServiceStub(channel)

    async def add(self, run_id: str, *events: tuple[str, dict[str, Any]], first: int = 1) -> None:
        """Commit events and say so."""
        async with self.replica.reads.connect() as conn:
            await add_events(conn, run_id, *events, first_seq=first)
        self.replica.tell(run_id, None)

    def open(self, **fields: Any) -> Any:
        return self._stub.StreamNamespaceEvents(runs_pb2.StreamNamespaceEventsRequest(**fields))

    async def refused(self, **fields: Any) -> Refusal:
        return await refusal_of(self.open(**fields))


@contextlib.asynccontextmanager
async def bench_on(engine: AsyncEngine, write_s: float = 30) -> AsyncIterator[Bench]:
    """A replica with feeds on the database."""
    replica = FakeReplica(engine)
    cursors = FeedCursors(replica)
    hub = FeedHub(replica, cursors)
    servicer = _Runs(  # type: ignore[abstract] # the other methods are not called
        NamespaceStreams(replica, hub, cursors, write_s=write_s)
    )

    def add(server: grpc.aio.Server) -> None:
        runs_pb2_grpc.add_RunServiceServicer_to_server(servicer, server)

    async with serving(add) as channel:
        following = asyncio.create_task(hub.follow(replica.ambient))
        try:
            yield Bench(replica, hub, cursors, channel)
        finally:
            following.cancel()


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, ONE)
            await add_run(conn, TWO, workflow_name="x", details={"labels": {"team": "core"}})
        async with bench_on(engine) as made:
            yield made


def names(found: list[runs_pb2.NamespaceEvent]) -> list[tuple[str, int]]:
    return [(each.event.run_id, each.event.seq) for each in found]


async def test_a_feed_replays_then_follows(bench: Bench) -> None:
    """The header first; every event with its workflow and a cursor of its own."""
    await bench.add(TWO, PROGRESS)
    await bench.add(ONE, PROGRESS, STEP)
    call = bench.open()
    header = await frame_of(call, "header")
    replayed = await events_until(call, 3)
    await bench.add(TWO, PROGRESS, first=2)
    live = await events_until(call, 1)

    assert header.replica == "replica-1"
    assert header.cursor
    assert names(replayed) == [(TWO, 1), (ONE, 1), (ONE, 2)]
    assert [each.workflow_name for each in replayed] == ["x", "w", "w"]
    assert replayed[2].event.step_started.step.id == "s"
    assert names(live) == [(TWO, 2)]
    assert len({each.cursor for each in (*replayed, *live)}) == 4


async def test_a_heartbeat_means_that_nothing_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the way there takes: here a frame is due before each of many small pages."""
    monkeypatch.setattr(feed, "PAGE_EVENTS", 2)
    monkeypatch.setattr(Pace, "is_due", property(lambda _: True))
    await bench.add(ONE, *[PROGRESS] * 9)
    sent: list[int] = []

    stream = bench.open()
    async for frame in stream:
        if frame.WhichOneof("frame") == "heartbeat":
            break
        sent += [each.event.seq for each in frame.events.events]
    stream.cancel()

    assert sent == [*range(1, 10)]


async def test_a_cursor_goes_on_after_its_event_on_any_replica(bench: Bench) -> None:
    """Each event's cursor, used on a second replica of the same database."""
    await bench.add(ONE, PROGRESS, PROGRESS)
    await bench.add(TWO, PROGRESS)
    call = bench.open()
    await frame_of(call, "header")
    whole = await events_until(call, 3)

    async with bench_on(bench.replica.reads) as other:
        for number, each in enumerate(whole[:2]):
            resumed = other.open(cursor=each.cursor)
            await frame_of(resumed, "header")
            rest = await events_until(resumed, 2 - number)
            assert names(rest) == names(whole)[number + 1 :]
            assert [each.cursor for each in rest] == [each.cursor for each in whole[number + 1 :]]


async def test_from_now_leaves_out_what_was(bench: Bench) -> None:
    await bench.add(ONE, PROGRESS)

    async def is_settled() -> bool:
        return (await bench.hub.horizon()).held_s is None

    await eventually(is_settled, "the horizon")
    call = bench.open(from_now=True)
    await frame_of(call, "header")
    await bench.add(ONE, PROGRESS, first=2)

    assert names(await events_until(call, 1)) == [(ONE, 2)]


async def test_filters_must_all_hold(bench: Bench) -> None:
    """By workflow, label and kind; the cursor passes over what is left out."""
    await bench.add(TWO, PROGRESS, STEP)
    await bench.add(ONE, STEP)
    wanted = {"workflow_name": "x", "labels": {"team": "core"}}
    call = bench.open(kinds=[events_pb2.EVENT_KIND_STEP_STARTED], **wanted)
    await frame_of(call, "header")
    found = await events_until(call, 1)
    await bench.add(TWO, STEP, first=3)

    assert names(found) == [(TWO, 2)]
    assert names(await events_until(call, 1)) == [(TWO, 3)]


async def test_an_open_transaction_holds_back_and_the_lag_says_so(
    bench: Bench, database: str
) -> None:
    """Nothing is sent past it; once it is over, both come in order."""
    call = bench.open(from_now=True, heartbeat_interval=timedelta(seconds=1))
    await frame_of(call, "header")
    async with await psycopg.AsyncConnection.connect(database) as older:
        await older.execute(
            "INSERT INTO run_events VALUES (%s, 1, 1, 'step_progress', now(), 1, DEFAULT, '{}')",
            (ONE,),
        )
        await bench.add(TWO, PROGRESS)
        beat = await frame_of(call, "heartbeat")
        await older.commit()

    assert beat.lag.ToTimedelta() > timedelta(0)
    assert names(await events_until(call, 2)) == [(ONE, 1), (TWO, 1)]


async def test_without_any_hint_events_come_with_the_next_look(bench: Bench) -> None:
    call = bench.open(from_now=True)
    await frame_of(call, "header")
    async with bench.replica.reads.connect() as conn:
        await add_events(conn, ONE, PROGRESS)

    assert names(await events_until(call, 1)) == [(ONE, 1)]


async def test_all_who_wait_at_one_place_cost_one_read(bench: Bench) -> None:
    """30 readers of one query, one event: each of them gets it, and one page was read for it."""
    calls = [bench.open(from_now=True) for _ in range(30)]
    for call in calls:
        await frame_of(call, "header")
    await until(lambda: bench.hub.watches_open == 30, "the readers")
    await bench.add(ONE, PROGRESS)
    for call in calls:
        await events_until(call, 1)
    await until(lambda: len(bench.hub._groups) == 1, "that all wait")
    pages = 0

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal pages
        pages += "WITH span" in statement

    event.listen(bench.replica.reads.sync_engine, "before_cursor_execute", note)
    await bench.add(ONE, PROGRESS, first=2)
    found = [names(await events_until(call, 1)) for call in calls]
    event.remove(bench.replica.reads.sync_engine, "before_cursor_execute", note)

    assert found == [[(ONE, 2)]] * 30
    assert pages <= 4  # each look reads one; the poll or the horizon may ask for another


async def test_readers_that_go_away_leave_nothing_behind(bench: Bench) -> None:
    call = bench.open()
    await frame_of(call, "header")
    await until(lambda: bool(bench.hub._groups), "the reader waits")

    call.cancel()

    await until(lambda: not bench.hub._groups and not bench.hub.watches_open, "its end")


async def test_a_drain_ends_feeds_with_advice(bench: Bench) -> None:
    call = bench.open()
    await frame_of(call, "header")
    bench.replica.drain()

    refused = await refusal_of(call)

    assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
    assert "RetryInfo" in refused.kinds


async def test_a_reader_that_does_not_read_learns_its_place(database: str) -> None:
    """40 MiB are more than the connection holds; the cursor in the error goes on without a gap."""
    text_ = "x" * 60_000
    large = ("step_progress", {"step_id": "s", "progress": text_})
    async with engine_of(database) as engine, bench_on(engine, write_s=2) as bench:
        async with engine.connect() as conn:
            await add_run(conn, ONE)
            await add_events(conn, ONE, *[large] * 700)
        call = bench.open()
        await frame_of(call, "header")
        await until(lambda: not bench.hub.watches_open, "the end of the stream")
        frames: list[Any] = []
        refused = await refusal_of(call, frames)
        seen = [each.event.seq for frame in frames for each in frame.events.events]
        resumed = bench.open(cursor=refused.metadata["cursor"])
        await frame_of(resumed, "header")
        rest = [each.event.seq for each in (await read(resumed)).events.events]

    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
    assert seen == list(range(1, len(seen) + 1))
    assert rest[0] <= len(seen) + 1  # gRPC may have lost what it had taken and not sent


async def test_cursors_that_lead_nowhere_are_refused(bench: Bench, database: str) -> None:
    """Garbage, forged, of another namespace, of another cluster, of a future, expired."""
    await bench.add(ONE, PROGRESS)
    call = bench.open()
    good = (await frame_of(call, "header")).cursor
    place = (await bench.hub.horizon()).xid
    bench.cursors._cluster += 1
    foreign = bench.cursors.seal("default", FeedPlace(place, ONE, 1))
    bench.cursors._cluster -= 1
    future = bench.cursors.seal("default", FeedPlace(place + 1_000_000, ONE, 1))
    async with bench.replica.reads.connect() as conn:
        await raise_floors(conn, [ONE])

    reasons = [
        (await bench.refused(**fields)).reason
        for fields in (
            {"cursor": "no cursor!"},
            {"cursor": good[:-2] + ("AA" if good[-2:] != "AA" else "BB")},
            {"cursor": good, "namespace": "other"},
            {"cursor": foreign},
            {"cursor": future},
            {"cursor": good},
        )
    ]

    assert reasons == [*["CURSOR_INVALID"] * 3, *["CURSOR_FOREIGN"] * 2, "FEED_EXPIRED"]


@pytest.mark.parametrize("offset", [-1, 0, 1])
async def test_the_floor_of_retention(bench: Bench, offset: int) -> None:
    """A cursor in the last transaction that was removed, or above, has lost nothing."""
    await bench.add(ONE, PROGRESS)
    async with bench.replica.reads.connect() as conn:
        await conn.execute(text("INSERT INTO feed_floors VALUES ('default', '3')"))
    await bench.cursors.prepare()
    cursor = bench.cursors.seal("default", FeedPlace(3 + offset, ulid(9), 1))

    if offset < 0:
        assert (await bench.refused(cursor=cursor)).reason == "FEED_EXPIRED"
    else:
        call = bench.open(cursor=cursor)
        await frame_of(call, "header")
        assert names(await events_until(call, 1)) == [(ONE, 1)]


async def test_a_failed_look_is_tried_again(bench: Bench) -> None:
    """The database refuses one read; the readers do not notice."""
    call = bench.open(from_now=True)
    await frame_of(call, "header")
    await until(lambda: bool(bench.hub._groups), "the reader waits")
    async with bench.replica.reads.connect() as conn:
        await conn.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                 " WHERE datname = current_database() AND pid <> pg_backend_pid()")
        )  # fmt: skip
    await bench.add(ONE, PROGRESS)

    assert names(await events_until(call, 1)) == [(ONE, 1)]

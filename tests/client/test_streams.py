"""Following a run's events, on both stacks, against a server that misbehaves by script."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from client.peers import (
    RUN_ID,
    Drop,
    Hang,
    Peer,
    end,
    events,
    faithful,
    header,
    heartbeat,
    serve,
    snapshot,
)

from runkon.v1 import runs_pb2
from runkon_client import (
    CallCancelledError,
    Client,
    EventGapError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    RunkonClientError,
    ServerFaultError,
    SyncClient,
)
from runkon_client.values import AlwaysStarted, EventKind, RunStatus, Snapshot, UnknownEvent
from runkon_server.verify.ports import kept_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = timedelta(milliseconds=60)


@dataclass
class Seen:
    """What a caller got out of a stream until it ended or failed."""

    items: list[Any]
    cursor: int | None
    disconnects: int
    error: RunkonClientError | None = None

    @property
    def seqs(self) -> list[int]:
        return [item.seq for item in self.items]


async def follow(stack: str, peer: Peer, *, snapshot_first: bool = False, **options: Any) -> Seen:
    """The whole stream, read by the client of one stack."""
    async with serve(peer) as address, asyncio.timeout(60):
        if stack == "sync":
            return await asyncio.to_thread(_follow_sync, address, snapshot_first, options)
        async with Client(address) as client:
            handle = client.run(RUN_ID)
            stream = (handle.snapshot_events if snapshot_first else handle.events)(**options)
            seen = Seen([], None, 0)
            try:
                async for item in stream:
                    seen.items.append(item)
            except RunkonClientError as error:
                seen.error = error
            seen.cursor, seen.disconnects = stream.cursor, stream.disconnects
            return seen


def _follow_sync(address: str, snapshot_first: bool, options: dict[str, Any]) -> Seen:  # noqa: FBT001 - for to_thread
    with SyncClient(address) as client:
        handle = client.run(RUN_ID)
        stream = (handle.snapshot_events if snapshot_first else handle.events)(**options)
        seen = Seen([], None, 0)
        try:
            for item in stream:
                seen.items.append(item)
        except RunkonClientError as error:
            seen.error = error
        seen.cursor, seen.disconnects = stream.cursor, stream.disconnects
        return seen


def scripted(*scripts: list[Any]) -> Peer:
    """A peer whose first stream is the first script, and so on."""
    peer = Peer()
    peer.plan = lambda number, _request: scripts[number]
    return peer


both_stacks = pytest.mark.parametrize("stack", ["async", "sync"])


@both_stacks
@pytest.mark.parametrize("cut", range(9))
async def test_a_drop_at_any_frame_loses_and_doubles_nothing(stack: str, cut: int) -> None:
    """The first stream of five events breaks after `cut` frames, the second one is whole."""
    peer = Peer()

    def plan(number: int, request: runs_pb2.StreamRunEventsRequest) -> list[Any]:
        frames = faithful(5, request)
        return [*frames[:cut], Drop()] if number == 0 and cut < len(frames) else frames

    peer.plan = plan

    seen = await follow(stack, peer)

    assert seen.seqs == [1, 2, 3, 4, 5]
    assert seen.error is None
    assert seen.cursor == 5
    assert seen.disconnects == len(peer.opened) - 1 == (1 if cut < 8 else 0)


@both_stacks
async def test_a_clean_close_without_an_end_is_no_end(stack: str) -> None:
    """Proxies close streams as if all were well; only the `end` frame ends the iteration."""
    peer = scripted([header(), events(1, 2)], [header(2)], [header(2), events(3), end(3)])

    seen = await follow(stack, peer)

    assert seen.seqs == [1, 2, 3]
    assert [request.after_seq for request in peer.opened] == [0, 2, 2]


@both_stacks
async def test_duplicates_are_passed_over(stack: str) -> None:
    """A batch that repeats what was sent, as after a reconnect to a server that rounds down."""
    peer = scripted([header(), events(1, 2), events(1, 2, 3), events(3), end(3)])

    assert (await follow(stack, peer)).seqs == [1, 2, 3]


GAPS: dict[str, list[Any]] = {
    "in a batch": [header(), events(1, 3), end(3)],
    "between batches": [header(), events(1), events(3), end(3)],
    "before the first event": [header(3), events(4), end(4)],
    "seen by a heartbeat": [header(), events(1), heartbeat(3)],
    "seen by a batch's examined sequence": [header(), events(1, examined=2)],
    "seen at the end": [header(), events(1), end(2)],
}


@both_stacks
@pytest.mark.parametrize("script", GAPS.values(), ids=GAPS)
async def test_a_gap_is_an_error(stack: str, script: list[Any]) -> None:
    """Wherever it shows; what came before it was handed out."""
    seen = await follow(stack, scripted(script))

    assert isinstance(seen.error, EventGapError)
    assert seen.seqs in ([], [1])
    assert seen.error.after_seq == (seen.seqs or [0])[-1]


@both_stacks
async def test_a_filter_passes_over_events_without_a_gap(stack: str) -> None:
    """With kinds, the examined sequence moves the cursor; the next stream begins there."""
    kinds = [EventKind.ALWAYS_STARTED]
    peer = scripted(
        [header(), events(3, examined=7), heartbeat(9), Drop()],
        [header(9), events(12, examined=12), end(14)],
    )

    seen = await follow(stack, peer, kinds=kinds)

    assert seen.seqs == [3, 12]
    assert [request.after_seq for request in peer.opened] == [0, 9]
    assert seen.cursor == 14
    assert all([*request.kinds] == [33] for request in peer.opened), (
        "33 is ALWAYS_STARTED in the contract"
    )


@both_stacks
async def test_a_header_ahead_of_the_cursor_is_a_gap(stack: str) -> None:
    """With a filter nothing else could show that the stream begins too late."""
    peer = scripted([header(), events(1), Drop()], [header(3), events(4), end(4)])

    seen = await follow(stack, peer, kinds=[EventKind.ALWAYS_STARTED])

    assert seen.seqs == [1]
    assert isinstance(seen.error, EventGapError)
    assert (seen.error.after_seq, seen.error.found_seq) == (1, 4)


@both_stacks
async def test_silence_means_another_stream(stack: str) -> None:
    """A stream that is open and says nothing for three heartbeats is given up."""
    peer = scripted([header(), events(1), Hang()], [Hang()], [header(1), events(2), end(2)])

    seen = await follow(stack, peer, heartbeat=FEW)

    assert seen.seqs == [1, 2]
    assert seen.disconnects == 2
    assert peer.opened[0].heartbeat_interval.ToMilliseconds() == 60


@both_stacks
async def test_from_now_keeps_its_place_over_a_drop(stack: str) -> None:
    """Once the header told where "now" is, the next stream goes on from there."""
    peer = scripted([Drop()], [header(7), Drop()], [header(7), events(8), end(8)])

    seen = await follow(stack, peer, from_now=True)

    assert seen.seqs == [8]
    cursors = [(request.WhichOneof("cursor"), request.after_seq) for request in peer.opened]
    assert cursors == [("from_now", 0), ("from_now", 0), ("after_seq", 7)]


@both_stacks
async def test_a_snapshot_comes_whole_then_events(stack: str) -> None:
    """Chunks of a broken stream are thrown away; a complete snapshot is never asked for twice."""
    peer = scripted(
        [header(), snapshot(4, "a", last=False), Drop()],
        [header(), snapshot(5, "a", last=False), snapshot(5, "b", run=False), events(6), Drop()],
        [header(6), events(7), end(7)],
    )

    seen = await follow(stack, peer, snapshot_first=True)

    first = seen.items[0]
    assert isinstance(first, Snapshot)
    assert (first.seq, first.run.status) == (5, RunStatus.RUNNING)
    assert [step.id for step in first.steps] == ["a", "b"]
    assert seen.seqs == [5, 6, 7]
    cursors = [request.WhichOneof("cursor") for request in peer.opened]
    assert cursors == ["from_snapshot", "from_snapshot", "after_seq"]


SURVIVED = {
    "drain": Drop(reason="DRAINING", retry_after_s=0.01),
    "slow consumer": Drop(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="SLOW_CONSUMER"),
    "reset by a proxy": Drop(grpc.StatusCode.INTERNAL, message="Received RST_STREAM"),
    "cancelled by a proxy": Drop(grpc.StatusCode.CANCELLED),
    "deadline of a proxy": Drop(grpc.StatusCode.DEADLINE_EXCEEDED),
}


@both_stacks
@pytest.mark.parametrize("drop", SURVIVED.values(), ids=SURVIVED)
async def test_what_may_be_over_in_a_moment_is_survived(stack: str, drop: Drop) -> None:
    """Whatever does not say that another stream would fail as well."""
    peer = scripted([header(), events(1), drop], [header(1), events(2), end(2)])

    assert (await follow(stack, peer)).seqs == [1, 2]


FINAL: dict[str, tuple[Drop, type[RunkonClientError]]] = {
    "no such run": (Drop(grpc.StatusCode.NOT_FOUND, reason="RUN_NOT_FOUND"), NotFoundError),
    "cursor expired": (
        Drop(grpc.StatusCode.OUT_OF_RANGE, reason="CURSOR_EXPIRED", metadata={"oldest_seq": "9"}),
        OutOfRangeError,
    ),
    "a fault": (Drop(grpc.StatusCode.INTERNAL, reason="INTERNAL"), ServerFaultError),
    "too large": (Drop(grpc.StatusCode.RESOURCE_EXHAUSTED), ResourceExhaustedError),
}


@both_stacks
@pytest.mark.parametrize(("drop", "kind"), FINAL.values(), ids=FINAL)
async def test_what_will_not_pass_is_raised(
    stack: str, drop: Drop, kind: type[RunkonClientError]
) -> None:
    """With the server's reason and metadata; no second stream is opened."""
    peer = scripted([drop])

    seen = await follow(stack, peer)

    assert type(seen.error) is kind
    assert seen.error.reason == drop.reason
    assert seen.error.metadata == drop.metadata
    assert len(peer.opened) == 1


@both_stacks
async def test_frames_and_payloads_of_a_newer_server_are_accepted(stack: str) -> None:
    """An unknown frame is passed over, an unknown payload is an `UnknownEvent` in its place."""
    newer_frame = runs_pb2.StreamRunEventsResponse.FromString(b"\xfa\x01\x02hi")  # field 31
    batch = events(1, 2)
    batch.events.events[0].ClearField("always_started")
    peer = scripted([header(), newer_frame, batch, end(2)])

    first, second = (await follow(stack, peer)).items

    assert isinstance(first, UnknownEvent)
    assert isinstance(second, AlwaysStarted)


async def test_the_cursor_follows_what_was_handed_out() -> None:
    """In the middle of a batch it is the event at hand, not the last one received."""
    peer = scripted([header(), events(1, 2, 3), end(3)])
    async with serve(peer) as address, Client(address) as client:
        cursors = []
        async with client.run(RUN_ID).events() as stream:
            async for event in stream:
                cursors.append((event.seq, stream.cursor))
                if event.seq == 2:
                    break

        assert cursors == [(1, 1), (2, 2)]


async def test_a_wait_that_was_cut_short_loses_nothing() -> None:
    """A caller may bound each step: the next one goes on at the cursor, on another stream."""
    peer = scripted([header(), events(1), Hang()], [header(1), events(2), end(2)])
    async with serve(peer) as address, Client(address) as client:
        stream = client.run(RUN_ID).events()
        first = await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        second = await anext(stream)

        assert (first.seq, second.seq) == (1, 2)
        assert [request.after_seq for request in peer.opened] == [0, 1]


async def test_closing_the_client_ends_a_stream_with_an_error() -> None:
    """Not with a cancellation of the task that reads it, and not as if the run had ended."""
    peer = scripted([header(), events(1), Hang()])
    async with serve(peer) as address:
        client = Client(address)
        stream = client.run(RUN_ID).events()
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await client.close()

        with pytest.raises(CallCancelledError):
            await reading
        with pytest.raises(CallCancelledError):
            await client.get_run(RUN_ID)


async def test_a_sync_stream_left_alone_is_closed() -> None:
    """Leaving the loop is enough; no thread keeps the stream."""
    peer = scripted([header(), events(1), Hang()])

    def read_one(client: SyncClient) -> int:
        for event in client.run(RUN_ID).events():
            return event.seq
        return 0

    async with serve(peer) as address:
        with SyncClient(address) as client:
            assert await asyncio.to_thread(read_one, client) == 1
            await eventually(_no_watchdog, "the watchdog has gone")


async def _no_watchdog() -> bool:
    return all(thread.name != "runkon-watchdog" for thread in threading.enumerate())


async def test_a_closed_sync_stream_ends_in_the_other_thread() -> None:
    """`close` from elsewhere ends a `next` that waits."""
    peer = scripted([header(), events(1), Hang()])
    async with serve(peer) as address:
        with SyncClient(address) as client:
            stream = client.run(RUN_ID).events()
            first = await asyncio.to_thread(next, stream)
            waiting = asyncio.create_task(asyncio.to_thread(lambda: list(stream)))
            stream.close()

            assert first.seq == 1
            async with asyncio.timeout(60):
                assert await waiting == []


@both_stacks
async def test_a_restart_is_survived(stack: str) -> None:
    """The server goes away with the stream open and comes back on the same port."""
    peer = Peer()
    peer.plan = lambda number, request: (
        [header(), events(1), Hang()] if number == 0 else faithful(3, request)
    )
    with kept_port() as port:
        address = f"127.0.0.1:{port}"
        async with serve(peer, address=address):
            read: Callable[[str], Any] = _read_sync if stack == "sync" else _read_async
            reading = asyncio.create_task(read(address))
            await eventually(lambda: _is_open(peer), "the stream is open")
        async with serve(peer, address=address), asyncio.timeout(60):
            assert await reading == [1, 2, 3]


async def _is_open(peer: Peer) -> bool:
    return bool(peer.opened)


async def _read_async(address: str) -> list[int]:
    async with Client(address) as client:
        return [event.seq async for event in client.run(RUN_ID).events()]


async def _read_sync(address: str) -> list[int]:
    def read() -> list[int]:
        with SyncClient(address) as client:
            return [event.seq for event in client.run(RUN_ID).events()]

    return await asyncio.to_thread(read)

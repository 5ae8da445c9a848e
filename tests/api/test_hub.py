"""The hub on real PostgreSQL: what is shared between streams, and what is not kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import orjson
import psycopg
import pytest
from sqlalchemy import text

from runkon_server.api.following import EVERY_KIND
from runkon_server.api.frames import Frame, KeptFrames
from runkon_server.api.hub import READ_MAX, TAIL_EVENTS, Hub
from runkon_server.api.recent import PAGE_EVENTS, Entry, FreshEvents, RecentEvents
from runkon_server.api.streams import EventStreams
from runkon_server.errors import RunNotFoundError
from runkon_server.runtime.commands import EventRecord
from support.replicas import FakeReplica
from support.rows import NOON, add_events, add_run, engine_of, ulid
from support.waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.store.quick_reads import Quick

RUN = ulid(1)
PROGRESS = ("step_progress", {"step_id": "s", "progress": "on it"})


def record(seq: int, run_id: str = RUN, size: int = 0) -> EventRecord:
    payload = json.dumps({"progress": "x" * size})
    return EventRecord(run_id, seq, 1, "step_progress", NOON, 1, payload)


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as made:
        async with made.connect() as conn:
            await add_run(conn, RUN, last_seq=20)
            await add_events(conn, RUN, *[PROGRESS] * 20)
        others = asyncio.all_tasks()
        yield made
        # Pages are read ahead. The database is dropped while the loop stands still: a handshake
        # that were still under way would hold it up until the server gives up, after a minute.
        if left := asyncio.all_tasks() - others - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=PATIENCE_S)


async def test_streams_at_one_place_share_one_read(engine: AsyncEngine) -> None:
    """Ten that ask at the same time cost one statement and get the very same entries."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(hub.watch(RUN)) for _ in range(10)]
        watches[0].learn_head(20)
        pages = await asyncio.gather(*(watch.above(5) for watch in watches))

    assert len(replica.quick_reads.asked) == 1
    assert [entry.seq for entry in pages[0]] == list(range(6, 21))
    assert all(a is b for page in pages for a, b in zip(page, pages[0], strict=True))


async def test_11_events_that_a_failover_took_back_are_read_again(engine: AsyncEngine) -> None:
    """21 and 22 were told by a primary whose standby never had them; the log ends with 20."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        replica.tell(RUN, [record(21), record(22)])
        told = [entry.seq for entry in await watch.above(20)]
        replica.rewrite()
        await until(lambda: watch.head, "it is known again how far the run is")
        read = [entry.seq for entry in await watch.above(20)]

    assert (told, read, watch.head) == ([21, 22], [], 20)
    assert watch.woken.is_set()


async def test_an_event_is_rendered_once_and_a_frame_built_once(engine: AsyncEngine) -> None:
    """Streams in step get one frame object; a stream elsewhere shares the events."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as one, hub.watch(RUN) as two:
        replica.tell(RUN, [record(21), record(22)])
        frame = one.shared_frame(await one.above(20))
        same = two.shared_frame(await two.above(20))
        entries, later = await one.above(20), await two.above(21)

    assert frame is same
    assert isinstance(entries[1], Entry)
    assert entries[1] is later[0]
    assert frame.examined_seq == 22


async def test_a_page_that_was_replayed_is_neither_read_nor_encoded_again(
    engine: AsyncEngine,
) -> None:
    """Two at once cost one read, the next one none; all get the one frame."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * (PAGE_EVENTS - 20), first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as one, hub.watch(RUN) as two:
        one.learn_head(PAGE_EVENTS)
        first, second = await asyncio.gather(one.frame_above(0), two.frame_above(0))
        third = await one.frame_above(0)

    assert len(replica.quick_reads.asked) == 1
    assert first is not None
    assert (first.first_seq, first.examined_seq) == (1, PAGE_EVENTS)
    assert first is second is third
    assert hub.recent.above(RUN, 0) == []


async def test_the_next_page_is_read_before_it_is_asked_for(engine: AsyncEngine) -> None:
    """One page ahead and no more; when it is asked for, the one behind it is read."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * 2_000, first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(2_020)
        first = await watch.frame_above(0)
        await until(lambda: not hub._ahead, "the second page was read")
        reads = len(replica.quick_reads.asked)
        second = await watch.frame_above(PAGE_EVENTS)
        at_once = len(replica.quick_reads.asked)
        await until(lambda: not hub._ahead, "the third page was read")

    assert first is not None
    assert second is not None
    assert (reads, at_once, len(replica.quick_reads.asked)) == (2, 2, 3)
    assert second.first_seq == first.examined_seq + 1
    assert second.examined_seq == PAGE_EVENTS + READ_MAX


async def test_heavy_pages_are_not_read_ahead_and_get_shorter(engine: AsyncEngine) -> None:
    """256 events of 30 KB are seven frames; further reads take about what one of them holds."""
    heavy = ("step_progress", {"step_id": "s", "progress": "x" * 30_000})
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[heavy] * 300, first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(320)
        await watch.above(20)
        page = await watch.above(60)
        frame = await watch.frame_above(100)
        assert not hub._ahead

    assert len(replica.quick_reads.asked) == 3
    assert len(page) == 34
    assert frame is not None
    assert frame.examined_seq in (133, 134)


async def test_a_failed_read_ahead_troubles_nobody(engine: AsyncEngine) -> None:
    """The page behind is read when it is asked for."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * 300, first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(320)
        first = await watch.frame_above(0)
        await until(lambda: not hub._ahead, "the second page was read")
        hub.recent.clear()
        async with engine.connect() as conn:
            await conn.execute(text("ALTER TABLE run_events RENAME TO elsewhere"))
            before = len(replica.quick_reads.asked)
            again = await watch.frame_above(0)
            await until(lambda: not hub._ahead, "the second page was tried")
            tried = len(replica.quick_reads.asked) - before
            await conn.execute(text("ALTER TABLE elsewhere RENAME TO run_events"))
        second = await watch.frame_above(PAGE_EVENTS)

    assert tried == 1
    assert again is first
    assert first is not None
    assert second is not None
    assert second.examined_seq == 320


async def test_11_a_read_that_a_failover_overtook_is_done_again(engine: AsyncEngine) -> None:
    """It began before and ends after it: what it found is neither given out nor kept."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * 290, first_seq=21)
        replica = FakeReplica(engine)
        hub = Hub(replica)
        found: list[Quick] = []

        def take_over(statement: Quick) -> None:
            if not found:
                found.append(statement)
                replica.rewrite()
                lost.execute("DELETE FROM run_events WHERE seq > 20")

        with (
            psycopg.connect(
                engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
                autocommit=True,
            ) as lost,
            hub.watch(RUN) as watch,
        ):
            watch.learn_head(310)
            replica.quick_reads.answered = take_over
            frame = await watch.frame_above(0)

    assert frame is not None
    assert frame.examined_seq == 20
    assert watch.head == 20


async def test_11_a_replayed_page_that_a_failover_took_back_is_read_again(
    engine: AsyncEngine,
) -> None:
    """The standby's log may hold other events under the same sequences."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * 290, first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(310)
        before = await watch.frame_above(0)
        async with engine.connect() as conn:
            await conn.execute(text("DELETE FROM run_events WHERE seq > 20"))
            await conn.execute(text("UPDATE workflow_runs SET last_seq = 20"))
        replica.rewrite()
        await until(lambda: watch.head, "it is known again how far the run is")
        after = await watch.frame_above(0)

    assert before is not None
    assert after is not None
    assert (before.examined_seq, after.examined_seq) == (PAGE_EVENTS, 20)


def test_frames_stay_within_their_budget() -> None:
    """The oldest go first; one that is there already weighs nothing, an empty one a little."""
    weight = Frame(b"x" * 100, 1, 100, None).weight
    kept = KeptFrames(budget=3 * weight + weight // 2)
    for first_seq in (1, 101, 201, 301, 301):
        kept.add(RUN, Frame(b"x" * 100, first_seq, first_seq + 99, None), EVERY_KIND)
    at_hand = [kept.above(RUN, seq, EVERY_KIND) is not None for seq in (0, 100, 200, 300)]
    for first_seq in range(1, 1_001, 100):
        kept.add(RUN, Frame(None, first_seq, first_seq + 99, None), frozenset({"gate_opened"}))

    assert at_hand == [False, True, True, True]
    assert kept.above(RUN, 300, EVERY_KIND) is None


async def test_a_filtered_log_is_read_ahead_too_and_kept_by_its_filter(
    engine: AsyncEngine,
) -> None:
    """The page behind is at hand when it is asked for; a stream with another filter reads."""
    async with engine.connect() as conn:
        await add_events(conn, RUN, *[PROGRESS] * 300, first_seq=21)
    replica = FakeReplica(engine)
    hub = Hub(replica)
    nothing, progress = frozenset({"gate_opened"}), frozenset({"step_progress"})
    with hub.watch(RUN) as watch:
        watch.learn_head(320)
        first = await watch.frame_above(0, nothing)
        await until(lambda: not hub._ahead, "the second page was read")
        reads = len(replica.quick_reads.asked)
        again = await watch.frame_above(0, nothing)
        other = await watch.frame_above(0, progress)

    assert (reads, len(replica.quick_reads.asked)) == (2, 3)
    assert first is not None
    assert (first.data, first.examined_seq) == (None, PAGE_EVENTS)
    assert again is first
    assert other is not None
    assert other.data is not None


async def test_a_frame_is_not_shared_with_a_stream_that_knows_more(engine: AsyncEngine) -> None:
    """One built before the newest event is still right; one for another place is not given."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        replica.tell(RUN, [record(21)])
        early = watch.shared_frame(await watch.above(20))
        replica.tell(RUN, [record(22)])
        next_one = watch.shared_frame(await watch.above(21))
        early_again = watch.shared_frame(await watch.above(20))

    assert (early.first_seq, early.examined_seq) == (21, 21)
    assert (next_one.first_seq, next_one.examined_seq) == (22, 22)
    assert early_again.first_seq == 21


async def test_a_stream_that_replays_does_not_use_up_the_notice_of_one_at_the_head(
    engine: AsyncEngine,
) -> None:
    """What another replica wrote is told as a hint, which is for everybody."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as far_behind, hub.watch(RUN) as at_the_head:
        at_the_head.learn_head(300)
        async with engine.connect() as conn:
            await add_events(conn, RUN, *[PROGRESS] * 290, first_seq=21)
        replica.tell(RUN, None)

        replayed = await far_behind.above(0)
        await until(lambda: at_the_head.head > 300, "the notice was followed")
        told = await at_the_head.above(300)

    assert [replayed[0].seq, replayed[-1].seq] == [1, PAGE_EVENTS]
    assert [entry.seq for entry in told] == list(range(301, 311))


async def test_a_notice_may_be_about_more_than_one_read_takes(engine: AsyncEngine) -> None:
    """The rest follows at once, by whole pages, not with the next look at the table."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(20)
        async with engine.connect() as conn:
            await add_events(conn, RUN, *[PROGRESS] * 300, first_seq=21)
            await conn.execute(text("UPDATE workflow_runs SET last_seq = 320"))
        replica.tell(RUN, None)
        await until(lambda: watch.head == 320, "the notice was followed")

        first = await watch.above(20)
        second = await watch.above(first[-1].seq)
        third = await watch.above(second[-1].seq)
        rest = await watch.above(320)

    assert (len(first), len(second)) == (TAIL_EVENTS, PAGE_EVENTS)
    assert [entry.seq for entry in (*first, *second, *third)] == list(range(21, 321))
    assert rest == []


async def test_runs_that_one_notice_names_cost_one_read(engine: AsyncEngine) -> None:
    """Ten runs of another replica, each followed: their streams are woken and ask for nothing."""
    runs = [ulid(number) for number in range(10, 20)]
    async with engine.connect() as conn:
        for number, run_id in enumerate(runs):
            await add_run(conn, run_id)
            await add_events(conn, run_id, *[PROGRESS] * (number + 2))
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(hub.watch(run_id)) for run_id in runs]
        for watch, run_id in zip(watches, runs, strict=True):
            watch.learn_head(1)
            watch.woken.clear()
            replica.tell(run_id, None)
        await until(lambda: all(watch.woken.is_set() for watch in watches), "all are woken")
        pages = [await watch.above(1) for watch in watches]

    assert len(replica.quick_reads.asked) == 1
    for number, (run_id, page) in enumerate(zip(runs, pages, strict=True)):
        told = [(entry.seq, orjson.loads(entry.payload)) for entry in page]
        assert told == [(seq, PROGRESS[1]) for seq in range(2, number + 3)], run_id


async def test_a_notice_that_comes_before_the_head_is_known_is_not_lost(
    engine: AsyncEngine,
) -> None:
    """The stream is opening: what it is about to learn may be older than the notice."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        replica.tell(RUN, None)
        watch.learn_head(19)
        await until(lambda: watch.head == 20, "the notice was followed")

        assert [entry.seq for entry in await watch.above(19)] == [20]


async def test_notices_during_a_read_are_followed_after_it(engine: AsyncEngine) -> None:
    """The read under way may have begun before what they are about was committed."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    told: list[Quick] = []

    def tell_again(statement: Quick) -> None:
        told.append(statement)
        if len(told) == 1:
            other.execute(
                "INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload, xid)"
                " SELECT run_id, 21, epoch, kind, at, generation, payload, xid FROM run_events"
                " WHERE seq = 20"
            )
            replica.tell(RUN, None)

    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as other, hub.watch(RUN) as watch:
        watch.learn_head(20)
        replica.quick_reads.answered = tell_again
        replica.tell(RUN, None)
        await until(lambda: watch.head == 21, "the second notice was followed")

    assert len(told) == 2


async def test_a_failed_read_of_a_notice_is_made_up_for_by_the_look(engine: AsyncEngine) -> None:
    """Streams live on; what was missed is found with the next notice, or within a second."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as watch:
        watch.learn_head(10)
        async with engine.connect() as conn:
            await conn.execute(text("ALTER TABLE run_events RENAME TO elsewhere"))
            replica.tell(RUN, None)
            await until(lambda: hub._catching_up is None, "it was tried")
            await conn.execute(text("ALTER TABLE elsewhere RENAME TO run_events"))
        missed = watch.head
        replica.tell(RUN, None)
        await until(lambda: watch.head == 20, "the next notice was followed")

    assert missed == 10


async def test_a_reader_that_goes_away_does_not_end_the_read_of_others(
    engine: AsyncEngine,
) -> None:
    """The one who asked first is cancelled; the second gets its page."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN) as one, hub.watch(RUN) as two:
        one.learn_head(20)
        first = asyncio.create_task(one.above(0))
        second = asyncio.create_task(two.above(0))
        await asyncio.sleep(0)
        first.cancel()

        page = await second

    assert len(page) == 20


async def test_whoever_follows_a_run_right_after_its_start_reads_no_page(
    engine: AsyncEngine,
) -> None:
    """Its first events were told while nobody followed it; they and the next ones join."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    replica.tell(RUN, [record(1), record(2)])
    replica.tell(RUN, [record(3)])
    with hub.watch(RUN) as watch:
        watch.learn_head(3)
        replica.tell(RUN, [record(4)])
        frame = await watch.frame_above(0)
        assert frame is not None
        rest = await watch.frame_above(4)

    assert replica.quick_reads.asked == []
    assert (frame.first_seq, frame.examined_seq, rest) == (1, 4, None)


async def test_11_first_events_that_a_failover_took_back_are_read_again(
    engine: AsyncEngine,
) -> None:
    """21 was told before anybody followed, by a primary whose standby never had it."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    replica.tell(RUN, [record(21)])
    replica.rewrite()
    with hub.watch(RUN) as watch:
        watch.learn_head(21)
        assert await watch.above(20) == []


async def test_little_is_kept_of_runs_that_nobody_follows(engine: AsyncEngine) -> None:
    """1,000 runs with an event of 4,000 bytes each: of the newest ones it is at hand."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    for number in range(1, 1_001):
        replica.tell(ulid(number), [record(1, ulid(number), size=4_000)])

    def is_kept(number: int) -> bool:
        with hub.watch(ulid(number)):
            return hub.recent.has(ulid(number), 1)

    assert [is_kept(number) for number in (1, 400, 900, 1_000)] == [False, False, True, True]


def test_fresh_events_of_a_run_are_taken_once_and_together() -> None:
    """Taking makes room; a run that is heavier than everything may be is not kept."""
    fresh = FreshEvents(budget=10_000)
    fresh.add("a", [record(1), record(2)])
    fresh.add("b", [record(1, size=3_000)])
    fresh.add("a", [record(3)])

    assert [each.seq for each in fresh.take("a")] == [1, 2, 3]
    assert fresh.take("a") == []
    fresh.add("c", [record(1, size=500)])
    assert [each.seq for each in fresh.take("b")] == [1]
    fresh.add("d", [record(1, size=9_000)])
    fresh.add("e", [record(1)])
    assert [len(fresh.take(each)) for each in "cde"] == [0, 0, 1]


async def test_streams_that_open_at_a_time_share_the_read_of_how_far_their_runs_are(
    engine: AsyncEngine,
) -> None:
    """The first asks at once, the others together; a run of another namespace is unknown."""
    runs = [ulid(number) for number in range(30, 50)]
    async with engine.connect() as conn:
        for number, run_id in enumerate(runs):
            await add_run(conn, run_id, last_seq=number)
    replica = FakeReplica(engine)
    streams = EventStreams(replica, Hub(replica))
    heads = await asyncio.gather(*(streams.head("default", run_id) for run_id in runs))
    with pytest.raises(RunNotFoundError):
        await streams.head("other", runs[0])

    assert [(head.run_id, head.last_seq) for head in heads] == [
        (run_id, number) for number, run_id in enumerate(runs)
    ]
    assert len(replica.quick_reads.asked) <= 3


async def test_nothing_is_read_for_runs_that_nobody_follows(engine: AsyncEngine) -> None:
    """Events of other runs pass by; the last watch takes its run along."""
    replica = FakeReplica(engine)
    hub = Hub(replica)
    with hub.watch(RUN):
        assert hub.watches_open == 1
        replica.tell(ulid(2), [record(1, ulid(2))])

    assert hub.watches_open == 0
    assert hub.recent.above(ulid(2), 0) == []
    replica.tell(RUN, None)
    replica.tell("*", None)
    assert replica.quick_reads.asked == []


def test_recent_events_stay_within_their_budget() -> None:
    """The oldest go first, and what is left is still without gaps."""
    recent = RecentEvents(budget=100_000)

    recent.add([record(seq, size=4_000) for seq in range(1, 51)])

    kept = recent.above(RUN, 40)
    assert [entry.seq for entry in kept] == list(range(41, 51))
    assert recent.above(RUN, 0) == []


def test_an_event_that_is_there_is_not_taken_twice() -> None:
    """The table's copy of an event that the engine told gives the first entry again."""
    recent = RecentEvents(budget=100_000)

    told = recent.add([record(1), record(2)])
    read = recent.add([record(2), record(3)])

    assert read[0] is told[1]
    assert [entry.seq for entry in recent.above(RUN, 0)] == [1, 2, 3]

"""The hub: tells the streams of this replica when there are new events, and hands them over.

One hub per replica. It holds no queue for anybody: a stream has a cursor and a flag that wakes it,
the events lie in the table, and those of lately also in memory, once for all streams. What the
engine tells is a short cut; the guarantee is a look at the table every second.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, Self

import structlog

from runkon_server.api.following import EVERY_KIND
from runkon_server.api.frames import KeptFrames, build_frame
from runkon_server.api.recent import PAGE_BYTES, PAGE_EVENTS, Entry, FreshEvents, RecentEvents
from runkon_server.api.waking import Pulse, Wake
from runkon_server.store.database import is_passing
from runkon_server.store.reads.following import last_seqs, page_above, tails_above

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from runkon_server.api.frames import Frame
    from runkon_server.api.recent import StoredEvent
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import EventRecord
    from runkon_server.store.quick_reads import QuickReads

__all__ = ["EventSource", "Hub", "Watch"]

log = structlog.get_logger(__name__)

EVERY_RUN: Final = "*"
LOOK_S: Final = 1.0
RECENT_BYTES: Final = 64 * 1024 * 1024
TAIL_EVENTS: Final = 32
"""Most that is read of a run together with others: a notice is about a few events of each."""
TAILS_AT_ONCE: Final = 128
"""Runs that one read takes: whoever hears of events hears of those of many runs at once."""
REPLAYED_BYTES: Final = 32 * 1024 * 1024
READ_MIN: Final = 16
READ_MAX: Final = 512
"""Events that one read takes, at least and at most: about 3 ms of work, in which nobody else gets
any."""
AHEAD_BYTES: Final = 256 * 1024
"""Pages of less are followed by a read ahead. What is read ahead lies within `REPLAYED_BYTES`, from
where many heavy pages would push each other out before they are wanted."""
AHEAD_MAX: Final = 4
"""Pages that are read ahead at a time: where more streams replay, they keep the replica busy."""
FRESH_BYTES: Final = 4 * 1024 * 1024
"""For events of runs that nobody follows yet: whoever starts a run follows it a moment later."""


class EventSource(Protocol):
    """The part of the engine that the hub needs."""

    @property
    def quick_reads(self) -> QuickReads:
        """Where events are read."""

    def on_events(
        self, listener: Callable[[str, Sequence[EventRecord] | None], None]
    ) -> Callable[[], None]:
        """Call `listener` with new events of a run; None instead of events: read the table."""

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica starts to drain."""

    def on_rewrite(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when the newest events may not be the log's any more."""


class _Watched:
    """A run that at least one stream follows."""

    __slots__ = ("frame", "head", "page_events", "reading", "run_id", "watches")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.watches: set[Watch] = set()
        self.head = 0
        """Highest sequence known here to be committed; 0 until somebody has asked."""
        self.frame: Frame | None = None
        """The frame that was built last, for streams in step with each other."""
        self.page_events = PAGE_EVENTS
        """Events that the next read takes: as many as a frame is going to hold, by the last one."""
        self.reading: dict[int, asyncio.Task[Sequence[Entry | StoredEvent]]] = {}
        """Reads under way, by their cursor, so that streams at one place share one."""

    def advance(self, head: int) -> None:
        if head > self.head:
            self.head = head
            self.wake()

    def wake(self) -> None:
        for watch in self.watches:
            watch.woken.set()

    def learn_weight(self, rows: Sequence[StoredEvent]) -> None:
        """Let the next read take what fits into a frame if its events are like these."""
        weight = 1 + sum([len(row.payload) for row in rows])
        fitting = min(len(rows) * PAGE_BYTES // weight, 2 * len(rows))
        self.page_events = max(READ_MIN, min(fitting, READ_MAX))


class Watch:
    """One stream's view of its run, open as long as its context. Belongs to one task."""

    __slots__ = ("_hub", "_run", "woken")

    def __init__(self, hub: Hub, run: _Watched) -> None:
        self._hub = hub
        self._run = run
        self.woken = Wake(hub.pulse)
        """Set when there may be something new, or the replica drains."""

    def __enter__(self) -> Self:
        self._run = self._hub.add_watch(self, self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.drop_watch(self, self._run)

    @property
    def head(self) -> int:
        """Highest sequence known to be committed."""
        return self._run.head

    def learn_head(self, head: int) -> None:
        """The caller has read in the table how far the run is."""
        self._run.advance(head)

    async def frame_above(self, seq: int, kinds: frozenset[str] = EVERY_KIND) -> Frame | None:
        """The frame of what is directly above `seq`; None if there is no more for now.

        It is built once for all streams at the same place, unless they choose `kinds` of what is
        new. Behind a page of the log, the next one is read while the caller writes this one.
        """
        frame = await self._frame_at(seq, kinds)
        if frame is not None and self._goes_on(frame, kinds):
            self._hub.read_ahead(self._frame_at(frame.examined_seq, kinds))
        return frame

    def _goes_on(self, frame: Frame, kinds: frozenset[str]) -> bool:
        """Whether it is a page of the log, not a heavy one, and the next is still to be read."""
        hub, run, seq = self._hub, self._run, frame.examined_seq
        return (
            hub.may_read_ahead
            and len(frame.data or b"") < AHEAD_BYTES
            and seq < run.head
            and seq not in run.reading
            and hub.replayed.above(run.run_id, frame.first_seq - 1, kinds) is frame
            and hub.replayed.above(run.run_id, seq, kinds) is None
        )

    async def _frame_at(self, seq: int, kinds: frozenset[str]) -> Frame | None:
        hub, run_id = self._hub, self._run.run_id
        if not hub.recent.has(run_id, seq + 1):
            kept = hub.replayed.above(run_id, seq, kinds)
            if kept is not None:
                return kept
        rewrites = hub.rewrites
        found = await self.above(seq)
        if not found:
            return None
        if isinstance(found[0], Entry):
            return build_frame(found, kinds) if kinds else self.shared_frame(found)
        kept = hub.replayed.above(run_id, seq, kinds)  # another stream may have shared the read
        if kept is None:
            kept = build_frame(found, kinds)
            if rewrites == hub.rewrites:
                hub.replayed.add(run_id, kept, kinds)
        return kept

    async def above(self, seq: int) -> Sequence[Entry | StoredEvent]:
        """Events directly above `seq`, at most a page; none if there are no more for now."""
        run = self._run
        found = self._hub.recent.above(run.run_id, seq)
        if found or run.head <= seq:
            return found
        read = run.reading.get(seq)
        if read is None:
            read = asyncio.create_task(self._hub.read_page(run, seq))
            run.reading[seq] = read
            read.add_done_callback(lambda _: run.reading.pop(seq, None))
        # A stream that goes away must not end a read that others wait for.
        return await asyncio.shield(read)

    def shared_frame(self, entries: Sequence[Entry | StoredEvent]) -> Frame:
        """The frame of these entries, built once for all streams at the same place."""
        frame = self._run.frame
        if (
            frame is None
            or frame.first_seq != entries[0].seq
            or not frame.examined_seq <= entries[-1].seq
        ):
            frame = self._run.frame = build_frame(entries, ())
        return frame


class Hub:
    """The streams of one replica, by the run they follow.

    Args:
        engine: whose events are followed.
        recent_bytes: memory for events at hand.
    """

    def __init__(self, engine: EventSource, recent_bytes: int = RECENT_BYTES) -> None:
        self._engine = engine
        self._watched: dict[str, _Watched] = {}
        self.recent = RecentEvents(recent_bytes)
        self._fresh = FreshEvents(FRESH_BYTES)
        self.replayed = KeptFrames(REPLAYED_BYTES)
        self.pulse = Pulse()
        self.is_draining = False
        self.watches_open = 0
        self.rewrites = 0
        """How often the log may have changed: a read that began before is not to be kept."""
        self._ahead: set[asyncio.Task[Frame | None]] = set()
        self._noticed: dict[str, _Watched] = {}
        """Runs that may have more than their head."""
        self._catching_up: asyncio.Task[None] | None = None
        engine.on_events(self._on_events)
        engine.on_drain(self._on_drain)
        engine.on_rewrite(self._on_rewrite)

    def watch(self, run_id: str) -> Watch:
        """Follow a run as long as the context lasts."""
        return Watch(self, self._watched.get(run_id) or _Watched(run_id))

    def add_watch(self, watch: Watch, run: _Watched) -> _Watched:
        """A watch has been opened; for `Watch` only. Gives what it shares with the others."""
        known = self._watched.get(run.run_id)
        if known is None:
            known = self._watched[run.run_id] = run
            self.recent.add(self._fresh.take(run.run_id))
        known.watches.add(watch)
        self.watches_open += 1
        return known

    def drop_watch(self, watch: Watch, run: _Watched) -> None:
        """It has been closed; for `Watch` only."""
        self.watches_open -= 1
        run.watches.discard(watch)
        if not run.watches:
            self._watched.pop(run.run_id, None)

    async def follow(self, ambient: Ambient) -> None:
        """Look every second how far the followed runs are; never returns."""
        while True:
            await ambient.sleep(LOOK_S)
            if not self._watched:
                continue
            rewrites = self.rewrites
            try:
                heads = await last_seqs(self._engine.quick_reads, self._watched)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.debug("hub.look_failed", reason=str(error))
                continue
            self._learn_heads(heads, rewrites)

    @property
    def may_read_ahead(self) -> bool:
        """Whether one more page may be read before it is asked for."""
        return len(self._ahead) < AHEAD_MAX

    def read_ahead(self, reading: Coroutine[None, None, Frame | None]) -> None:
        """Make the frame of a page that nobody has asked for yet; for `Watch` only.

        If that fails, whoever asks for it reads it again and has the error.
        """
        task = asyncio.create_task(reading)
        self._ahead.add(task)
        task.add_done_callback(self._end_read_ahead)

    def _end_read_ahead(self, task: asyncio.Task[Frame | None]) -> None:
        self._ahead.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.debug("hub.read_ahead_failed", reason=str(task.exception()))

    async def read_page(self, run: _Watched, seq: int) -> Sequence[Entry | StoredEvent]:
        """Read events above `seq` from the table; for `Watch` only.

        A whole page is given as it was read: whoever replays needs its frame and nothing else.
        """
        limit = run.page_events
        rewrites = self.rewrites
        rows = await page_above(self._engine.quick_reads, run.run_id, seq, limit=limit)
        if rewrites != self.rewrites:
            return await self.read_page(run, seq)  # these may be of the log that was
        if not rows:
            return []
        run.advance(rows[-1].seq)
        if len(rows) < limit:
            return self.recent.add(rows)
        run.learn_weight(rows)
        return rows

    def _notice(self, run: _Watched) -> None:
        """The run may have more events than we know of."""
        self._noticed[run.run_id] = run
        if self._catching_up is None:
            # In a context of its own: it is nobody's call.
            self._catching_up = asyncio.create_task(self._catch_up(), context=Context())

    async def _catch_up(self) -> None:
        """Read what notices are about; while one read is under way, the next ones gather."""
        try:
            while self._noticed:
                names = list(islice(self._noticed, TAILS_AT_ONCE))
                await self._read_tails([self._noticed.pop(name) for name in names])
        except Exception as error:  # noqa: BLE001 - logged; the look of each second makes up for it
            log.warning("hub.notice_lost", reason=str(error).strip())
            self._noticed.clear()
        finally:
            self._catching_up = None

    async def _read_tails(self, runs: Sequence[_Watched]) -> None:
        """Have at hand what is new of many runs before their streams are woken.

        The streams would each wake up to ask for it, and once more for the answer.
        """
        reads, rewrites = self._engine.quick_reads, self.rewrites
        places = [(run.run_id, run.head) for run in runs if run.head and run.watches]
        tails = await tails_above(reads, places, limit=TAIL_EVENTS) if places else {}
        if rewrites != self.rewrites:
            return  # all have been noticed anew, and these may be of the log that was
        for (run_id, _), rows in tails.items():
            if run_id in self._watched:
                self.recent.add(rows)
                self._watched[run_id].advance(rows[-1].seq)
        is_read = {place[0] for place in places if len(tails.get(place, ())) < TAIL_EVENTS}
        far = [run.run_id for run in runs if run.run_id not in is_read and run.watches]
        if far:
            self._learn_heads(await last_seqs(reads, far), rewrites)

    def _learn_heads(self, heads: Mapping[str, int], rewrites: int) -> None:
        """Wake the streams of runs that have more; they read it by whole pages."""
        for run_id, head in heads.items():
            if run_id in self._watched and rewrites == self.rewrites:
                self._watched[run_id].advance(head)

    def _on_events(self, run_id: str, events: Sequence[EventRecord] | None) -> None:
        if run_id == EVERY_RUN:
            for run in self._watched.values():
                self._notice(run)
            return
        watched = self._watched.get(run_id)
        if watched is None:
            if events:
                self._fresh.add(run_id, events)
        elif events:
            self.recent.add(events)
            watched.advance(events[-1].seq)
        else:
            self._notice(watched)

    def _on_rewrite(self) -> None:
        """A standby has taken over, perhaps without the last events: everything is read again."""
        self.rewrites += 1
        self.recent.clear()
        self._fresh.clear()
        self.replayed.clear()
        for run in self._watched.values():
            run.head, run.frame = 0, None
            run.reading.clear()  # whoever waits for one of them reads again
            run.wake()
            self._notice(run)

    def _on_drain(self) -> None:
        self.is_draining = True
        for run in self._watched.values():
            run.wake()

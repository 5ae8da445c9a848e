"""The hub of feeds: reads what namespaces' readers wait for, once for all who stand at one place.

A reader that lags reads pages for itself, sharing those under way and the last few. One that has
seen everything waits, and looks at nothing: one task of the replica looks for all of them, when the
engine tells of events, and every second in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from runkon.v1 import runs_pb2
from runkon_server.api.encoding import encode_event
from runkon_server.api.recent import PAGE_BYTES, PAGE_EVENTS
from runkon_server.api.waking import Pulse, Wake
from runkon_server.api.wire import ELEMENT_BYTES, element, tag_of
from runkon_server.store.database import is_passing
from runkon_server.store.reads.feed import events_of_namespace, read_horizon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.feed_cursors import FeedCursors
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import EventRecord
    from runkon_server.store.reads.feed import FeedPage, FeedPlace, FeedQuery, FeedRow, Horizon

__all__ = ["FeedHub", "FeedSource", "FeedWatch", "Sheet"]

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
GATHER_S: Final = 0.005
"""Under load, commits gather for so long between two looks."""
HELD_LOOK_S: Final = 0.005
SHEETS_KEPT: Final = 32

_NAMESPACE_EVENT: Final = runs_pb2.NamespaceEvent
_EVENT: Final = tag_of(_NAMESPACE_EVENT, "event")
_WORKFLOW: Final = tag_of(_NAMESPACE_EVENT, "workflow_name")
_CURSOR: Final = tag_of(_NAMESPACE_EVENT, "cursor")
_EVENTS: Final = tag_of(runs_pb2.NamespaceEventBatch, "events")
_BATCH_CURSOR: Final = tag_of(runs_pb2.NamespaceEventBatch, "cursor")
_FRAME: Final = tag_of(runs_pb2.StreamNamespaceEventsResponse, "events")


class FeedSource(Protocol):
    """The part of the engine that the hub needs."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""

    def on_events(
        self, listener: Callable[[str, Sequence[EventRecord] | None], None]
    ) -> Callable[[], None]:
        """Call `listener` with new events of a run; None instead of events: read the table."""

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica starts to drain."""


class Sheet:
    """One page of a feed, encoded when the first reader needs it and kept for the others."""

    __slots__ = ("_cursors", "_frames", "_namespace", "examined", "more", "rows")

    def __init__(self, page: FeedPage, namespace: str, cursors: FeedCursors) -> None:
        self.rows: Sequence[FeedRow] = page.rows
        self.examined = page.examined
        self.more = page.more
        self._namespace = namespace
        self._cursors = cursors
        self._frames: list[tuple[bytes, FeedPlace]] | None = None

    def frames(self) -> list[tuple[bytes, FeedPlace]]:
        """Frames of StreamNamespaceEvents, each with the place that it reaches."""
        if self._frames is None:
            self._frames = list(self._encode())
        return self._frames

    def _encode(self) -> Iterator[tuple[bytes, FeedPlace]]:
        parts: list[bytes] = []
        weight = 0
        last: FeedPlace | None = None
        for row in self.rows:
            part = element(_EVENTS, self._event(row))
            if parts and weight + len(part) > PAGE_BYTES and last is not None:
                yield self._frame(parts, last), last
                parts, weight = [], 0
            parts.append(part)
            weight += len(part) + ELEMENT_BYTES
            last = row.place
        if parts:
            yield self._frame(parts, self.examined), self.examined

    def _event(self, row: FeedRow) -> bytes:
        cursor = self._cursors.seal(self._namespace, row.place).encode()
        return b"".join(
            (
                element(_EVENT, encode_event(row)),
                element(_WORKFLOW, row.workflow_name.encode()),
                element(_CURSOR, cursor),
            )
        )

    def _frame(self, parts: Sequence[bytes], place: FeedPlace) -> bytes:
        cursor = self._cursors.seal(self._namespace, place).encode()
        return element(_FRAME, b"".join((*parts, element(_BATCH_CURSOR, cursor))))


class _Group:
    """Readers of one query that have seen everything up to one place."""

    __slots__ = ("place", "query", "watches")

    def __init__(self, query: FeedQuery, place: FeedPlace) -> None:
        self.query = query
        self.place = place
        self.watches: set[FeedWatch] = set()


class FeedWatch:
    """One reader. Belongs to one task."""

    __slots__ = ("_cursor", "_hub", "_query", "group", "sheet", "woken")

    def __init__(self, hub: FeedHub, query: FeedQuery, cursor: FeedPlace) -> None:
        self._hub = hub
        self._query = query
        self._cursor = cursor
        self.group: _Group | None = None
        self.sheet: Sheet | None = None
        """What the hub has found for a reader that waited."""
        self.woken = Wake(hub.pulse)
        """Set when there is something new, or the replica drains."""

    @property
    def namespace(self) -> str:
        """Whose events it reads."""
        return self._query.namespace

    @property
    def cursor(self) -> FeedPlace:
        """Everything up to here was handed over."""
        return self._cursor if self.group is None else self.group.place

    def advance(self, place: FeedPlace) -> None:
        """The reader has taken everything up to here."""
        self._cursor = place

    async def next(self) -> Sheet | None:
        """What lies above the cursor; None if there is nothing for now, then wait for `woken`."""
        if self.group is not None:
            return None
        sheet, self.sheet = self.sheet, None
        if sheet is not None:
            return sheet
        version = self._hub.version
        sheet = await self._hub.read(self._query, self._cursor)
        if sheet.rows or sheet.more:
            return sheet
        self._cursor = sheet.examined
        self._hub.park(self, self._query, self._cursor, version)
        return None


class FeedHub:
    """The feeds of one replica.

    Args:
        engine: whose events are followed.
        cursors: names places.
    """

    def __init__(self, engine: FeedSource, cursors: FeedCursors) -> None:
        self._engine = engine
        self._cursors = cursors
        self._groups: dict[tuple[FeedQuery, FeedPlace], _Group] = {}
        self._watches: set[FeedWatch] = set()
        self._reading: dict[tuple[FeedQuery, FeedPlace, int], asyncio.Task[Sheet]] = {}
        self._sheets: OrderedDict[tuple[FeedQuery, FeedPlace], Sheet] = OrderedDict()
        self._stirred = asyncio.Event()
        self.pulse = Pulse()
        self.version = 0
        """Counts what the engine told; a read that began before may lack it."""
        self.is_draining = False
        self.lag_s = 0.0
        """For how long the oldest event is held back by an open transaction, as of the last look;
        0 where nobody reads a feed."""
        engine.on_events(self._on_events)
        engine.on_drain(self._on_drain)

    @property
    def watches_open(self) -> int:
        """How many readers there are."""
        return len(self._watches)

    @contextlib.contextmanager
    def watch(self, query: FeedQuery, cursor: FeedPlace) -> Iterator[FeedWatch]:
        """Read a feed as long as the context lasts."""
        watch = FeedWatch(self, query, cursor)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if watch.group is not None:
                watch.group.watches.discard(watch)
                if not watch.group.watches:
                    self._forget(watch.group)

    async def horizon(self) -> Horizon:
        """How far feeds may be read now."""
        async with self._engine.reads.connect() as conn:
            return await read_horizon(conn)

    async def read(self, query: FeedQuery, after: FeedPlace) -> Sheet:
        """The page above a place; for `FeedWatch` only."""
        kept = self._sheets.get((query, after))
        if kept is not None:
            return kept
        key = (query, after, self.version)
        read = self._reading.get(key)
        if read is None:
            read = asyncio.create_task(self._read(query, after))
            self._reading[key] = read
            read.add_done_callback(lambda _: self._reading.pop(key, None))
        # A reader that goes away must not end a read that others wait for.
        return await asyncio.shield(read)

    def park(self, watch: FeedWatch, query: FeedQuery, place: FeedPlace, version: int) -> None:
        """Look on behalf of a reader that has seen everything; for `FeedWatch` only.

        Args:
            version: of the hub before the reader looked for itself.
        """
        self._join(watch, query, place)
        if version != self.version:
            self._stirred.set()

    async def follow(self, ambient: Ambient) -> None:
        """Look for those who wait; never returns."""
        pause_s = LOOK_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stirred.wait()
                await ambient.sleep(GATHER_S)
            self._stirred.clear()
            pause_s = LOOK_S
            if not self._watches:
                self.lag_s = 0.0
                continue
            try:
                horizon = await self._look()
            except Exception as error:
                if not is_passing(error):
                    raise
                log.debug("feed.look_failed", reason=str(error))
                continue
            self.lag_s = horizon.held_s or 0.0
            if horizon.held_s is not None:
                # Soon for what was committed just now; what has waited for long may wait on.
                pause_s = min(LOOK_S, max(HELD_LOOK_S, horizon.held_s / 4))

    async def _look(self) -> Horizon:
        async with self._engine.reads.connect() as conn:
            horizon = await read_horizon(conn)
            for group in list(self._groups.values()):
                page = await events_of_namespace(
                    conn, group.query, after=group.place, below=horizon.xid, limit=PAGE_EVENTS
                )
                self._hand_out(group, page)
        return horizon

    def _hand_out(self, group: _Group, page: FeedPage) -> None:
        if page.examined == group.place:
            return
        self._forget(group)
        if not (page.rows or page.more):
            for watch in list(group.watches):
                self._join(watch, group.query, page.examined)
            return
        sheet = Sheet(page, group.query.namespace, self._cursors)
        for watch in group.watches:
            watch.group = None
            watch.advance(group.place)
            watch.sheet = sheet
            watch.woken.set()

    def _join(self, watch: FeedWatch, query: FeedQuery, place: FeedPlace) -> None:
        group = self._groups.get((query, place))
        if group is None:
            group = self._groups[(query, place)] = _Group(query, place)
        group.watches.add(watch)
        watch.group = group

    def _forget(self, group: _Group) -> None:
        key = group.query, group.place
        if self._groups.get(key) is group:
            del self._groups[key]

    async def _read(self, query: FeedQuery, after: FeedPlace) -> Sheet:
        async with self._engine.reads.connect() as conn:
            horizon = await read_horizon(conn)
            page = await events_of_namespace(
                conn, query, after=after, below=horizon.xid, limit=PAGE_EVENTS
            )
        sheet = Sheet(page, query.namespace, self._cursors)
        if page.more:  # a page that ends at the horizon would keep a reader from newer events
            self._sheets[(query, after)] = sheet
            while len(self._sheets) > SHEETS_KEPT:
                self._sheets.popitem(last=False)
        return sheet

    def _on_events(self, _run_id: str, _events: Sequence[EventRecord] | None) -> None:
        if self._watches:
            self.version += 1
            self._stirred.set()

    def _on_drain(self) -> None:
        self.is_draining = True
        for watch in self._watches:
            watch.woken.set()

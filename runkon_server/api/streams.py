"""StreamRunEvents: the events of one run from a cursor to the end of the run.

A stream is its cursor. It looks for events above it, writes what it finds as one frame and moves
on; the next look waits until the write was taken, so a slow reader holds one frame and no more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.api.coalesce import Coalescer
from runkon_server.api.following import Following, Start, parse_following
from runkon_server.api.frames import TERMINAL, Ending, server_time
from runkon_server.api.pacing import WRITE_S, Pace
from runkon_server.api.render.runs import run_status
from runkon_server.api.snapshot import read_snapshot
from runkon_server.errors import (
    CursorAheadError,
    CursorExpiredError,
    DrainingError,
)
from runkon_server.failpoints import failpoint_async
from runkon_server.store.reads.runs import run_head, run_heads

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.hub import Hub, Watch
    from runkon_server.store.quick_reads import QuickReads
    from runkon_server.store.rows import RunHead

__all__ = ["EventStreams"]

SNAPSHOTS_AT_ONCE: Final = 2

Response: TypeAlias = runs_pb2.StreamRunEventsResponse
Context: TypeAlias = grpc.aio.ServicerContext[runs_pb2.StreamRunEventsRequest, Response]


class Replica(Protocol):
    """The part of the engine that streams need."""

    @property
    def replica_id(self) -> str:
        """Name for diagnosis."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""

    @property
    def quick_reads(self) -> QuickReads:
        """For what every stream asks."""


class EventStreams:
    """All event streams of a replica.

    Args:
        engine: where events are read.
        hub: tells when there are new ones.
        write_s: how long a frame may wait to be taken.
    """

    def __init__(self, engine: Replica, hub: Hub, *, write_s: float = WRITE_S) -> None:
        self.engine = engine
        self.hub = hub
        self.write_s = write_s
        self.snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._heads = Coalescer(self._fetch_heads, None)

    async def _fetch_heads(
        self, names: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], RunHead]:
        return await run_heads(self.engine.quick_reads, names)

    async def head(self, namespace: str, run_id: str) -> RunHead:
        """How far the run is; streams that open at a time share a read.

        Raises:
            RunNotFoundError: the namespace has no such run.
        """
        known = await self._heads.get((namespace, run_id))
        if known is not None:
            return known
        async with self.engine.reads.connect() as conn:
            return await run_head(conn, namespace=namespace, run_id=run_id)

    def serve(
        self, request: runs_pb2.StreamRunEventsRequest, context: Context
    ) -> Coroutine[Any, Any, None]:
        """What serves one stream; returns after its `end`.

        Raises:
            RunNotFoundError: the namespace has no such run.
            CursorAheadError, CursorExpiredError: the cursor is not among the events kept.
            DrainingError: the replica goes away.
            SlowConsumerError: nobody took a frame in time.
        """
        wish = parse_following(request)
        return _Stream(self, wish, self.hub.watch(wish.run_id), context).run()


class _Stream:
    """One stream."""

    __slots__ = ("_cursor", "_ending", "_pace", "_streams", "_watch", "_wish")

    def __init__(
        self, streams: EventStreams, wish: Following, watch: Watch, context: Context
    ) -> None:
        self._streams = streams
        self._wish = wish
        self._watch = watch
        self._cursor = 0
        self._ending: Ending | None = None
        self._pace = Pace(
            context,
            heartbeat_s=wish.heartbeat_s,
            write_s=streams.write_s,
            place=self._place,
        )

    def _place(self) -> dict[str, str]:
        return {"run_id": self._wish.run_id, "after_seq": str(self._cursor)}

    async def run(self) -> None:
        with self._watch:
            await self._open()
            while True:
                self._watch.woken.clear()
                if self._streams.hub.is_draining:
                    raise DrainingError
                if self._pace.is_due:
                    await self._pace.write(Response(heartbeat=self._heartbeat()))
                if await self._send_events():
                    continue
                if self._ending is not None and self._ending.seq == self._cursor:
                    await self._pace.write(Response(end=_end(self._ending)))
                    return
                await self._pace.rest(self._watch.woken)

    async def _open(self) -> None:
        head = await self._streams.head(self._wish.namespace, self._wish.run_id)
        self._stand_at(head.last_seq, head.epoch, run_status(head.status))
        snapshot: list[runs_pb2.StreamSnapshot] = []
        if self._wish.start is Start.SNAPSHOT:
            snapshot = await self._read_snapshot()
        elif self._wish.start is Start.AFTER:
            self._cursor = _checked_cursor(self._wish, head)
        await failpoint_async("stream.opened")
        await self._pace.write(Response(header=self._header(head)))
        for chunk in snapshot:
            await self._pace.write(Response(snapshot=chunk))

    async def _read_snapshot(self) -> list[runs_pb2.StreamSnapshot]:
        async with self._streams.snapshots:
            snapshot = await read_snapshot(
                self._streams.engine.reads,
                namespace=self._wish.namespace,
                run_id=self._wish.run_id,
            )
        # It may know more than the head, even that the run has ended since.
        run = snapshot[0].run
        self._stand_at(snapshot[0].seq, run.epoch, run.status)
        return snapshot

    def _stand_at(self, seq: int, epoch: int, status: types_pb2.RunStatus.ValueType) -> None:
        """Begin above the newest event there is, which may have ended the run."""
        self._watch.learn_head(seq)
        self._cursor = seq
        self._ending = Ending(seq, epoch, status) if status in TERMINAL else None

    async def _send_events(self) -> bool:
        """Send one frame of what lies above the cursor; False if there is nothing."""
        frame = await self._watch.frame_above(self._cursor, self._wish.kinds)
        if frame is None:
            return False
        await failpoint_async("stream.read")
        if frame.data is not None:
            await self._pace.write(frame.data)
        await failpoint_async("stream.written")
        self._cursor = frame.examined_seq
        self._ending = frame.ending
        return True

    def _header(self, head: RunHead) -> runs_pb2.StreamHeader:
        return runs_pb2.StreamHeader(
            oldest_seq=head.oldest_seq,
            head_seq=self._watch.head,
            after_seq=self._cursor,
            server_time=server_time(),
            replica=self._streams.engine.replica_id,
        )

    def _heartbeat(self) -> runs_pb2.StreamHeartbeat:
        return runs_pb2.StreamHeartbeat(
            head_seq=self._watch.head, examined_seq=self._cursor, server_time=server_time()
        )


def _checked_cursor(wish: Following, head: RunHead) -> int:
    if wish.after_seq > head.last_seq:
        raise CursorAheadError(wish.run_id, after_seq=wish.after_seq, head_seq=head.last_seq)
    if wish.after_seq < head.oldest_seq - 1:
        raise CursorExpiredError(wish.run_id, oldest_seq=head.oldest_seq)
    return wish.after_seq


def _end(ending: Ending) -> runs_pb2.StreamEnd:
    return runs_pb2.StreamEnd(head_seq=ending.seq, epoch=ending.epoch, status=ending.status)

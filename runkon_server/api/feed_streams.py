"""What the streams that follow a namespace's feed have in common: their places and their pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import grpc

from runkon_server.api.following import heartbeat_of
from runkon_server.api.pacing import WRITE_S, Pace
from runkon_server.errors import CursorForeignError, FeedExpiredError
from runkon_server.store.feed_floors import expired_below
from runkon_server.store.reads.feed import FeedPlace

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon.v1 import gates_pb2, runs_pb2
    from runkon_server.api.feed import FeedHub, FeedWatch
    from runkon_server.api.feed_cursors import FeedCursors

    Request: TypeAlias = runs_pb2.StreamNamespaceEventsRequest | gates_pb2.StreamGatesRequest

__all__ = ["Context", "FeedStreams", "Replica"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Replica(Protocol):
    """The part of the engine that feeds need."""

    @property
    def replica_id(self) -> str:
        """Name for diagnosis."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""


class FeedStreams:
    """All streams of one kind of a replica.

    Args:
        engine: where events are read.
        hub: tells when there are new ones.
        cursors: names places.
        write_s: how long a frame may wait to be taken.
    """

    def __init__(
        self, engine: Replica, hub: FeedHub, cursors: FeedCursors, *, write_s: float = WRITE_S
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._cursors = cursors
        self._write_s = write_s

    async def _present(self) -> FeedPlace:
        """The place that all lies above which is committed from here on."""
        return FeedPlace((await self._hub.horizon()).xid, "", 0)

    async def _opened(self, namespace: str, cursor: str) -> FeedPlace:
        """The place of a caller's cursor, if everything above it is there.

        Raises:
            CursorInvalidError: it is garbage, forged, or of another namespace.
            CursorForeignError: it is of another cluster, or of a state that this one has lost.
            FeedExpiredError: retention has removed events above it.
        """
        place = self._cursors.open(namespace, cursor)
        if place.xid > (await self._hub.horizon()).next_xid:
            raise CursorForeignError(namespace)
        async with self._engine.reads.connect() as conn:
            if place.xid < await expired_below(conn, namespace):
                raise FeedExpiredError(namespace)
        return place

    def _cursor(self, watch: FeedWatch) -> str:
        """Where a reader of the watch is."""
        return self._cursors.seal(watch.namespace, watch.cursor)

    def _pace(self, request: Request, context: Context, watch: FeedWatch) -> Pace:
        return Pace(
            context,
            heartbeat_s=heartbeat_of(request),
            write_s=self._write_s,
            place=lambda: {"namespace": watch.namespace, "cursor": self._cursor(watch)},
        )

"""StreamNamespaceEvents: the events of all runs of a namespace, for as long as somebody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import runs_pb2
from runkon_server.api.following import heartbeat_of
from runkon_server.api.frames import server_time
from runkon_server.api.pacing import WRITE_S, Pace
from runkon_server.api.parsing.checks import namespace_of
from runkon_server.api.parsing.runs import kinds_of
from runkon_server.errors import CursorForeignError, DrainingError, FeedExpiredError
from runkon_server.store.feed_floors import expired_below
from runkon_server.store.reads.feed import START, FeedPlace, FeedQuery

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.feed import FeedHub, FeedWatch
    from runkon_server.api.feed_cursors import FeedCursors

__all__ = ["NamespaceStreams", "Replica", "opened_cursor"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Response: TypeAlias = runs_pb2.StreamNamespaceEventsResponse
_NOW: Final = "from_now"


class Replica(Protocol):
    """The part of the engine that feeds need."""

    @property
    def replica_id(self) -> str:
        """Name for diagnosis."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""


class NamespaceStreams:
    """All streams of namespaces' events of a replica.

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

    async def serve(self, request: runs_pb2.StreamNamespaceEventsRequest, context: Context) -> None:
        """Serve one stream; never returns.

        Raises:
            CursorInvalidError, CursorForeignError, FeedExpiredError: nothing goes on from there.
            DrainingError: the replica goes away.
            SlowConsumerError: nobody took a frame in time.
        """
        await self._cursors.prepare()
        query = _query_of(request)
        with self._hub.watch(query, await self._begin(request, query.namespace)) as watch:
            await self._run(query.namespace, watch, self._pace(request, context, watch))

    def _pace(
        self, request: runs_pb2.StreamNamespaceEventsRequest, context: Context, watch: FeedWatch
    ) -> Pace:
        namespace = namespace_of(request.namespace)
        return Pace(
            context,
            heartbeat_s=heartbeat_of(request),
            write_s=self._write_s,
            place=lambda: {
                "namespace": namespace,
                "cursor": self._cursors.seal(namespace, watch.cursor),
            },
        )

    async def _begin(
        self, request: runs_pb2.StreamNamespaceEventsRequest, namespace: str
    ) -> FeedPlace:
        if request.WhichOneof("position") == _NOW:
            return FeedPlace((await self._hub.horizon()).xid, "", 0)
        if not request.cursor:
            return START
        return await opened_cursor(
            self._engine, self._hub, self._cursors, namespace, request.cursor
        )

    async def _run(self, namespace: str, watch: FeedWatch, pace: Pace) -> None:
        header = runs_pb2.NamespaceHeader(
            cursor=self._cursors.seal(namespace, watch.cursor),
            server_time=server_time(),
            replica=self._engine.replica_id,
        )
        await pace.write(Response(header=header))
        is_behind = True
        while True:
            watch.woken.clear()
            if self._hub.is_draining:
                raise DrainingError
            if pace.is_due:
                tell = self._on_the_way if is_behind else self._heartbeat
                await pace.write(tell(namespace, watch))
            sheet = await watch.next()
            is_behind = sheet is not None
            if sheet is None:
                await pace.rest(watch.woken)
                continue
            for frame, place in sheet.frames():
                await pace.write(frame)
                watch.advance(place)
            watch.advance(sheet.examined)

    def _on_the_way(self, namespace: str, watch: FeedWatch) -> Response:
        """A batch without events: filters leave out page after page, but the stream lives."""
        cursor = self._cursors.seal(namespace, watch.cursor)
        return Response(events=runs_pb2.NamespaceEventBatch(cursor=cursor))

    def _heartbeat(self, namespace: str, watch: FeedWatch) -> Response:
        """Word that there is nothing more to send for now."""
        lag = Duration()
        lag.FromNanoseconds(int(self._hub.lag_s * 1e9))
        heartbeat = runs_pb2.NamespaceHeartbeat(
            cursor=self._cursors.seal(namespace, watch.cursor), server_time=server_time(), lag=lag
        )
        return Response(heartbeat=heartbeat)


async def opened_cursor(
    engine: Replica, hub: FeedHub, cursors: FeedCursors, namespace: str, cursor: str
) -> FeedPlace:
    """The place of a caller's cursor, if everything above it is there.

    Raises:
        CursorInvalidError: it is garbage, forged, or of another namespace.
        CursorForeignError: it is of another cluster, or of a state that this one has lost.
        FeedExpiredError: retention has removed events above it.
    """
    place = cursors.open(namespace, cursor)
    if place.xid > (await hub.horizon()).next_xid:
        raise CursorForeignError(namespace)
    async with engine.reads.connect() as conn:
        if place.xid < await expired_below(conn, namespace):
            raise FeedExpiredError(namespace)
    return place


def _query_of(request: runs_pb2.StreamNamespaceEventsRequest) -> FeedQuery:
    return FeedQuery(
        namespace=namespace_of(request.namespace),
        workflow_name=request.workflow_name or None,
        kinds=kinds_of(list(request.kinds)),
        labels=tuple(sorted(request.labels.items())),
    )

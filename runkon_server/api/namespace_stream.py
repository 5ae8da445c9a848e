"""StreamNamespaceEvents: the events of all runs of a namespace, for as long as somebody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from google.protobuf.duration_pb2 import Duration

from runkon.v1 import runs_pb2
from runkon_server.api.feed_streams import Context, FeedStreams
from runkon_server.api.frames import server_time
from runkon_server.api.parsing.checks import namespace_of
from runkon_server.api.parsing.runs import kinds_of
from runkon_server.errors import DrainingError
from runkon_server.store.reads.feed import START, FeedPlace, FeedQuery

if TYPE_CHECKING:
    from runkon_server.api.feed import FeedWatch
    from runkon_server.api.pacing import Pace

__all__ = ["NamespaceStreams"]

Response: TypeAlias = runs_pb2.StreamNamespaceEventsResponse
_NOW: Final = "from_now"


class NamespaceStreams(FeedStreams):
    """All streams of namespaces' events of a replica."""

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
            await self._run(watch, self._pace(request, context, watch))

    async def _begin(
        self, request: runs_pb2.StreamNamespaceEventsRequest, namespace: str
    ) -> FeedPlace:
        if request.WhichOneof("position") == _NOW:
            return await self._present()
        return await self._opened(namespace, request.cursor) if request.cursor else START

    async def _run(self, watch: FeedWatch, pace: Pace) -> None:
        header = runs_pb2.NamespaceHeader(
            cursor=self._cursor(watch),
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
                await pace.write(tell(watch))
            sheet = await watch.next()
            is_behind = sheet is not None
            if sheet is None:
                await pace.rest(watch.woken)
                continue
            for frame, place in sheet.frames():
                await pace.write(frame)
                watch.advance(place)
            watch.advance(sheet.examined)

    def _on_the_way(self, watch: FeedWatch) -> Response:
        """A batch without events: filters leave out page after page, but the stream lives."""
        return Response(events=runs_pb2.NamespaceEventBatch(cursor=self._cursor(watch)))

    def _heartbeat(self, watch: FeedWatch) -> Response:
        """Word that there is nothing more to send for now."""
        lag = Duration()
        lag.FromNanoseconds(int(self._hub.lag_s * 1e9))
        heartbeat = runs_pb2.NamespaceHeartbeat(
            cursor=self._cursor(watch), server_time=server_time(), lag=lag
        )
        return Response(heartbeat=heartbeat)


def _query_of(request: runs_pb2.StreamNamespaceEventsRequest) -> FeedQuery:
    return FeedQuery(
        namespace=namespace_of(request.namespace),
        workflow_name=request.workflow_name or None,
        kinds=kinds_of(list(request.kinds)),
        labels=tuple(sorted(request.labels.items())),
    )

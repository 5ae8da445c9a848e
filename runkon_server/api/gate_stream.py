"""StreamGates: the gates that wait, and from then on every gate that opens or changes.

What changed is known from the feed's events; what is sent is the gate as it stands, read anew. So a
change is never missed, one may be seen early or twice, and the frame sent last is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from runkon.v1 import gates_pb2
from runkon_server.api.feed_streams import Context, FeedStreams
from runkon_server.api.frames import server_time
from runkon_server.api.parsing.checks import PAGE_ROWS_MAX, namespace_of
from runkon_server.api.recent import PAGE_BYTES
from runkon_server.api.render import render_gate
from runkon_server.api.wire import ELEMENT_BYTES
from runkon_server.errors import DrainingError
from runkon_server.store.reads.feed import FeedQuery
from runkon_server.store.reads.gates import GateQuery, cursor_of, gates_by_id, list_gates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from runkon_server.api.feed import FeedWatch, Sheet
    from runkon_server.api.pacing import Pace
    from runkon_server.store.rows import GateRow

__all__ = ["GateStreams"]

Response: TypeAlias = gates_pb2.StreamGatesResponse
KINDS: Final = frozenset({"gate_waiting", "gate_voted", "gate_resolved"})
"""The events that tell of a gate: all that become of one are among them."""


class GateStreams(FeedStreams):
    """All streams of gates of a replica."""

    async def serve(self, request: gates_pb2.StreamGatesRequest, context: Context) -> None:
        """Serve one stream; never returns.

        Raises:
            CursorInvalidError, CursorForeignError, FeedExpiredError: nothing goes on from there.
            DrainingError: the replica goes away.
            SlowConsumerError: nobody took a frame in time.
        """
        await self._cursors.prepare()
        namespace = namespace_of(request.namespace)
        if request.cursor:
            begin = await self._opened(namespace, request.cursor)
        else:
            # Taken before the gates are read: what changes from here on is told of again.
            begin = await self._present()
        query = FeedQuery(
            namespace=namespace,
            workflow_name=request.workflow_name or None,
            kinds=KINDS,
            labels=tuple(sorted(request.labels.items())),
        )
        with self._hub.watch(query, begin) as watch:
            await self._run(request, watch, self._pace(request, context, watch))

    async def _run(
        self, request: gates_pb2.StreamGatesRequest, watch: FeedWatch, pace: Pace
    ) -> None:
        header = gates_pb2.GatesHeader(
            cursor=self._cursor(watch),
            server_time=server_time(),
            replica=self._engine.replica_id,
        )
        await pace.write(Response(header=header))
        if not request.cursor:
            async for pending in self._pending(request):
                await pace.write(Response(pending=pending))
        while True:
            watch.woken.clear()
            if self._hub.is_draining:
                raise DrainingError
            if pace.is_due:
                heartbeat = gates_pb2.GatesHeartbeat(
                    cursor=self._cursor(watch), server_time=server_time()
                )
                await pace.write(Response(heartbeat=heartbeat))
            sheet = await watch.next()
            if sheet is None:
                await pace.rest(watch.woken)
                continue
            for changed in await self._changed(request, sheet):
                await pace.write(Response(changed=changed))
            watch.advance(sheet.examined)

    async def _pending(
        self, request: gates_pb2.StreamGatesRequest
    ) -> AsyncIterator[gates_pb2.PendingGates]:
        """The gates that wait, oldest first; the last chunk says that it is."""
        query = GateQuery(
            namespace=namespace_of(request.namespace),
            run_id=request.run_id or None,
            gate_type=request.type or None,
            workflow_name=request.workflow_name or None,
            state="pending",
        )
        after = None
        while True:
            async with self._engine.reads.connect() as conn:
                page = await list_gates(conn, query, limit=PAGE_ROWS_MAX, after=after)
            for chunk in _chunks(row for row in page.rows if _is_wanted(row, request)):
                yield gates_pb2.PendingGates(gates=chunk)
            if not page.more:
                yield gates_pb2.PendingGates(last=True)
                return
            after = cursor_of(page.rows[-1])

    async def _changed(
        self, request: gates_pb2.StreamGatesRequest, sheet: Sheet
    ) -> list[gates_pb2.ChangedGates]:
        namespace = namespace_of(request.namespace)
        ids = list(dict.fromkeys(_gate_of(row.payload) for row in sheet.rows))
        async with self._engine.reads.connect() as conn:
            found = await gates_by_id(conn, namespace=namespace, gate_ids=ids)
        rows = (found[gate_id] for gate_id in ids if gate_id in found)
        frames = [
            gates_pb2.ChangedGates(gates=chunk)
            for chunk in _chunks(row for row in rows if _is_wanted(row, request))
        ]
        if frames:
            # Only the last one reaches the place: the others are parts of what lies before it.
            frames[-1].cursor = self._cursors.seal(namespace, sheet.examined)
        return frames


def _gate_of(payload: str) -> str:
    """The gate that an event of `KINDS` tells of."""
    columns = orjson.loads(payload)
    gate_id: str = columns["gate_id"] if "gate_id" in columns else columns["gate"]["id"]
    return gate_id


def _is_wanted(gate: GateRow, request: gates_pb2.StreamGatesRequest) -> bool:
    labels = gate.labels or {}
    return (
        (not request.run_id or gate.run_id == request.run_id)
        and (not request.type or gate.gate_type == request.type)
        and all(labels.get(name) == value for name, value in request.labels.items())
    )


def _chunks(rows: Iterable[GateRow]) -> Iterator[Sequence[gates_pb2.Gate]]:
    """The gates as messages, as many at a time as fit a frame."""
    chunk: list[gates_pb2.Gate] = []
    weight = 0
    for row in rows:
        gate = render_gate(row)
        size = gate.ByteSize() + ELEMENT_BYTES
        if chunk and weight + size > PAGE_BYTES:
            yield chunk
            chunk, weight = [], 0
        chunk.append(gate)
        weight += size
    if chunk:
        yield chunk

"""Reading streams of the whole API as raw frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from support.live_api import Refusal
from support.replicas import read

if TYPE_CHECKING:
    from runkon.v1 import runs_pb2


async def frame_of(call: Any, kind: str) -> Any:
    """The next frame, which is of that kind."""
    frame = await read(call)
    assert frame.WhichOneof("frame") == kind, frame
    return getattr(frame, kind)


async def refusal_of(call: Any, seen: list[Any] | None = None) -> Refusal:
    """How a stream ends, after frames that are noted in `seen`; fails if it ends well."""
    try:
        while (frame := await read(call)) is not grpc.aio.EOF:
            if seen is not None:
                seen.append(frame)
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError("the stream ended without an error")


async def events_until(call: Any, count: int) -> list[runs_pb2.NamespaceEvent]:
    """The next events of a namespace, so many of them; heartbeats are passed over."""
    found: list[runs_pb2.NamespaceEvent] = []
    while len(found) < count:
        frame = await read(call)
        found += frame.events.events
    return found

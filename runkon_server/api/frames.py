"""Frames of event streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from google.protobuf import timestamp_pb2

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.api.recent import PAGE_BYTES
from runkon_server.api.render.runs import run_status
from runkon_server.api.wire import element, tag_of, varint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runkon_server.api.recent import Entry

__all__ = ["Ending", "Frame", "build_frame", "server_time"]

RUN_FINISHED: Final = "run_finished"
TERMINAL: Final = frozenset(
    {
        types_pb2.RUN_STATUS_COMPLETED,
        types_pb2.RUN_STATUS_FAILED,
        types_pb2.RUN_STATUS_CANCELLED,
    }
)


_FRAME: Final = tag_of(runs_pb2.StreamRunEventsResponse, "events")
_EXAMINED: Final = tag_of(runs_pb2.EventBatch, "examined_seq", 0)


@dataclass(frozen=True, slots=True)
class Ending:
    """The event that ended an epoch: the end of the stream, unless the run was resumed since."""

    seq: int
    epoch: int
    status: types_pb2.RunStatus.ValueType


@dataclass(frozen=True, slots=True)
class Frame:
    """Events as one message, encoded once for all streams at the same place."""

    data: bytes | None
    """A `StreamRunEventsResponse`; None: every event was filtered out."""
    first_seq: int
    examined_seq: int
    ending: Ending | None
    """Set if the last event examined ended an epoch."""


def build_frame(entries: Sequence[Entry], kinds: Collection[str]) -> Frame:
    """A frame of the first entries, as many as fit.

    Args:
        entries: in order, without gaps, at least one.
        kinds: only these; empty means all.
    """
    parts: list[bytes] = []
    weight = 0
    last = entries[0]
    for entry in entries:
        if not kinds or entry.kind in kinds:
            weight += len(entry.data)
            if weight > PAGE_BYTES and parts:
                break
            parts.append(entry.data)
        last = entry
    ending = None
    if last.kind == RUN_FINISHED:
        status = run_status(orjson.loads(last.payload).get("status", ""))
        ending = Ending(last.seq, last.epoch, status)
    data = None
    if parts:
        data = element(_FRAME, b"".join((*parts, _EXAMINED, varint(last.seq))))
    return Frame(data, entries[0].seq, last.seq, ending)


def server_time() -> timestamp_pb2.Timestamp:
    """Now, by this machine's clock."""
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now

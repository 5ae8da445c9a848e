"""Frames of event streams."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from google.protobuf import timestamp_pb2

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.api.recent import PAGE_BYTES, Entry, encoded
from runkon_server.api.render.runs import run_status
from runkon_server.api.wire import element, tag_of, varint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runkon_server.api.recent import StoredEvent

__all__ = ["Ending", "Frame", "KeptFrames", "build_frame", "server_time"]

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
_FRAME_BYTES: Final = 512
"""What a kept frame weighs besides its data, of which a filter may leave nothing."""


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

    @property
    def weight(self) -> int:
        """What it takes to keep, in bytes, about."""
        return _FRAME_BYTES + len(self.data or b"")


def build_frame(entries: Sequence[Entry | StoredEvent], kinds: Collection[str]) -> Frame:
    """A frame of the first events, as many as fit.

    Args:
        entries: in order, without gaps, at least one.
        kinds: only these; empty means all.
    """
    parts: list[bytes] = []
    weight = 0
    last = entries[0]
    for entry in entries:
        if not kinds or entry.kind in kinds:
            part = entry.data if isinstance(entry, Entry) else encoded(entry)
            weight += len(part)
            if weight > PAGE_BYTES and parts:
                break
            parts.append(part)
        last = entry
    ending = None
    if last.kind == RUN_FINISHED:
        status = run_status(orjson.loads(last.payload).get("status", ""))
        ending = Ending(last.seq, last.epoch, status)
    data = None
    if parts:
        data = element(_FRAME, b"".join((*parts, _EXAMINED, varint(last.seq))))
    return Frame(data, entries[0].seq, last.seq, ending)


class KeptFrames:
    """Frames of whole pages, by what they follow and hold: for the next who replay the same run.

    Of such a page only the frame is kept. To keep its events, each with what it was made from,
    would cost more than to read and encode them.

    Args:
        budget: bytes that the frames may take.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._weight = 0
        self._frames: OrderedDict[tuple[str, int, frozenset[str]], Frame] = OrderedDict()

    def above(self, run_id: str, seq: int, kinds: frozenset[str]) -> Frame | None:
        """The frame of these kinds that begins directly above `seq`; None if it is not there."""
        return self._frames.get((run_id, seq, kinds))

    def add(self, run_id: str, frame: Frame, kinds: frozenset[str]) -> None:
        """Keep a frame of all events of these kinds that it examined."""
        key = (run_id, frame.first_seq - 1, kinds)
        if key in self._frames:
            return
        self._frames[key] = frame
        self._weight += frame.weight
        while self._weight > self._budget:
            _, dropped = self._frames.popitem(last=False)
            self._weight -= dropped.weight

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._weight = 0


def server_time() -> timestamp_pb2.Timestamp:
    """Now, by this machine's clock."""
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now

"""Frames of event streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf import timestamp_pb2

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.api.recent import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runkon.v1 import events_pb2
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


@dataclass(frozen=True, slots=True)
class Ending:
    """The event that ended an epoch: the end of the stream, unless the run was resumed since."""

    seq: int
    epoch: int
    status: types_pb2.RunStatus.ValueType


@dataclass(frozen=True, slots=True)
class Frame:
    """Events as one message; shared by all streams at the same place, so nobody may change it."""

    response: runs_pb2.StreamRunEventsResponse | None
    """None: every event was filtered out."""
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
    messages: list[events_pb2.RunEvent] = []
    weight = 0
    last = entries[0]
    for entry in entries:
        if not kinds or entry.kind in kinds:
            message = entry.message
            weight += entry.size
            if weight > PAGE_BYTES and messages:
                break
            messages.append(message)
        last = entry
    ending = None
    if last.kind == RUN_FINISHED:
        ending = Ending(last.seq, last.epoch, last.message.run_finished.status)
    response = None
    if messages:
        batch = runs_pb2.EventBatch(events=messages, examined_seq=last.seq)
        response = runs_pb2.StreamRunEventsResponse(events=batch)
    return Frame(response, entries[0].seq, last.seq, ending)


def server_time() -> timestamp_pb2.Timestamp:
    """Now, by this machine's clock."""
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return now

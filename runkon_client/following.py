"""Following a run's events: what to ask for, what frames mean, what a broken stream means.

`EventFollower` is pure: it is fed frames and failures and says what to yield and when to ask again.
The two stacks around it (`client.EventStream`, `sync.SyncEventStream`) only move bytes and wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from runkon.v1 import runs_pb2
from runkon_client.calls.call import encode_span
from runkon_client.calls.runs import encode_kinds
from runkon_client.decode import decode_run, decode_step
from runkon_client.decode_events import decode_event
from runkon_client.errors import Code, EventGapError, RunkonClientError
from runkon_client.retry import Backoff
from runkon_client.values import EventKind, RunEvent, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon.v1 import types_pb2

STREAM_PATH: Final = "/runkon.v1.RunService/StreamRunEvents"
DEFAULT_HEARTBEAT: Final = timedelta(seconds=10)
SILENT_HEARTBEATS: Final = 3

# Codes that a proxy or the transport gives a stream it cuts; a Runkon server adds a reason.
_CUT: Final = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED})


@dataclass(frozen=True, slots=True)
class Following:
    """What to follow.

    `begin` is the sequence after which to begin, or "now", or "snapshot"; `kinds` empty means all.
    """

    namespace: str
    run_id: str
    begin: int | Literal["now", "snapshot"]
    kinds: Sequence[EventKind] = ()
    heartbeat: timedelta = DEFAULT_HEARTBEAT

    def __post_init__(self) -> None:
        require_heartbeat(self.heartbeat)


def require_heartbeat(heartbeat: timedelta) -> None:
    """Refuse what would end every stream before its first frame; the server refuses the rest.

    Raises:
        ValueError: it is no time at all.
    """
    if heartbeat <= timedelta():
        raise ValueError(f"heartbeat is 1 s to 60 s, not {heartbeat.total_seconds():g} s")


class EventFollower:
    """State of one follower over all the streams that it goes through."""

    path = STREAM_PATH
    response = runs_pb2.StreamRunEventsResponse

    def __init__(self, following: Following, backoff: Backoff | None = None) -> None:
        self._following = following
        self._backoff = backoff or Backoff()
        self._seq = following.begin if isinstance(following.begin, int) else None
        self._snapshot_run: types_pb2.Run | None = None
        self._snapshot_steps: list[types_pb2.Step] = []
        self._was_open = False
        self.is_ended = False
        self.gap: RunkonClientError | None = None

    @property
    def place(self) -> int | None:
        """Every event up to this one was fed; None while a stream from "now" has not opened."""
        return self._seq

    @property
    def silence_s(self) -> float:
        """A stream without a frame for so long is dead: a heartbeat was due three times."""
        return self._following.heartbeat.total_seconds() * SILENT_HEARTBEATS

    def request(self) -> runs_pb2.StreamRunEventsRequest:
        """What to open the next stream with."""
        self._snapshot_run = None
        self._snapshot_steps = []
        request = runs_pb2.StreamRunEventsRequest(
            namespace=self._following.namespace,
            run_id=self._following.run_id,
            kinds=encode_kinds(self._following.kinds),
            heartbeat_interval=encode_span(self._following.heartbeat),
        )
        if self._seq is not None:
            request.after_seq = self._seq
        elif self._following.begin == "now":
            request.from_now = True
        else:
            request.from_snapshot = True
        return request

    def feed(
        self, frame: runs_pb2.StreamRunEventsResponse
    ) -> list[tuple[RunEvent | Snapshot, int | None]]:
        """What a frame brings that was not there before, each with the place that it reaches.

        A frame that shows that events were left out sets `gap`, which ends the following: what
        came before the gap is still to be handed out.
        """
        return [(item, item.seq) for item in self._read(frame)]

    def _read(self, frame: runs_pb2.StreamRunEventsResponse) -> list[RunEvent | Snapshot]:
        self._was_open = True
        match frame.WhichOneof("frame"):
            case "header":
                self._open(frame.header.after_seq)
                return []
            case "snapshot":
                return self._collect(frame.snapshot)
            case "events":
                return self._take(frame.events)
            case "heartbeat":
                self._backoff.reset()
                self._pass(frame.heartbeat.examined_seq)
                return []
            case "end":
                self._pass(frame.end.head_seq)
                self.is_ended = True
                return []
            case _:
                return []

    def delay_after(self, error: RunkonClientError | None) -> float:
        """Seconds until the next stream, after one that closed without an end.

        Args:
            error: what it closed with; None for a clean close, or for silence.

        Raises:
            RunkonClientError: `error`, if another stream would end the same way.
        """
        if error is not None and not is_survivable(error, was_open=self._was_open):
            raise error
        return self._backoff.next_delay_s(error)

    def _open(self, after_seq: int) -> None:
        if self._seq is None:
            if self._following.begin == "now":
                self._seq = after_seq
        elif after_seq > self._seq:
            self._miss(self._seq, after_seq + 1)

    def _collect(self, chunk: runs_pb2.StreamSnapshot) -> list[RunEvent | Snapshot]:
        if chunk.HasField("run"):
            self._snapshot_run = chunk.run
        self._snapshot_steps += chunk.steps
        if not chunk.last or self._snapshot_run is None:
            return []
        steps = tuple(decode_step(step) for step in self._snapshot_steps)
        snapshot = Snapshot(seq=chunk.seq, run=decode_run(self._snapshot_run), steps=steps)
        self._snapshot_run = None
        self._snapshot_steps = []
        self._seq = chunk.seq
        self._backoff.reset()
        return [snapshot]

    def _take(self, batch: runs_pb2.EventBatch) -> list[RunEvent | Snapshot]:
        self._backoff.reset()
        fresh: list[RunEvent | Snapshot] = []
        for message in batch.events:
            seq = message.seq
            if self._seq is not None:
                if seq <= self._seq:
                    continue
                if seq != self._seq + 1 and not self._following.kinds:
                    self._miss(self._seq, seq)
                    return fresh
            self._seq = seq
            fresh.append(decode_event(message))
        self._pass(batch.examined_seq)
        return fresh

    def _pass(self, examined_seq: int) -> None:
        """Go on to a sequence that the server says it has looked at and sent up to."""
        if self._seq is None or examined_seq <= self._seq:
            return
        if self._following.kinds:
            self._seq = examined_seq
        else:
            self._miss(self._seq, examined_seq)

    def _miss(self, after_seq: int, found_seq: int) -> None:
        self.gap = EventGapError(self._following.run_id, after_seq, found_seq)


def is_survivable(error: RunkonClientError, *, was_open: bool) -> bool:
    """Whether a stream that closed like this can be opened again at the cursor.

    Args:
        was_open: an earlier one was: the server may still hold it open, and count it.
    """
    if error.reason == "STREAM_LIMIT":
        return was_open
    if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return True
    if error.code in (Code.ABORTED, Code.RESOURCE_EXHAUSTED):
        return error.retry_after is not None or error.reason == "SLOW_CONSUMER"
    return error.code in _CUT and not error.reason

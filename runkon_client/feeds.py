"""Following a namespace: its events, its gates. Pure, as `following` is for one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runkon.v1 import gates_pb2, runs_pb2
from runkon_client.calls.call import encode_span
from runkon_client.calls.runs import encode_kinds
from runkon_client.decode import decode_gate
from runkon_client.decode_events import decode_event
from runkon_client.following import (
    DEFAULT_HEARTBEAT,
    SILENT_HEARTBEATS,
    is_survivable,
    require_heartbeat,
)
from runkon_client.retry import Backoff
from runkon_client.values import EventKind, Gate, NamespaceEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from runkon_client.errors import RunkonClientError

_T = TypeVar("_T")
EVENTS_PATH: Final = "/runkon.v1.RunService/StreamNamespaceEvents"
GATES_PATH: Final = "/runkon.v1.GateService/StreamGates"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFilter:
    """What to follow of a namespace; what is empty does not matter.

    `run_id` and `gate_type` are for gates; `kinds`, `from_now` and `follow` are for events.
    """

    namespace: str
    cursor: str = ""
    from_now: bool = False
    follow: bool = True
    """False: end with the first heartbeat, for which there is nothing more to read."""
    workflow_name: str = ""
    kinds: Sequence[EventKind] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    gate_type: str = ""
    heartbeat: timedelta = DEFAULT_HEARTBEAT

    def __post_init__(self) -> None:
        require_heartbeat(self.heartbeat)


class _Feed(Generic[_T]):
    """What both kinds share: a cursor, patience, and no end."""

    def __init__(self, wanted: FeedFilter, backoff: Backoff | None = None) -> None:
        self.is_ended = False
        self.gap: RunkonClientError | None = None
        self._wanted = wanted
        self._backoff = backoff or Backoff()
        self._place = wanted.cursor or None
        self._was_open = False

    @property
    def place(self) -> str | None:
        """Everything up to here was fed; None while there is no place to go on from."""
        return self._place

    @property
    def silence_s(self) -> float:
        """A stream without a frame for so long is dead: a heartbeat was due three times."""
        return self._wanted.heartbeat.total_seconds() * SILENT_HEARTBEATS

    def delay_after(self, error: RunkonClientError | None) -> float:
        """Seconds until the next stream, after one that closed.

        Raises:
            RunkonClientError: `error`, if another stream would end the same way.
        """
        if error is not None and not is_survivable(error, was_open=self._was_open):
            raise error
        return self._backoff.next_delay_s(error)

    def _reach(self, cursor: str) -> None:
        self._was_open = True
        self._backoff.reset()
        if cursor:
            self._place = cursor


class FeedFollower(_Feed[NamespaceEvent]):
    """State of one follower of a namespace's events, over all the streams that it goes through."""

    path = EVENTS_PATH
    response = runs_pb2.StreamNamespaceEventsResponse

    def request(self) -> runs_pb2.StreamNamespaceEventsRequest:
        """What to open the next stream with."""
        wanted = self._wanted
        request = runs_pb2.StreamNamespaceEventsRequest(
            namespace=wanted.namespace,
            workflow_name=wanted.workflow_name,
            kinds=encode_kinds(wanted.kinds),
            labels=wanted.labels,
            heartbeat_interval=encode_span(wanted.heartbeat),
        )
        if self._place is not None:
            request.cursor = self._place
        elif wanted.from_now:
            request.from_now = True
        return request

    def feed(self, frame: Any) -> list[tuple[NamespaceEvent, str | None]]:  # noqa: ANN401 - a message of this stream
        """What a frame brings, each event with the place that it is at."""
        match frame.WhichOneof("frame"):
            case "header":
                self._reach(frame.header.cursor)
            case "heartbeat":
                self._reach(frame.heartbeat.cursor)
                self.is_ended = not self._wanted.follow
            case "events":
                self._reach(frame.events.cursor)
                return [
                    (
                        NamespaceEvent(
                            event=decode_event(each.event),
                            workflow_name=each.workflow_name,
                            cursor=each.cursor,
                        ),
                        each.cursor,
                    )
                    for each in frame.events.events
                ]
            case _:
                pass
        return []


class GateFollower(_Feed[Gate]):
    """State of one follower of a namespace's gates."""

    path = GATES_PATH
    response = gates_pb2.StreamGatesResponse

    def __init__(self, wanted: FeedFilter, backoff: Backoff | None = None) -> None:
        super().__init__(wanted, backoff)
        self._begun_at = ""
        """Where changes follow, once all gates that wait have come."""
        self._waiting: list[gates_pb2.Gate] = []
        """Those that have: shown when the list is whole. Of a list that breaks off, a gate could be
        decided before the next one begins, and nobody would hear of it."""

    def request(self) -> gates_pb2.StreamGatesRequest:
        """What to open the next stream with."""
        self._waiting = []
        wanted = self._wanted
        return gates_pb2.StreamGatesRequest(
            namespace=wanted.namespace,
            cursor=self._place or "",
            run_id=wanted.run_id,
            type=wanted.gate_type,
            workflow_name=wanted.workflow_name,
            labels=wanted.labels,
            heartbeat_interval=encode_span(wanted.heartbeat),
        )

    def feed(self, frame: Any) -> list[tuple[Gate, str | None]]:  # noqa: ANN401 - a message of this stream
        """What a frame brings; the last gate before a place stands for it."""
        match frame.WhichOneof("frame"):
            case "header":
                self._begun_at = frame.header.cursor
                self._reach("")
            case "pending":
                self._waiting += frame.pending.gates
                if frame.pending.last:
                    self._reach(self._begun_at)
                    waiting, self._waiting = self._waiting, []
                    return _placed(waiting, self._begun_at)
            case "changed":
                self._reach(frame.changed.cursor)
                return _placed(frame.changed.gates, frame.changed.cursor)
            case "heartbeat":
                self._reach(frame.heartbeat.cursor)
            case _:
                pass
        return []


def _placed(gates: Sequence[gates_pb2.Gate], reached: str) -> list[tuple[Gate, str | None]]:
    placed: list[tuple[Gate, str | None]] = [(decode_gate(gate), None) for gate in gates]
    if placed and reached:
        placed[-1] = (placed[-1][0], reached)
    return placed

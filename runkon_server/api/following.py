"""What callers of streams ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from runkon_server.api.parsing.checks import namespace_of, span_of
from runkon_server.api.parsing.runs import kinds_of

if TYPE_CHECKING:
    from runkon.v1 import gates_pb2, runs_pb2

__all__ = ["EVERY_KIND", "Following", "Start", "heartbeat_of", "parse_following"]

HEARTBEAT_S: Final = 10.0
EVERY_KIND: Final[frozenset[str]] = frozenset()


class Start(Enum):
    """Where a stream begins."""

    AFTER = auto()
    """Above a sequence."""
    NOW = auto()
    """Above what there is when it opens."""
    SNAPSHOT = auto()
    """With the run and its steps, then above what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The wish for one stream."""

    namespace: str
    run_id: str
    start: Start
    after_seq: int
    """Only with `AFTER`."""
    kinds: frozenset[str]
    """Empty: all."""
    heartbeat_s: float


_STARTS: Final = {"from_now": Start.NOW, "from_snapshot": Start.SNAPSHOT}


def parse_following(request: runs_pb2.StreamRunEventsRequest) -> Following:
    """The wish in a checked request."""
    return Following(
        namespace=namespace_of(request.namespace),
        run_id=request.run_id,
        start=_STARTS.get(request.WhichOneof("cursor") or "", Start.AFTER),
        after_seq=request.after_seq,
        kinds=kinds_of(request.kinds) if request.kinds else EVERY_KIND,
        heartbeat_s=heartbeat_of(request),
    )


def heartbeat_of(
    request: runs_pb2.StreamRunEventsRequest
    | runs_pb2.StreamNamespaceEventsRequest
    | gates_pb2.StreamGatesRequest,
) -> float:
    """Most time without a frame that a checked request allows, in s."""
    if not request.HasField("heartbeat_interval"):
        return HEARTBEAT_S
    return span_of(request.heartbeat_interval).total_seconds()

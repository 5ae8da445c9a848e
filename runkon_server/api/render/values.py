"""Small values that several messages share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from runkon.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_COUNTS: Final = (
    "num_turns",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX: Final = 315_576_000_000_000


@lru_cache(maxsize=256)
def timestamp(at: datetime | None) -> Timestamp | None:
    """An instant; None leaves a field unset. Shared, so nobody may change it.

    What is committed together has one instant, so most calls find theirs.
    """
    if at is None:
        return None
    span = at - _EPOCH
    return Timestamp(seconds=span.days * 86_400 + span.seconds, nanos=span.microseconds * 1_000)


def duration(span: timedelta) -> Duration:
    """A span."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def seconds(text: str | None) -> Duration | None:
    """A span that is stored as decimal seconds; None if it is not there or no number."""
    try:
        return None if text is None else duration(timedelta(seconds=float(text)))
    except (ValueError, OverflowError):
        return None


def metrics(sums: Mapping[str, Any] | None) -> types_pb2.Metrics | None:
    """Sums of metrics; None if there are none."""
    if not sums:
        return None
    message = types_pb2.Metrics(
        cost_usd=sums.get("cost_usd", 0.0), **{name: sums.get(name, 0) for name in _COUNTS}
    )
    message.duration.FromMilliseconds(min(sums.get("duration_ms", 0), _MS_MAX))
    return message


def options(pairs: Iterable[Any] | None) -> Sequence[types_pb2.GateOption]:
    """A gate's options: pairs of key and label in rows, objects with both in `blocked_on`."""
    return [
        types_pb2.GateOption(key=each["key"], label=each["label"])
        if isinstance(each, dict)
        else types_pb2.GateOption(key=each[0], label=each[1])
        for each in pairs or ()
    ]

"""Events of the log to bytes: what `events.render_event` would build, without building it.

Of a run's events most tell of a step, and building those as messages was what streams spent their
time on: 19 us an event, of which 1 is the payload's JSON. Here a step is one formatted text, whose
characters stand for bytes, by an expression that is made once for every set of columns: 2 us.
Whatever is not plain goes the long way; a test holds the two ways to the same outcome.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from runkon.v1 import events_pb2, types_pb2
from runkon_server.api.events import ENDED, LIVE, render_event
from runkon_server.api.render.steps import ALIKE, ROLES, STATUSES
from runkon_server.api.render.values import metrics
from runkon_server.api.wire import element, tag_of, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runkon_server.api.recent import StoredEvent

    Columns: TypeAlias = dict[str, Any]

__all__ = ["encode_event"]

_BYTES: Final = "latin-1"
"""The encoding in which a character is the byte of its number."""


def _text(data: bytes) -> str:
    """Bytes as a text of such characters."""
    return data.decode(_BYTES)


_VARINT: Final = 0
_EVENT: Final = events_pb2.RunEvent
_STEP: Final = types_pb2.Step
_PLAIN: Final = frozenset(
    {"step_started", "step_completed", "step_failed", "step_skipped", "step_timed_out"}
)
_KEPT_MAX: Final = 2_048
_SHAPES_MAX: Final = 256

_SEQ: Final = _text(tag_of(_EVENT, "seq", _VARINT))
_RUN: Final = _text(tag_of(_EVENT, "run_id"))
_TIME: Final = _text(tag_of(_EVENT, "time"))
_KINDS: Final = {
    kind: _text(
        tag_of(_EVENT, "kind", _VARINT)
        + varint(_EVENT.DESCRIPTOR.fields_by_name[kind].number)
        + tag_of(_EVENT, kind)
    )
    for kind in _PLAIN
}
"""The whole field `kind`, whose numbers are those of the payloads, and the payload's tag."""
_CHANGED: Final = _text(tag_of(events_pb2.StepStarted, "step"))
_TRUNCATED: Final = _text(tag_of(events_pb2.StepStarted, "truncated", _VARINT) + b"\x01")
_STEP_RUN: Final = _text(tag_of(_STEP, "run_id"))
_METRICS: Final = tag_of(_STEP, "metrics")
_START: Final = _text(tag_of(_STEP, "start_time"))
_END: Final = _text(tag_of(_STEP, "end_time"))
_SECONDS: Final = _text(tag_of(Timestamp, "seconds", _VARINT))
_NANOS: Final = _text(tag_of(Timestamp, "nanos", _VARINT))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIVE_BYTES: Final = 1 << 28
"""Numbers from here on, up to 2^35, take five bytes."""


class _Kept(dict[Any, str]):
    """Values as they are written, made when first asked for; those that are many are not kept."""

    def __init__(self, write: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, value: Any) -> str:  # noqa: ANN401 - a value of a payload
        written = _text(self._write(value))
        if len(self) < _KEPT_MAX:
            self[value] = written
        return written


_SIZES: Final = _Kept(varint)


def _numbers_of(tag: bytes, *, is_told_apart: bool = False) -> _Kept:
    """Numbers as a field; `is_told_apart`: zero is not the same as none."""
    return _Kept(lambda value: tag + varint(_unsigned(value)) if value or is_told_apart else b"")


_GENERATIONS: Final = _numbers_of(tag_of(_EVENT, "generation", _VARINT))
_EPOCHS: Final = _numbers_of(tag_of(_EVENT, "epoch", _VARINT))
_ROLE_TAG: Final = tag_of(_STEP, "role", _VARINT)
_ROLES: Final = _Kept(lambda role: _ROLE_TAG + varint(ROLES.get(role, 0)) if role in ROLES else b"")
_STATUS_TAG: Final = tag_of(_STEP, "status", _VARINT)
_STATUSES: Final = _Kept(
    lambda status: _STATUS_TAG + varint(STATUSES[status]) if status in STATUSES else b""
)


def encode_event(event: StoredEvent) -> bytes:
    """The event as callers see it, as the bytes of a `RunEvent`."""
    kind = _KINDS.get(event.kind)
    if kind is not None:
        payload = orjson.loads(event.payload)
        columns = payload.get("step")
        # Steps that are gates or `foreach` have parts that are messages of their own.
        if columns is not None and not ("gate_type" in columns or "fan_out_total" in columns):
            try:
                return _encode(event, kind, payload, columns)
            except TypeError:
                pass  # a null in a column of texts
    return render_event(event).SerializeToString()


def _encode(event: StoredEvent, kind: str, payload: Columns, columns: Columns) -> bytes:
    if not event.payload.isascii() or "\\" in event.payload:
        columns = {name: _as_bytes(value) for name, value in columns.items()}
    run, now = _run(event.run_id), _instant(event.at)
    step = _step(columns, run, now)
    changed = f"{_CHANGED}{_SIZES[len(step)]}{step}"
    if payload.get("truncated"):
        changed += _TRUNCATED
    return (
        f"{_SEQ}{_SIZES[event.seq]}{_RUN}{run}{_TIME}{now}"
        f"{_GENERATIONS[event.generation]}{_EPOCHS[event.epoch]}"
        f"{kind}{_SIZES[len(changed)]}{changed}"
    ).encode(_BYTES)


def _step(columns: Columns, run: str, now: str) -> str:
    """A step, of whose event the id of the run and the instant are given with their lengths."""
    shape = tuple(columns)
    write = _SHAPES.get(shape)
    if write is None:
        write = _learn(shape)
    status = columns["status"]
    began = columns.get("started_at")
    if began is not None:
        start = f"{_START}{_instant_of(began)}"
    else:
        start = f"{_START}{now}" if status in LIVE else ""
    end = f"{_END}{now}" if status in ENDED else ""
    return f"{write(columns)}{_STEP_RUN}{run}{start}{end}"


def _as_bytes(value: Any) -> Any:  # noqa: ANN401 - a value of a payload
    """A text as the characters of its bytes, also within a list."""
    if isinstance(value, str):
        return _text(value.encode())
    return [_as_bytes(each) for each in value] if isinstance(value, list) else value


def _metrics(sums: Any) -> str:  # noqa: ANN401 - a value of a payload
    message = metrics(sums)
    return "" if message is None else _text(element(_METRICS, message.SerializeToString()))


@lru_cache(maxsize=64)
def _run(run_id: str) -> str:
    """The id of a run with its length."""
    return f"{_SIZES[len(run_id)]}{run_id}"


@lru_cache(maxsize=256)
def _instant(at: datetime) -> str:
    """A `Timestamp` with its length."""
    span = at - _EPOCH
    instant = _second(span.days * 86_400 + span.seconds)
    nanos = span.microseconds * 1_000
    if nanos >= _FIVE_BYTES:  # as three of four are
        instant += (
            f"{_NANOS}{chr(nanos & 127 | 128)}{chr(nanos >> 7 & 127 | 128)}"
            f"{chr(nanos >> 14 & 127 | 128)}{chr(nanos >> 21 & 127 | 128)}{chr(nanos >> 28)}"
        )
    elif nanos:
        instant += f"{_NANOS}{_text(varint(nanos))}"
    return f"{chr(len(instant))}{instant}"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return f"{_SECONDS}{_text(varint(_unsigned(second)))}" if second else ""


@lru_cache(maxsize=256)
def _instant_of(text: str) -> str:
    return _instant(datetime.fromisoformat(text))


def _unsigned(number: int) -> int:
    """Numbers below zero are written as if they had 64 bits."""
    return number & 0xFFFFFFFFFFFFFFFF


_SHAPES: Final[dict[tuple[str, ...], Callable[[Columns], str]]] = {}
"""What writes the columns of a step, by their names."""


def _learn(shape: tuple[str, ...]) -> Callable[[Columns], str]:
    """Make what writes these columns: a formatted string, compiled.

    A loop over the columns takes three times as long. Nothing of an event gets into the source:
    names are those of our own table, and all else in it is a number.
    """
    parts = [_WRITTEN[column] for column in shape if column in _WRITTEN]
    if "role" not in shape:
        parts.append("{ROLES['actor']}")
    source = f'lambda c: f"{"".join(parts)}"'
    write: Callable[[Columns], str] = eval(source, dict(_NAMES))  # noqa: S307 - see above
    if len(_SHAPES) >= _SHAPES_MAX:  # servers of other versions, in the end as many as columns
        _SHAPES.clear()
    _SHAPES[shape] = write
    return write


def _written(column: str, names: dict[str, Any]) -> str:
    """A column's part of the formatted string; what it refers to is added to `names`."""
    field = _STEP.DESCRIPTOR.fields_by_name[ALIKE[column]]
    name, value = f"f{field.number}", f"c['{column}']"
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if field.is_repeated:
        names[name] = _texts(field.name) if is_text else _packed(field.name)
        return f"{{{name}({value}) if {value} else ''}}"
    if is_text:
        tag = "".join(f"\\x{byte:02x}" for byte in tag_of(_STEP, field.name))
        return f"{tag}{{SIZES[len({value})]}}{{{value}}}"
    tag_bytes = tag_of(_STEP, field.name, _VARINT)
    names[name] = _numbers_of(tag_bytes, is_told_apart=field.has_presence)
    return f"{{{name}[{value}]}}"


def _texts(field: str) -> Callable[[list[str]], str]:
    tag = _text(tag_of(_STEP, field))
    return lambda values: "".join([f"{tag}{_SIZES[len(each)]}{each}" for each in values])


def _packed(field: str) -> Callable[[list[int]], str]:
    tag = tag_of(_STEP, field)
    return lambda values: _text(
        element(tag, b"".join([varint(_unsigned(each)) for each in values]))
    )


_NAMES: Final[dict[str, Any]] = {
    "ROLES": _ROLES, "SIZES": _SIZES, "STATUSES": _STATUSES, "metrics": _metrics
}  # fmt: skip
_WRITTEN: Final[Mapping[str, str]] = {
    **{column: _written(column, _NAMES) for column in ALIKE},
    "metrics": "{metrics(c['metrics'])}",
    "role": "{ROLES[c['role']]}",
    "status": "{STATUSES[c['status']]}",
}

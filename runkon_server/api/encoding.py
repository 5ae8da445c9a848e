"""Events of the log to bytes: what `events.render_event` would build, without building it.

Of a run's events most tell of a step, and building those as messages was what streams spent their
time on: 19 us an event, of which 2 are the payload's JSON. Here their columns go to bytes directly,
in 6. Whatever is not plain goes the long way; a test holds the two ways to the same outcome.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
from google.protobuf.descriptor import FieldDescriptor

from runkon.v1 import events_pb2, types_pb2
from runkon_server.api.events import ENDED, LIVE, render_event
from runkon_server.api.render.steps import ALIKE, ROLES, STATUSES
from runkon_server.api.render.values import metrics, timestamp
from runkon_server.api.wire import element, tag_of, varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.api.recent import StoredEvent

    Columns: TypeAlias = dict[str, Any]

__all__ = ["encode_event"]

_VARINT: Final = 0
_EVENT: Final = events_pb2.RunEvent
_STEP: Final = types_pb2.Step
_PLAIN: Final = frozenset(
    {"step_started", "step_completed", "step_failed", "step_skipped", "step_timed_out"}
)
_FIELDS_OF_OTHERS: Final = frozenset({"gate_type", "fan_out_total"})
"""Columns of gates and of `foreach`: such steps have parts that are messages of their own."""

_UNLIKE: Final = frozenset(
    {"id", "result_text", "context_out", "structured_output", "step_error", "child_run_id"}
)
"""Columns of which hardly two have the same value; those of the others are encoded once."""
_ALIKE_MAX: Final = 512

_SEQ: Final = tag_of(_EVENT, "seq", _VARINT)
_RUN: Final = tag_of(_EVENT, "run_id")
_TIME: Final = tag_of(_EVENT, "time")
_GENERATION: Final = tag_of(_EVENT, "generation", _VARINT)
_EPOCH: Final = tag_of(_EVENT, "epoch", _VARINT)
_KINDS: Final = {kind: tag_of(_EVENT, kind) for kind in _PLAIN}
_NAMES: Final = {
    kind: tag_of(_EVENT, "kind", _VARINT) + varint(_EVENT.DESCRIPTOR.fields_by_name[kind].number)
    for kind in _PLAIN
}
"""The whole field `kind`: its numbers are those of the payloads."""
_CHANGED: Final = tag_of(events_pb2.StepStarted, "step")
_TRUNCATED: Final = tag_of(events_pb2.StepStarted, "truncated", _VARINT) + b"\x01"
_STEP_RUN: Final = tag_of(_STEP, "run_id")
_STATUS: Final = tag_of(_STEP, "status", _VARINT)
_ROLE: Final = tag_of(_STEP, "role", _VARINT)
_METRICS: Final = tag_of(_STEP, "metrics")
_START: Final = tag_of(_STEP, "start_time")
_END: Final = tag_of(_STEP, "end_time")


def encode_event(event: StoredEvent) -> bytes:
    """The event as callers see it, as the bytes of a `RunEvent`."""
    tag = _KINDS.get(event.kind)
    if tag is not None:
        payload = orjson.loads(event.payload)
        columns = payload.get("step")
        if columns is not None and _FIELDS_OF_OTHERS.isdisjoint(columns):
            return _encode_plain(event, tag, payload, columns)
    return render_event(event).SerializeToString()


def _encode_plain(event: StoredEvent, tag: bytes, payload: Columns, columns: Columns) -> bytes:
    run = event.run_id.encode()
    now = _instant(event.at)
    step = element(_CHANGED, _encode_step(columns, run, now))
    if payload.get("truncated"):
        step += _TRUNCATED
    return b"".join(
        (
            _SEQ,
            varint(event.seq),
            element(_RUN, run),
            element(_TIME, now),
            _GENERATION + varint(event.generation) if event.generation else b"",
            _EPOCH + varint(event.epoch) if event.epoch else b"",
            _NAMES[event.kind],
            element(tag, step),
        )
    )


def _encode_step(columns: Columns, run: bytes, now: bytes) -> bytes:
    parts = [
        _COLUMNS[name](value)
        for name, value in columns.items()
        if value is not None and name in _COLUMNS
    ]
    parts.append(element(_STEP_RUN, run))
    status = columns["status"]
    if "role" not in columns:
        parts.append(_role("actor"))
    began = columns.get("started_at")
    if began is not None:
        parts.append(element(_START, _instant_of(began)))
    elif status in LIVE:
        parts.append(element(_START, now))
    if status in ENDED:
        parts.append(element(_END, now))
    return b"".join(parts)


@lru_cache(maxsize=_ALIKE_MAX)
def _role(role: str) -> bytes:
    return _ROLE + varint(ROLES.get(role, types_pb2.STEP_ROLE_UNSPECIFIED))


@lru_cache(maxsize=_ALIKE_MAX)
def _status(status: str) -> bytes:
    return _STATUS + varint(STATUSES.get(status, types_pb2.STEP_STATUS_UNSPECIFIED))


def _metrics(sums: Any) -> bytes:  # noqa: ANN401 - a value of a payload
    message = metrics(sums)
    return b"" if message is None else element(_METRICS, message.SerializeToString())


@lru_cache(maxsize=256)
def _instant(at: datetime) -> bytes:
    message = timestamp(at)
    assert message is not None
    return message.SerializeToString()


@lru_cache(maxsize=256)
def _instant_of(text: str) -> bytes:
    return _instant(datetime.fromisoformat(text))


def _encoder(column: str) -> Callable[[Any], bytes]:
    """How the values of a column are written, by the type of its field."""
    field = _STEP.DESCRIPTOR.fields_by_name[ALIKE[column]]
    is_told_apart = field.has_presence  # then an empty value is not the same as none
    if field.is_repeated:
        return _texts(field) if field.type == FieldDescriptor.TYPE_STRING else _numbers(field)
    if field.type == FieldDescriptor.TYPE_STRING:
        tag = tag_of(_STEP, field.name)

        def text(value: str) -> bytes:
            return element(tag, value.encode()) if value or is_told_apart else b""

        return text if column in _UNLIKE else lru_cache(maxsize=_ALIKE_MAX)(text)
    number_tag = tag_of(_STEP, field.name, _VARINT)

    def number(value: int) -> bytes:
        return number_tag + varint(_unsigned(value)) if value or is_told_apart else b""

    return lru_cache(maxsize=_ALIKE_MAX)(number)


def _texts(field: FieldDescriptor) -> Callable[[Any], bytes]:
    tag = tag_of(_STEP, field.name)
    return lambda values: b"".join([element(tag, value.encode()) for value in values])


def _numbers(field: FieldDescriptor) -> Callable[[Any], bytes]:
    tag = tag_of(_STEP, field.name)

    def numbers(values: list[int]) -> bytes:
        return (
            element(tag, b"".join([varint(_unsigned(each)) for each in values])) if values else b""
        )

    return numbers


def _unsigned(number: int) -> int:
    """Numbers below zero are written as if they had 64 bits."""
    return number & 0xFFFFFFFFFFFFFFFF


_COLUMNS: Final[dict[str, Callable[[Any], bytes]]] = {
    **{column: _encoder(column) for column in ALIKE},
    "metrics": _metrics,
    "role": _role,
    "status": _status,
}

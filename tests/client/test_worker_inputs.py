"""Inputs as typed values: every type of field, and every way not to fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from client.workers import lease_of, one_action, reported

from runkon.v1 import workers_pb2
from runkon_client import FinalError, Task
from runkon_client.worker.inputs import read_inputs


class Colour(StrEnum):
    RED = "red"


class Level(Enum):
    LOW = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5


@dataclass
class Everything:
    text: str
    count: int
    ratio: float
    price: Decimal
    is_urgent: bool
    day: date
    at: datetime
    span: timedelta
    colour: Colour
    level: Level
    mode: Literal["fast", "slow"]
    point: Point
    tags: list[str]
    pairs: tuple[int, ...]
    table: dict[str, list[Point]]
    maybe: int | None
    gone: str | None
    either: int | list[int]
    anything: Any
    defaulted: int = 7
    made: list[str] = field(default_factory=lambda: ["x"])


LARGE = 10**400
POINT = f'{{"x": 1, "y": {LARGE}'[:80]
GOOD = {
    "text": " as it is ",
    "count": " 3 ",
    "ratio": "0.25",
    "price": "9.90",
    "is_urgent": "True",
    "day": "2026-11-23",
    "at": "2026-11-23T10:00:00Z",
    "span": "1.5",
    "colour": "red",
    "level": "1",
    "mode": "slow",
    "point": '{"x": 1}',
    "tags": '["a", "b"]',
    "pairs": "[1, 2]",
    "table": '{"a": [{"x": 1, "y": 2}]}',
    "maybe": "",
    "either": "[1]",
    "anything": "{raw",
    "workflow_status": "ignored",
}


def test_every_type_is_read() -> None:
    """What is not a field is left alone; what is optional may be missing."""
    assert read_inputs(GOOD, Everything) == Everything(
        text=" as it is ",
        count=3,
        ratio=0.25,
        price=Decimal("9.90"),
        is_urgent=True,
        day=date(2026, 11, 23),
        at=datetime(2026, 11, 23, 10, tzinfo=UTC),
        span=timedelta(seconds=1.5),
        colour=Colour.RED,
        level=Level.LOW,
        mode="slow",
        point=Point(1),
        tags=["a", "b"],
        pairs=(1, 2),
        table={"a": [Point(1, 2.0)]},
        maybe=None,
        gone=None,
        either=[1],
        anything="{raw",
    )


class Ticket(TypedDict):
    id: int
    title: NotRequired[str]
    labels: NotRequired[list[str]]


def test_a_typed_dict_holds_what_is_there() -> None:
    assert read_inputs({"id": "7", "labels": '["a"]', "other": "x"}, Ticket) == {
        "id": 7,
        "labels": ["a"],
    }


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("count", "3.5", "`count` must be a whole number, not '3.5'"),
        ("ratio", "much", "`ratio` must be a number, not 'much'"),
        ("span", "1e300", "`span` must be a number of seconds, not '1e300'"),
        ("span", "inf", "`span` must be a number of seconds, not 'inf'"),
        ("price", "x", "`price` must be a number, not 'x'"),
        ("is_urgent", "yes", "`is_urgent` must be `true` or `false`, not 'yes'"),
        ("day", "soon", "`day` must be a date such as 2026-11-23, not 'soon'"),
        ("at", "", "`at` must be an instant such as 2026-11-23T10:00:00Z, not ''"),
        ("colour", "blue", "`colour` must be one of red, not 'blue'"),
        ("level", "2", "`level` must be one of 1, not '2'"),
        ("mode", "", "`mode` must be one of fast, slow, not ''"),
        ("point", "{", "`point` must be JSON, not '{'"),
        ("point", "[]", "`point` must be Point, not '[]'"),
        ("point", f'{{"x": 1, "y": {LARGE}}}', f"`point` must be a number, not '{POINT}…'"),
        ("point", '{"y": 1}', "`point` must have `x`, not '{\"y\": 1}'"),
        ("point", '{"x": true}', "`point` must be int, not '{\"x\": true}'"),
        ("tags", '"a"', "`tags` must be list[str], not '\"a\"'"),
        ("tags", "[1]", "`tags` must be str, not '[1]'"),
        ("table", "[" * 100_000, "`table` must be JSON, not '" + "[" * 80 + "…'"),
        ("maybe", "x", "`maybe` must be a whole number, not 'x'"),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: str, complaint: str) -> None:
    with pytest.raises(FinalError) as raised:
        read_inputs({**GOOD, name: value}, Everything)

    assert raised.value.message == f"inputs: {complaint}"
    assert raised.value.code == "INPUT_INVALID"


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(FinalError) as raised:
        read_inputs({"title": "x"}, Point)

    assert raised.value.message == "inputs: `x` is missing"
    with pytest.raises(FinalError) as raised:
        read_inputs({"x": "a", "y": "b"}, Point)
    assert raised.value.message.count("must be") == 2


def test_only_dataclasses_and_typed_dicts_are_read() -> None:
    with pytest.raises(TypeError, match="neither"):
        read_inputs({}, int)


async def test_a_task_gives_its_inputs_typed() -> None:
    """Inputs that do not fit fail the attempt for good."""

    def act(task: Task) -> str:
        return str(task.inputs_as(Point).x + 1)

    def lease(**inputs: str) -> workers_pb2.TaskLease:
        return lease_of(workers_pb2.TASK_KIND_ACTION, "act", inputs=inputs)

    good = await reported(one_action(act), lease(x="1"))
    bad = await reported(one_action(act), lease(x="one"))

    assert good.result.result_text == "2"
    assert (bad.failure.code, bad.failure.retryable) == ("INPUT_INVALID", False)

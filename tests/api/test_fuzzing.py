"""Random requests: the first few hundred find no bug, and the rig sees what it is there to see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import text_format

from fuzz._api_calls import Outcome, complaints
from fuzz._api_requests import METHODS, Call, make_call
from fuzz._api_shrinking import shown, shrink
from fuzz._api_world import World
from fuzz.api import OK_MIN, fuzz
from runkon.v1 import runs_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from support.live_api import LiveApi

COUNT: Final = 300
LIST_RUNS: Final = next(method for method in METHODS if method.name == "ListRuns")


async def test_the_first_requests_find_no_bug(api: LiveApi) -> None:
    """As `dev.py fuzz api` makes them; times are left to it, because other tests disturb them."""
    found = await fuzz(api, 3, range(COUNT))

    failures = {
        complaint: f"request {index}\n{shown(call)}"
        for complaint, (index, call) in found.failures.items()
        if "longer than" not in complaint and "DEADLINE_EXCEEDED" not in complaint
    }
    assert (failures, found.logged, found.in_sql, found.aftermath) == ({}, [], [], "")
    assert found.codes.total() == COUNT
    assert found.succeeded >= OK_MIN


def test_a_request_has_a_number() -> None:
    """The same every time, and another one for other seeds and numbers; all methods are called."""
    calls = [make_call(7, index, World()) for index in range(400)]
    is_repeated = calls == [make_call(7, index, World()) for index in range(400)]
    different = len({shown(call) for call in calls})

    assert is_repeated
    assert different > 350
    assert {call.method.full_name for call in calls} == {method.full_name for method in METHODS}


def test_what_the_server_holds_does_not_change_what_is_drawn_next() -> None:
    """Ids are others, and everything besides them is the same."""
    empty, full = World(), World()
    for number in range(9):
        full.runs.add(f"run-{number}")

    for index in range(300):
        one, other = make_call(7, index, empty), make_call(7, index, full)
        assert one.method is other.method
        assert len(shown(one).splitlines()) == len(shown(other).splitlines()), index


class Failed(Exception):
    """An error as a call raises it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        return ()


def told(code: grpc.StatusCode, took_s: float = 0.1) -> list[str]:
    """What is wrong with an error that carries nothing."""
    call = Call(LIST_RUNS, (runs_pb2.ListRunsRequest(filter="\f"),))
    return list(complaints(call, Outcome(code, Failed(code, "no"), [], took_s)))


def test_answers_that_are_bugs_are_noticed() -> None:
    assert told(grpc.StatusCode.INTERNAL) == ["ListRuns ends with INTERNAL"]
    assert told(grpc.StatusCode.UNKNOWN) == ["ListRuns ends with UNKNOWN"]
    assert told(grpc.StatusCode.NOT_FOUND) == ["ListRuns ends with NOT_FOUND without details"]
    assert told(grpc.StatusCode.INTERNAL, 5.1)[0] == "ListRuns takes longer than 5 s"


def test_a_failing_request_is_made_smaller_and_can_be_pasted() -> None:
    """Until only what fails is left of it."""
    request = runs_pb2.ListRunsRequest(page_size=3, filter="key = \f AND (x", order_by="no")
    call = Call(LIST_RUNS, (request,), (("runkon-principal", "zoe"),))

    async def fails(candidate: Call) -> bool:
        message: Any = candidate.messages[0]
        return "\f" in message.filter

    small = asyncio.run(shrink(call, fails))
    read: Message = text_format.Parse(
        shown(small).partition("{")[2].rpartition("}")[0], runs_pb2.ListRunsRequest()
    )

    assert small == Call(LIST_RUNS, (runs_pb2.ListRunsRequest(filter="\f"),))
    assert read == small.messages[0]

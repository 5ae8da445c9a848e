"""`runkon events` of all runs and `runkon gates watch`, against a server that answers as told."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from click.testing import CliRunner

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, types_pb2
from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, Refusal, serving
from support.run_events import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result
    from google.protobuf.message import Message

FOREIGN: Final = Refusal(
    grpc.StatusCode.OUT_OF_RANGE, "CURSOR_FOREIGN", "the cursor is of another cluster"
)
STREAMS: Final = {"StreamNamespaceEvents", "StreamGates"}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


def invoke(server: FakeServer, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--address", server.address])


def finished(seq: int) -> runs_pb2.NamespaceEvent:
    ending = events_pb2.RunFinished(status=types_pb2.RUN_STATUS_COMPLETED)
    return runs_pb2.NamespaceEvent(
        event=events_pb2.RunEvent(seq=seq, run_id=RUN_ID, run_finished=ending),
        workflow_name="nightly",
        cursor=f"c{seq}",
    )


def feed(*seqs: int) -> list[Message]:
    """A stream that brings these events and then has seen everything."""
    frame = runs_pb2.StreamNamespaceEventsResponse
    batch = runs_pb2.NamespaceEventBatch(
        events=[finished(seq) for seq in seqs], cursor=f"c{seqs[-1]}"
    )
    return [
        frame(header=runs_pb2.NamespaceHeader(cursor="c0")),
        frame(events=batch),
        frame(heartbeat=runs_pb2.NamespaceHeartbeat(cursor=batch.cursor)),
    ]


def test_the_events_of_all_runs_end_with_what_there_is(server: FakeServer) -> None:
    """Filters are handed on; each line names the workflow and the run."""
    server.answers["StreamNamespaceEvents"] = feed(7, 9)
    answer = invoke(
        server, "events", "--workflow", "nightly", "--label", "team=core", "--kind", "run_finished",
        "--since", "c0",
    )  # fmt: skip
    asked = server.asked("StreamNamespaceEvents")

    assert answer.exit_code == Exit.OK, answer.output
    assert [line.split()[1] for line in answer.stdout.splitlines()] == ["7", "9"]
    assert all(f"(nightly {RUN_ID})" in line for line in answer.stdout.splitlines())
    assert (asked.workflow_name, dict(asked.labels)) == ("nightly", {"team": "core"})
    assert (list(asked.kinds), asked.cursor) == ([events_pb2.EVENT_KIND_RUN_FINISHED], "c0")


def test_following_goes_on_where_a_stream_broke_off(server: FakeServer) -> None:
    """A clean close is none: the next stream begins at the last cursor; only a refusal ends it."""

    def answer_to(asked: Any) -> Any:
        return {"": feed(1, 2), "c2": feed(3)}.get(asked.cursor, FOREIGN)

    server.answers["StreamNamespaceEvents"] = answer_to
    answer = invoke(server, "events", "--follow", "--json")

    assert answer.exit_code == Exit.REFUSED
    assert "CURSOR_FOREIGN" in answer.stderr
    assert [json.loads(line)["cursor"] for line in answer.stdout.splitlines()] == ["c1", "c2", "c3"]
    assert [asked.cursor for name, asked in server.requests if name in STREAMS] == ["", "c2", "c3"]


def test_a_run_is_followed_to_its_end(server: FakeServer) -> None:
    """With `--follow` by a stream, which says itself when the run has ended."""
    frame = runs_pb2.StreamRunEventsResponse
    status = types_pb2.RUN_STATUS_COMPLETED
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=types_pb2.Run(id=RUN_ID))
    server.answers["StreamRunEvents"] = [
        frame(header=runs_pb2.StreamHeader(oldest_seq=1, head_seq=3, after_seq=2)),
        frame(events=runs_pb2.EventBatch(events=[finished(3).event], examined_seq=3)),
        frame(end=runs_pb2.StreamEnd(head_seq=3, epoch=1, status=status)),
    ]
    answer = invoke(server, "events", RUN_ID, "--follow", "--since", "2", "--json")

    assert answer.exit_code == Exit.OK, answer.output
    assert [json.loads(line)["seq"] for line in answer.stdout.splitlines()] == [3]
    assert server.asked("StreamRunEvents").after_seq == 2


def test_what_people_need_not_be_told_is_listed_by_its_kind(server: FakeServer) -> None:
    """The log of a run is whole: a gate's step is named there, beside the gate's own event."""
    step = types_pb2.Step(step_name="agree", role=types_pb2.STEP_ROLE_GATE)
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=types_pb2.Run(id=RUN_ID))
    server.answers["ListRunEvents"] = runs_pb2.ListRunEventsResponse(
        events=[
            events_pb2.RunEvent(seq=1, step_completed=events_pb2.StepCompleted(step=step)),
            events_pb2.RunEvent(seq=2, run_unblocked=events_pb2.RunUnblocked()),
        ],
        examined_seq=2,
        head_seq=2,
    )
    lines = invoke(server, "events", RUN_ID).stdout.splitlines()

    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "step completed: agree",
        "run unblocked",
    ]


def test_gates_are_watched_from_those_that_wait(server: FakeServer) -> None:
    """First the whole list, then what comes of each; filters are handed on."""
    frame = gates_pb2.StreamGatesResponse
    gate = gates_pb2.Gate(
        id="g-1", run_id=RUN_ID, name="review", prompt="Ship it?", approvers=1,
        state=gates_pb2.GATE_STATE_PENDING, display_name="A workflow",
    )  # fmt: skip
    approved = gates_pb2.Gate()
    approved.CopyFrom(gate)
    approved.state, approved.resolved_by = gates_pb2.GATE_STATE_APPROVED, "bob"
    frames: list[Message] = [
        frame(header=gates_pb2.GatesHeader(cursor="c1")),
        frame(pending=gates_pb2.PendingGates(gates=[gate], last=True)),
        frame(changed=gates_pb2.ChangedGates(gates=[approved], cursor="c2")),
    ]

    def answer_to(asked: Any) -> Refusal | list[Message]:
        return FOREIGN if asked.cursor else frames

    server.answers["StreamGates"] = answer_to
    answer = invoke(server, "gates", "watch", "--workflow", "nightly", "--label", "team=core")
    first, last = answer.stdout.splitlines()
    asked = next(asked for name, asked in server.requests if name in STREAMS)

    assert answer.exit_code == Exit.REFUSED
    assert ("pending" in first, "g-1" in first, "Ship it?" in first) == (True, True, True)
    assert ("approved by bob" in last, "g-1" in last) == (True, True)
    assert (asked.workflow_name, dict(asked.labels)) == ("nightly", {"team": "core"})
    assert [each.cursor for name, each in server.requests if name in STREAMS] == ["", "c2"]


@pytest.mark.parametrize("words", [("events",), ("events", RUN_ID, "--follow"), ("gates", "watch")])
def test_a_stream_is_not_waited_for_where_no_server_answers(words: tuple[str, ...]) -> None:
    """A stream of the client would try again for ever, in silence."""
    with socket.socket() as nobody:  # bound, so that no other test gets the port, and deaf
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        result = CliRunner().invoke(main, [*words, "--address", address])

    assert result.exit_code == Exit.UNAVAILABLE
    assert f"no server answers at {address}" in result.stderr


@pytest.mark.parametrize("command", ["list", "count"])
def test_a_filter_that_is_refused_is_shown_with_the_place(server: FakeServer, command: str) -> None:
    refused = Refusal(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FILTER_INVALID",
        "filter:10: `status` is one of …, not 'wating'",
        violations=(("filter:10", "`status` is one of …, not 'wating'"),),
    )
    server.answers |= {"ListRuns": refused, "CountRuns": refused}

    answer = invoke(server, "runs", command, "--filter", "status = wating")

    assert answer.exit_code == Exit.REFUSED
    assert answer.stderr.splitlines() == [
        "error: filter:10: `status` is one of …, not 'wating' [FILTER_INVALID]",
        "    status = wating",
        "             ^",
    ]


def test_a_run_that_is_not_there_is_said_with_where_to_look(server: FakeServer) -> None:
    refused = Refusal(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", "no run 'x' in this namespace")
    server.answers |= {"ExplainRun": refused, "GetRun": refused}

    answer = invoke(server, "explain", RUN_ID)

    assert answer.exit_code == Exit.REFUSED
    assert "hint: `runkon runs list" in answer.stderr

"""Commands against a server that answers what the test says: requests, output, exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, types_pb2, workers_pb2, workflows_pb2
from runkon_client.cli import main, session
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, Refusal, serving
from support.run_events import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN: Final = types_pb2.Run(
    id=RUN_ID,
    namespace="default",
    workflow_name="w",
    workflow_version=3,
    display_name="A workflow",
    status=types_pb2.RUN_STATUS_RUNNING,
    started_by="ada",
    inputs={"name": "Ada"},
    create_time=Timestamp(seconds=1_767_322_000),
    start_time=Timestamp(seconds=1_767_322_001),
)
GATE: Final = gates_pb2.Gate(
    id="g-1",
    run_id=RUN_ID,
    name="code-review",
    state=gates_pb2.GATE_STATE_PENDING,
    approvers=1,
    prompt="Ship it?",
    options=[types_pb2.GateOption(key="merge", label="Merge it")],
    display_name="A workflow",
)
DIAGNOSTIC: Final = types_pb2.Diagnostic(
    code="WF201",
    severity=types_pb2.SEVERITY_ERROR,
    message="expected `{`",
    hint="open the block",
    line=1,
    column=10,
    excerpt="    1 | workflow w\n      |          ^",
)
NOT_FOUND: Final = Refusal(
    grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", f"no run {RUN_ID}", run_id=RUN_ID
)
BAD_SOURCE: Final = Refusal(
    grpc.StatusCode.INVALID_ARGUMENT,
    "DSL_SYNTAX",
    "the workflow is refused",
    violations=(("source:1:10", "expected `{`"),),
)


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


def invoke(server: FakeServer, *words: str, text: str | None = None) -> Answer:
    """Run a command against the server, as ada."""
    common = ["--address", server.address, "--principal", "ada"]
    result = CliRunner().invoke(main, [*words, *common], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def started(request: Any) -> runs_pb2.StartRunResponse:
    """The run, started now."""
    del request
    return runs_pb2.StartRunResponse(run=RUN, started=True)


def ended(status: types_pb2.RunStatus.ValueType) -> types_pb2.Run:
    """The run with that status."""
    run = types_pb2.Run()
    run.CopyFrom(RUN)
    run.status = status
    run.end_time.seconds = RUN.start_time.seconds + 2
    return run


def play(server: FakeServer, status: types_pb2.RunStatus.ValueType) -> None:
    """Let the server tell a run with one step that ends so."""
    step = types_pb2.Step(
        id="s",
        run_id=RUN_ID,
        step_name="greet",
        path="body.0",
        status=types_pb2.STEP_STATUS_COMPLETED,
        markers=["warm"],
    )
    payloads: list[dict[str, Any]] = [
        {"run_started": events_pb2.RunStarted(display_name="A workflow", started_by="ada")},
        {"step_completed": events_pb2.StepCompleted(step=step)},
        {"run_finished": events_pb2.RunFinished(status=status, error="")},
    ]
    events = [
        events_pb2.RunEvent(seq=seq, run_id=RUN_ID, epoch=1, time=RUN.start_time, **payload)
        for seq, payload in enumerate(payloads, 1)
    ]
    server.answers["StartRun"] = started
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=ended(status))
    server.answers["StreamRunEvents"] = [
        runs_pb2.StreamRunEventsResponse(header=runs_pb2.StreamHeader(head_seq=3)),
        runs_pb2.StreamRunEventsResponse(events=runs_pb2.EventBatch(events=events, examined_seq=3)),
        runs_pb2.StreamRunEventsResponse(
            end=runs_pb2.StreamEnd(head_seq=3, epoch=1, status=status)
        ),
    ]


def test_run_sends_everything_it_was_given_and_prints_the_id(server: FakeServer) -> None:
    """The id alone on standard output; how to watch it on standard error."""
    server.answers["StartRun"] = started
    words = "run w@3 -i name=Ada -i x= --label team=core --key k --on-conflict use-existing"
    answer = invoke(server, *words.split(), "--dry-run", "--keep-going", "--priority", "-7")
    request = server.asked("StartRun")

    assert answer[:2] == (Exit.OK, f"{RUN_ID}\n")
    assert f"runkon runs watch {RUN_ID} --address {server.address}" in answer.err
    assert (request.workflow, request.key, request.dry_run) == ("w@3", "k", True)
    assert dict(request.inputs) == {"name": "Ada", "x": ""}
    assert dict(request.labels) == {"team": "core"}
    assert request.conflict_policy == runs_pb2.CONFLICT_POLICY_USE_EXISTING
    assert (request.config.fail_fast, request.priority) == (False, -7)
    assert request.request_id
    assert server.principals == ["ada"]


def test_run_takes_a_source_from_standard_input(server: FakeServer) -> None:
    """`-` is a file like any other; nothing is stored."""
    server.answers["StartRun"] = started
    answer = invoke(server, "run", "-", "--json", text="workflow w { call a }")

    assert server.asked("StartRun").source == "workflow w { call a }"
    assert json.loads(answer.out)["id"] == RUN_ID


def test_a_refused_source_is_shown_with_its_line(server: FakeServer, tmp_path: Path) -> None:
    """File, line, column, the line with a caret, advice; exit code 4."""
    file = tmp_path / "broken.wf"
    file.write_text("workflow w\n")
    server.answers["StartRun"] = BAD_SOURCE
    server.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(
        valid=False, diagnostics=[DIAGNOSTIC]
    )
    answer = invoke(server, "run", str(file))

    assert answer.code == Exit.REFUSED
    assert answer.err.splitlines() == [
        f"{file}:1:10: error WF201: expected `{{`",
        "    1 | workflow w",
        "      |          ^",
        "hint: open the block",
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (types_pb2.RUN_STATUS_COMPLETED, Exit.OK),
        (types_pb2.RUN_STATUS_FAILED, Exit.FAILED),
        (types_pb2.RUN_STATUS_CANCELLED, Exit.RUN_CANCELLED),
    ],
)
def test_watching_prints_lines_and_ends_with_the_runs_own_code(
    server: FakeServer, status: types_pb2.RunStatus.ValueType, code: Exit
) -> None:
    """The output is no terminal, so lines are printed without being asked for."""
    play(server, status)
    answer = invoke(server, "run", "w", "--watch")
    told = [line[10:] for line in answer.out.splitlines()]
    name = types_pb2.RunStatus.Name(status).removeprefix("RUN_STATUS_").lower()

    assert answer.code == code
    assert told == [
        f"run {RUN_ID} of A workflow started by ada",
        "greet completed [warm]",
        f"run {name}",
    ]


def test_watching_as_json_prints_a_line_for_each_event(server: FakeServer) -> None:
    """Each a document of its own, with its sequence."""
    play(server, types_pb2.RUN_STATUS_COMPLETED)
    answer = invoke(server, "runs", "watch", RUN_ID, "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]

    assert answer.code == Exit.OK
    assert [event["kind"] for event in events] == ["run_started", "step_completed", "run_finished"]
    assert [event["seq"] for event in events] == [1, 2, 3]


def test_waiting_is_silent_until_the_end(server: FakeServer) -> None:
    """One line, and the run's own exit code."""
    server.answers["StartRun"] = started
    server.answers["AwaitRun"] = runs_pb2.AwaitRunResponse(
        run=ended(types_pb2.RUN_STATUS_FAILED), done=True
    )
    answer = invoke(server, "run", "w", "--wait")

    assert answer[:2] == (Exit.FAILED, f"{RUN_ID} failed\n")


def test_runs_are_listed_in_columns(server: FakeServer) -> None:
    """No more than asked for."""
    server.answers["ListRuns"] = runs_pb2.ListRunsResponse(runs=[RUN, RUN, RUN])
    answer = invoke(server, "runs", "list", "--limit", "2")
    header, *rows = answer.out.splitlines()

    assert header.split() == ["RUN", "WORKFLOW", "STATUS", "STARTED", "TOOK", "AT"]
    assert len(rows) == 2
    assert rows[0].split()[:3] == [RUN_ID, "w", "running"]


def test_a_run_is_dismissed_and_shown_again(server: FakeServer) -> None:
    gone = types_pb2.Run(id=RUN_ID, dismissed=True)
    server.answers["DismissRun"] = runs_pb2.DismissRunResponse(run=gone)
    assert invoke(server, "runs", "dismiss", RUN_ID).out == f"{RUN_ID} dismissed\n"

    server.answers["DismissRun"] = runs_pb2.DismissRunResponse(run=types_pb2.Run(id=RUN_ID))
    assert invoke(server, "runs", "dismiss", RUN_ID, "--undo").out == f"{RUN_ID} shown\n"
    assert [request.undo for _, request in server.requests] == [False, True]


def test_a_run_is_deleted_once_that_is_confirmed(server: FakeServer) -> None:
    """Without `--yes` and without anybody to ask nothing is sent."""
    server.answers["DeleteRun"] = runs_pb2.DeleteRunResponse(deleted=3)
    refused = invoke(server, "runs", "delete", RUN_ID)

    assert refused.code != Exit.OK
    assert all(name != "DeleteRun" for name, _ in server.requests)
    assert invoke(server, "runs", "delete", RUN_ID, "--yes").out == (
        f"{RUN_ID} deleted, 3 runs in all\n"
    )
    assert json.loads(invoke(server, "runs", "delete", RUN_ID, "--yes", "--json").out) == {
        "run_id": RUN_ID,
        "deleted": 3,
    }


def test_connected_workers_are_listed_with_what_they_serve(server: FakeServer) -> None:
    """One that polls tells no number of tasks; without any, standard error says so."""
    server.answers["ListWorkers"] = workers_pb2.ListWorkersResponse()
    assert invoke(server, "workers") == (
        Exit.OK,
        "",
        "no workers are connected; `runkon worker MODULE` starts one\n",
    )
    streams = workers_pb2.ConnectedWorker(
        worker_id="w",
        actions=["build", "*"],
        gate_types=["deploy"],
        scripts=True,
        concurrency=4,
        queues=["default", "gpu"],
    )
    polls = workers_pb2.ConnectedWorker(worker_id="v", item_providers=["tickets"], polls=True)
    server.answers["ListWorkers"] = workers_pb2.ListWorkersResponse(workers=[streams, polls])
    header, *rows = invoke(server, "workers").out.splitlines()

    assert header.split("  ")[0] == "WORKER"
    assert [row.split()[:2] for row in rows] == [["w", "4"], ["v", "polls"]]
    assert rows[0].endswith("default, gpu  build, *, gate deploy, scripts")
    assert rows[1].endswith("items tickets")


def test_an_empty_list_says_so_on_standard_error(server: FakeServer) -> None:
    """Standard output stays empty for whoever reads it by program."""
    server.answers["ListGates"] = gates_pb2.ListGatesResponse()
    answer = invoke(server, "gates", "list")

    assert answer == (Exit.OK, "", "no gate waits for an answer\n")
    assert server.asked("ListGates").state == gates_pb2.GATE_STATE_PENDING


def test_a_run_is_shown_with_its_steps_and_its_gate(server: FakeServer) -> None:
    """As a tree, with the command that answers the gate."""
    step = types_pb2.Step(
        id="s", run_id=RUN_ID, step_name="greet", status=types_pb2.STEP_STATUS_COMPLETED
    )
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=RUN)
    server.answers["ListSteps"] = runs_pb2.ListStepsResponse(steps=[step])
    server.answers["ListGates"] = gates_pb2.ListGatesResponse(gates=[GATE])
    answer = invoke(server, "runs", "show", RUN_ID)

    assert answer.code == Exit.OK
    assert "input     name=Ada" in answer.out
    assert "✔ greet" in answer.out
    assert "Gate code-review: Ship it?" in answer.out
    assert "runkon gates approve g-1 --select merge" in answer.out


def test_a_run_may_be_named_by_its_key(server: FakeServer) -> None:
    """What has not the form of an id is a key."""
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=RUN)
    server.answers["CancelRun"] = runs_pb2.CancelRunResponse(
        run=ended(types_pb2.RUN_STATUS_CANCELLING)
    )
    answer = invoke(server, "runs", "cancel", "order-1", "--reason", "late", "--force")
    request = server.asked("CancelRun")

    assert answer.out == f"{RUN_ID} cancelling\n"
    assert server.asked("GetRun").key == "order-1"
    assert (request.run_id, request.reason, request.force) == (RUN_ID, "late", True)


def resolved(state: gates_pb2.GateState.ValueType) -> gates_pb2.ResolveGateResponse:
    """The gate with that state."""
    gate = gates_pb2.Gate()
    gate.CopyFrom(GATE)
    gate.state = state
    return gates_pb2.ResolveGateResponse(gate=gate)


def test_a_gate_is_approved_by_its_id(server: FakeServer) -> None:
    """With feedback, selections and whom one acts for."""
    server.answers["ResolveGate"] = resolved(gates_pb2.GATE_STATE_APPROVED)
    words = ["gates", "approve", "g-1", "--select", "merge", "--feedback", "fine"]
    answer = invoke(server, *words, "--on-behalf-of", "bob")
    request = server.asked("ResolveGate")

    assert answer[:2] == (Exit.OK, "code-review approved\n")
    assert (request.gate_id, request.feedback) == ("g-1", "fine")
    assert list(request.selections) == ["merge"]
    assert request.decision == gates_pb2.GATE_DECISION_APPROVE
    assert request.on_behalf_of == "bob"


def test_a_gate_is_rejected_by_its_run_and_name(server: FakeServer) -> None:
    """The run by its key."""
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=RUN)
    server.answers["ResolveGate"] = resolved(gates_pb2.GATE_STATE_REJECTED)
    answer = invoke(server, "gates", "reject", "order-1", "code-review")
    target = server.asked("ResolveGate").run_gate

    assert answer.out == "code-review rejected\n"
    assert (target.run_id, target.gate_name) == (RUN_ID, "code-review")


def test_the_only_gate_of_a_run_needs_no_name(server: FakeServer) -> None:
    """With several, the message names them; with none, it says so."""
    server.answers["ResolveGate"] = resolved(gates_pb2.GATE_STATE_APPROVED)
    server.answers["ListGates"] = gates_pb2.ListGatesResponse(gates=[GATE])
    one = invoke(server, "gates", "approve", RUN_ID)
    server.answers["ListGates"] = gates_pb2.ListGatesResponse(gates=[GATE, GATE])
    two = invoke(server, "gates", "approve", RUN_ID)
    server.answers["ListGates"] = gates_pb2.ListGatesResponse()
    none = invoke(server, "gates", "approve", RUN_ID)

    assert one.code == Exit.OK
    assert (two.code, none.code) == (Exit.USAGE, Exit.USAGE)
    assert "say which: code-review, code-review" in two.err
    assert "waits at no gate" in none.err


def test_an_empty_name_of_a_gate_is_wrong_usage(server: FakeServer) -> None:
    """As `"$GATE"` of a variable that was never set."""
    outcome = invoke(server, "gates", "approve", "")

    assert outcome.code == Exit.USAGE
    assert "GATE is empty" in outcome.err
    assert not server.requests


def test_a_gate_that_needs_more_votes_says_how_many(server: FakeServer) -> None:
    """It stays pending."""
    gate = gates_pb2.Gate()
    gate.CopyFrom(GATE)
    gate.approvers = 2
    gate.votes.add(principal="ada", decision=gates_pb2.GATE_DECISION_APPROVE)
    server.answers["ResolveGate"] = gates_pb2.ResolveGateResponse(gate=gate)

    assert invoke(server, "gates", "approve", "g-1").out == "code-review: 1 of 2 approvals\n"


def test_storing_says_which_version_and_goes_on_after_a_refusal(
    server: FakeServer, tmp_path: Path
) -> None:
    """The exit code tells that one of them was refused."""
    good, bad = tmp_path / "good.wf", tmp_path / "bad.wf"
    good.write_text("workflow w { call a }")
    bad.write_text("workflow w")
    stored = workflows_pb2.PutWorkflowResponse(
        workflow=workflows_pb2.Workflow(name="w", version=4), created=True
    )
    server.answers["PutWorkflow"] = lambda request: (
        stored if "call" in request.source else BAD_SOURCE
    )
    server.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(
        diagnostics=[DIAGNOSTIC]
    )
    answer = invoke(server, "workflows", "put", str(bad), str(good))

    assert answer[:2] == (Exit.FAILED, "w@4 stored\n")
    assert f"{bad}:1:10: error WF201" in answer.err


def test_validating_says_ok_or_what_is_wrong(server: FakeServer, tmp_path: Path) -> None:
    """On standard output: it is what was asked for."""
    file = tmp_path / "w.wf"
    file.write_text("workflow w")
    server.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(
        valid=False, diagnostics=[DIAGNOSTIC]
    )
    bad = invoke(server, "workflows", "validate", str(file))
    server.answers["ValidateWorkflow"] = workflows_pb2.ValidateWorkflowResponse(valid=True)
    good = invoke(server, "workflows", "validate", str(file))

    assert bad.code == Exit.FAILED
    assert bad.out.startswith(f"{file}:1:10: error WF201: expected")
    assert good[:2] == (Exit.OK, f"{file}: ok\n")


def test_a_stored_workflow_is_printed_as_it_was_written(server: FakeServer) -> None:
    """With a line break at the end, once."""
    server.answers["GetWorkflow"] = workflows_pb2.GetWorkflowResponse(
        workflow=workflows_pb2.Workflow(name="w", version=2, source="workflow w { call a }\n")
    )
    answer = invoke(server, "workflows", "show", "w@2")

    assert answer.out == "workflow w { call a }\n"
    assert server.asked("GetWorkflow").version == 2


def test_workflows_are_listed_with_their_inputs(server: FakeServer) -> None:
    """Those that may be left out in brackets."""
    inputs = [
        workflows_pb2.WorkflowInput(name="ticket", required=True),
        workflows_pb2.WorkflowInput(name="dry", type=workflows_pb2.INPUT_TYPE_BOOLEAN),
    ]
    server.answers["ListWorkflows"] = workflows_pb2.ListWorkflowsResponse(
        workflows=[workflows_pb2.Workflow(name="w", version=2, title="Title", inputs=inputs)]
    )

    assert "ticket=… [dry=true|false]" in invoke(server, "workflows", "list").out


def test_what_the_server_refuses_exits_with_4(server: FakeServer) -> None:
    """The message and its stable reason on standard error."""
    server.answers["GetRun"] = NOT_FOUND
    answer = invoke(server, "runs", "show", RUN_ID)

    again = f"runkon runs list --address {server.address} --principal ada"
    assert (answer.code, answer.out) == (Exit.REFUSED, "")
    assert answer.err.splitlines() == [
        f"error: no run {RUN_ID} [RUN_NOT_FOUND]",
        f"hint: `{again}` lists the newest ones",
    ]


def test_as_json_an_error_is_a_document_too(server: FakeServer) -> None:
    """On standard error, with everything that the server said."""
    server.answers["GetRun"] = NOT_FOUND
    answer = invoke(server, "runs", "show", RUN_ID, "--json")
    error = json.loads(answer.err)["error"]

    assert (answer.code, answer.out) == (Exit.REFUSED, "")
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "RUN_NOT_FOUND")
    assert error["metadata"] == {"run_id": RUN_ID}


def test_without_a_server_a_command_exits_with_5(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says where it looked and how to start one."""
    monkeypatch.setattr(session, "_RETRY_WINDOW_S", 0.0)
    nowhere = FakeServer()
    nowhere.address = "127.0.0.1:1"
    answer = invoke(nowhere, "runs", "list")

    assert (answer.code, answer.out) == (Exit.UNAVAILABLE, "")
    assert "no server answers at 127.0.0.1:1" in answer.err
    assert "`runkon-server dev` starts one" in answer.err
    assert server.requests == []


def test_the_events_of_a_run_are_printed_page_by_page(server: FakeServer) -> None:
    """Two pages; as lines for people, and as one document per line."""
    first = events_pb2.RunEvent(seq=1, run_id=RUN_ID, step_started=events_pb2.StepStarted())
    last = events_pb2.RunEvent(
        seq=3,
        run_id=RUN_ID,
        run_finished=events_pb2.RunFinished(status=types_pb2.RUN_STATUS_COMPLETED),
    )
    first_page = runs_pb2.ListRunEventsResponse(events=[first], examined_seq=2, head_seq=3)
    last_page = runs_pb2.ListRunEventsResponse(events=[last], examined_seq=3, head_seq=3)
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=RUN)
    server.answers["ListRunEvents"] = lambda asked: last_page if asked.after_seq else first_page

    shown = invoke(server, "events", RUN_ID, "--since", "0")
    documents = invoke(server, "events", RUN_ID, "--json", "--kind", "run_finished")

    assert shown.code == documents.code == 0
    assert len(shown.out.splitlines()) == 2
    assert [json.loads(line)["seq"] for line in documents.out.splitlines()] == [1, 3]


@pytest.mark.parametrize(
    "words", [("events", RUN_ID, "--since", "x"), ("events", RUN_ID, "--workflow", "w")]
)
def test_what_events_cannot_mean_is_refused(server: FakeServer, words: tuple[str, ...]) -> None:
    assert invoke(server, *words).code == Exit.USAGE

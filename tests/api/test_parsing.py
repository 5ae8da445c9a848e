"""Validators: every request has one, every text is looked at, every limit of the contract holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from runkon.v1 import admin_pb2, events_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2
from runkon_server.api.parsing import checks
from runkon_server.api.parsing.runs import kinds_of, parse_workflow_name
from runkon_server.api.parsing.table import VALIDATORS, validate
from runkon_server.api.parsing.workers import check_heartbeat, check_hello, check_report
from runkon_server.errors import InvalidArgumentError
from support.rows import ulid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

RUN = ulid(1)
GATE = f"{RUN}/b.0001/e1/0"
TASK = workers_pb2.TaskReport(
    task_id=f"{GATE}#0", token="t", failure=workers_pb2.TaskFailure(message="no")
)


def made(kind: Callable[..., Any], **fields: Any) -> Any:
    """A message; also of values that the type stubs would refuse, as a newer client's."""
    return kind(**fields)


def reported(**seen: Any) -> Any:
    """A report of a pull request of which one field is set otherwise."""
    return made(
        gates_pb2.ReportPullRequestRequest,
        gate_id=GATE,
        pull_request=made(gates_pb2.PullRequest, **{"head_commit": "c0ffee", **seen}),
    )


GOOD: list[Message] = [
    made(
        runs_pb2.StartRunRequest, workflow="w@3", inputs={"a": "b"}, labels={"team": "x"}, key="k"
    ),
    made(runs_pb2.BatchStartRunsRequest, requests=[made(runs_pb2.StartRunRequest, workflow="w")]),
    made(runs_pb2.GetRunRequest, run_id=RUN),
    made(runs_pb2.ListRunsRequest, page_size=2_147_483_647, order_by="create_time"),
    made(runs_pb2.DismissRunRequest, run_id=RUN, undo=True, request_id="r 1"),
    made(runs_pb2.DeleteRunRequest, run_id=RUN, request_id="r 1"),
    made(runs_pb2.ExplainRunRequest, run_id=RUN),
    made(runs_pb2.CountRunsRequest, filter="status = waiting"),
    made(runs_pb2.CancelRunRequest, run_id=RUN, reason="enough", request_id="r 1"),
    made(
        runs_pb2.ResumeRunRequest,
        run_id=RUN,
        mode=events_pb2.RESUME_MODE_FROM_STEP,
        from_step_id=GATE,
    ),
    made(runs_pb2.AwaitRunRequest, run_id=RUN),
    made(runs_pb2.GetStepRequest, step_id=GATE),
    made(runs_pb2.ListFanOutItemsRequest, step_id=GATE, status=3, page_size=9),
    made(runs_pb2.ListStepsRequest, run_id=RUN),
    made(runs_pb2.ListRunEventsRequest, run_id=RUN, after_seq=4, kinds=[10, 33]),
    made(runs_pb2.StreamRunEventsRequest, run_id=RUN, from_now=True, kinds=[15]),
    made(runs_pb2.StreamNamespaceEventsRequest, from_now=True, labels={"a": "b"}, kinds=[15]),
    made(gates_pb2.StreamGatesRequest, cursor="c", labels={"a": "b"}, workflow_name="w"),
    made(gates_pb2.ListGatesRequest, run_id=RUN, state=gates_pb2.GATE_STATE_PENDING),
    made(gates_pb2.GetGateRequest, gate_id=GATE),
    made(
        gates_pb2.ResolveGateRequest,
        gate_id=GATE,
        decision=gates_pb2.GATE_DECISION_APPROVE,
        selections=["a", "b"],
    ),
    made(
        gates_pb2.ReportPullRequestRequest,
        gate_id=GATE,
        pull_request=made(
            gates_pb2.PullRequest,
            head_commit="c0ffee",
            approvals=[made(gates_pb2.PullRequestApproval, reviewer="zoe", commit="c0ffee")],
            checks=[made(gates_pb2.PullRequestCheck, name="lint", state=3)],
        ),
    ),
    made(workflows_pb2.PutWorkflowRequest, source="workflow w {}"),
    made(workflows_pb2.GetWorkflowRequest, name="w"),
    made(workflows_pb2.ListWorkflowsRequest),
    made(workflows_pb2.ValidateWorkflowRequest, source="anything"),
    made(workflows_pb2.FormatWorkflowRequest, source="anything"),
    made(workflows_pb2.GraphWorkflowRequest, workflow="w@2", format=4),
    made(workers_pb2.WorkRequest, credit=1000),
    made(workers_pb2.PollTasksRequest, worker_id="w", actions=["*"]),
    made(workers_pb2.ReportTaskRequest, report=TASK),
    made(
        workers_pb2.HeartbeatTaskRequest,
        heartbeat=made(workers_pb2.TaskHeartbeat, task_id=f"{GATE}#0", token="t"),
    ),
    made(workers_pb2.ListWorkersRequest, namespace="a", page_size=9),
    made(workflows_pb2.DeleteWorkflowRequest, name="w", request_id="r 1"),
    made(admin_pb2.SetActionLimitRequest, action="deploy", concurrency=0, rate_per_second=0.1),
    made(admin_pb2.ListActionLimitsRequest, page_size=9),
    made(admin_pb2.ClearActionLimitRequest, action="deploy", request_id="r 1"),
    made(admin_pb2.ListReplicasRequest, page_size=9),
    made(admin_pb2.GetRetentionRequest, for_all=True),
    made(admin_pb2.SetRetentionRequest, namespace="a", keep_forever=True, request_id="r 1"),
    made(admin_pb2.PurgeRunsRequest, namespace="a", dry_run=True, request_id="r 1"),
]
GOOD_IDS = [type(each).__name__ for each in GOOD]


def violations(request: Message) -> dict[str, str]:
    """What is wrong with a request, by field."""
    try:
        validate(request)
    except InvalidArgumentError as error:
        return {each.field: each.description for each in error.violations}
    return {}


def copy_of(request: Message, **fields: Any) -> Message:
    """The request with some fields set otherwise."""
    changed = type(request)()
    changed.CopyFrom(request)
    changed.MergeFrom(type(request)(**fields))
    return changed


def request_types() -> Iterator[type[Message]]:
    for module in (runs_pb2, gates_pb2, workflows_pb2, workers_pb2, admin_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield GetMessageClass(method.input_type)


def test_every_request_of_every_service_has_a_validator_and_a_sample() -> None:
    assert set(VALIDATORS) == set(request_types()) == {type(each) for each in GOOD}


@pytest.mark.parametrize("request_", GOOD, ids=GOOD_IDS)
def test_a_request_within_its_limits_passes(request_: Message) -> None:
    assert violations(request_) == {}


def text_fields(request: Message) -> Iterator[Any]:
    for field in request.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield field


# A `source` is looked at by the language, which says where in it the character is; an order
# is compared with what is understood.
@pytest.mark.parametrize("request_", GOOD, ids=GOOD_IDS)
def test_no_text_may_hold_a_nul(request_: Message) -> None:
    """Every text of every request, set to one with a NUL, is named in a violation."""
    for field in text_fields(request_):
        if field.name == "source":
            continue
        bad = ["a\x00"] if field.is_repeated else "a\x00"
        assert any(
            each.startswith(field.name)
            for each in violations(copy_of(request_, **{field.name: bad}))
        ), field.name


@pytest.mark.parametrize("field", ["inputs", "labels", "output_schemas", "snippets"])
def test_no_entry_of_a_map_may_hold_a_nul(field: str) -> None:
    base: dict[str, Any] = {"source": "x"}

    assert violations(made(runs_pb2.StartRunRequest, **base, **{field: {"a": "\x00"}}))
    assert violations(made(runs_pb2.StartRunRequest, **base, **{field: {"\x00": "a"}}))


@pytest.mark.parametrize(
    "bad",
    ["", "../x", "x" * 1_000_000, "\n", "\u202e" + RUN, RUN.lower(), RUN + "1", "8" + RUN[1:], "ü"],
    ids=["none", "path", "huge", "newline", "rtl", "lower", "long", "overflow", "letter"],
)
def test_the_id_of_a_run_is_a_ulid(bad: str) -> None:
    for kind in (
        runs_pb2.GetRunRequest,
        runs_pb2.CancelRunRequest,
        runs_pb2.AwaitRunRequest,
        runs_pb2.ListStepsRequest,
        runs_pb2.ListRunEventsRequest,
        runs_pb2.StreamRunEventsRequest,
    ):
        assert list(violations(kind(run_id=bad))) == ["run_id"]


@pytest.mark.parametrize("bad", ["", "../x", RUN + "/" + "x" * 300, RUN + "/\n", GATE + "\u202e"])
def test_the_id_of_a_gate_begins_with_its_run(bad: str) -> None:
    assert list(violations(gates_pb2.GetGateRequest(gate_id=bad))) == ["gate_id"]


def test_all_violations_are_told_at_once() -> None:
    found = violations(
        made(
            runs_pb2.StartRunRequest,
            namespace="No Such",
            request_id="é",
            workflow="w@zero",
            key="a\nb",
            conflict_policy=9,
            priority=101,
            trigger="x" * 257,
            snippets={"a": "b"},
        )
    )

    assert set(found) == {
        "namespace",
        "request_id",
        "workflow",
        "key",
        "conflict_policy",
        "priority",
        "trigger",
        "output_schemas, snippets",
    }


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "workflow"),
        ({"workflow": "x" * 129}, "workflow"),
        ({"workflow": "w@0"}, "workflow"),
        ({"workflow": "w@99999999999999999999"}, "workflow"),
        ({"source": ""}, "source"),
        ({"workflow": "w", "inputs": {"a": "x" * 65_537}}, "inputs.a"),
        ({"workflow": "w", "inputs": {str(n): "x" * 60_000 for n in range(20)}}, "inputs"),
        ({"workflow": "w", "labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"workflow": "w", "labels": {"no spaces": ""}}, "labels (a key)"),
        ({"workflow": "w", "labels": {"a": "x" * 257}}, "labels.a"),
        ({"workflow": "w", "labels": {"queue": "*"}}, "labels.queue"),
        ({"workflow": "w", "priority": -101}, "priority"),
        ({"workflow": "w", "key": "x" * 257}, "key"),
        ({"workflow": "w", "parent_run_id": "x" * 257}, "parent_run_id"),
        ({"workflow": "w", "request_id": "x" * 129}, "request_id"),
        ({"workflow": "w", "start_delay": {"seconds": 90 * 86_400 + 1}}, "start_delay"),
        ({"workflow": "w", "start_delay": {"seconds": -1}}, "start_delay"),
        ({"workflow": "w", "start_delay": {"seconds": 1, "nanos": -1}}, "start_delay"),
        ({"workflow": "w", "start_delay": {"nanos": 1_000_000_000}}, "start_delay"),
        ({"workflow": "w", "start_delay": {"seconds": 2**62}}, "start_delay"),
        ({"source": "x", "snippets": {"a": "x" * 65_537}}, "snippets.a"),
        ({"source": "x", "output_schemas": {"": "x"}}, "output_schemas (a name)"),
    ],
)
def test_start_run_keeps_its_limits(fields: dict[str, Any], wrong: str) -> None:
    assert list(violations(made(runs_pb2.StartRunRequest, **fields))) == [wrong]


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (made(runs_pb2.BatchStartRunsRequest), "requests (their number)"),
        (
            made(runs_pb2.BatchStartRunsRequest, requests=[made(runs_pb2.StartRunRequest)] * 501),
            "requests (their number)",
        ),
        (
            made(
                runs_pb2.BatchStartRunsRequest,
                namespace="a",
                requests=[made(runs_pb2.StartRunRequest, namespace="b")],
            ),
            "requests[0].namespace",
        ),
        (
            made(
                runs_pb2.BatchStartRunsRequest,
                request_id="x" * 121,
                requests=[made(runs_pb2.StartRunRequest)],
            ),
            "request_id",
        ),
        (made(runs_pb2.GetRunRequest, key="x" * 257), "key"),
        (made(runs_pb2.GetRunRequest, key=""), "key"),
        (made(runs_pb2.ListRunsRequest, page_size=-1), "page_size"),
        (made(runs_pb2.ListRunsRequest, order_by="name"), "order_by"),
        (made(runs_pb2.ListRunsRequest, page_token="x" * 3000), "page_token"),
        (made(runs_pb2.ListRunsRequest, view=7), "view"),
        (made(runs_pb2.GetRunRequest, run_id=RUN, at_sequence=-1), "at_sequence"),
        (made(runs_pb2.ListStepsRequest, run_id=RUN, at_sequence=-1), "at_sequence"),
        (made(runs_pb2.DeleteRunRequest, run_id="x"), "run_id"),
        (made(runs_pb2.DismissRunRequest, run_id="x"), "run_id"),
        (made(runs_pb2.ExplainRunRequest, run_id="x"), "run_id"),
        (made(runs_pb2.ListRunsRequest, filter="x" * 4097), "filter"),
        (made(runs_pb2.CountRunsRequest, filter="x" * 4097), "filter"),
        (made(runs_pb2.CancelRunRequest, run_id=RUN, reason="x" * 4097), "reason"),
        (made(runs_pb2.AwaitRunRequest, run_id=RUN, timeout={"seconds": -1}), "timeout"),
        (made(runs_pb2.ResumeRunRequest, run_id=RUN, mode=4), "mode"),
        (made(runs_pb2.ResumeRunRequest, run_id=RUN, mode=2), "from_step_id"),
        (made(runs_pb2.ResumeRunRequest, run_id=RUN, from_step_id=GATE), "from_step_id"),
        (made(runs_pb2.GetStepRequest, step_id="b.0001"), "step_id"),
        (made(runs_pb2.ListFanOutItemsRequest, step_id=GATE, status=6), "status"),
        (made(runs_pb2.ListFanOutItemsRequest, step_id=GATE, page_size=-1), "page_size"),
        (made(runs_pb2.ListRunEventsRequest, run_id=RUN, after_seq=-1), "after_seq"),
        (made(runs_pb2.ListRunEventsRequest, run_id=RUN, kinds=[0]), "kinds[0]"),
        (made(runs_pb2.ListRunEventsRequest, run_id=RUN, kinds=[99]), "kinds[0]"),
        (made(runs_pb2.StreamRunEventsRequest, run_id=RUN, from_start=False), "from_start"),
        (made(runs_pb2.StreamRunEventsRequest, run_id=RUN, after_seq=-1), "after_seq"),
        (
            made(runs_pb2.StreamRunEventsRequest, run_id=RUN, heartbeat_interval={"nanos": 1}),
            "heartbeat_interval",
        ),
        (
            made(runs_pb2.StreamRunEventsRequest, run_id=RUN, heartbeat_interval={"seconds": 61}),
            "heartbeat_interval",
        ),
        (made(runs_pb2.StreamNamespaceEventsRequest, cursor=""), "cursor"),
        (made(runs_pb2.StreamNamespaceEventsRequest, cursor="x" * 257), "cursor"),
        (made(runs_pb2.StreamNamespaceEventsRequest, from_now=False), "from_now"),
        (made(runs_pb2.StreamNamespaceEventsRequest, kinds=[99]), "kinds[0]"),
        (
            made(runs_pb2.StreamNamespaceEventsRequest, heartbeat_interval={"nanos": 1}),
            "heartbeat_interval",
        ),
        (made(gates_pb2.StreamGatesRequest, run_id="x"), "run_id"),
        (made(gates_pb2.StreamGatesRequest, labels={"": "b"}), "labels (a key)"),
        (made(gates_pb2.ListGatesRequest, run_id="x"), "run_id"),
        (made(gates_pb2.ListGatesRequest, page_size=-1), "page_size"),
        (made(gates_pb2.ResolveGateRequest, gate_id=GATE), "decision"),
        (made(gates_pb2.ResolveGateRequest, decision=1), "gate_id"),
        (
            made(gates_pb2.ResolveGateRequest, gate_id=GATE, decision=1, feedback="x" * 65_537),
            "feedback",
        ),
        (
            made(gates_pb2.ResolveGateRequest, gate_id=GATE, decision=2, selections=["a"]),
            "selections",
        ),
        (
            made(gates_pb2.ResolveGateRequest, gate_id=GATE, decision=1, selections=["a", "a"]),
            "selections",
        ),
        (
            made(gates_pb2.ResolveGateRequest, gate_id=GATE, decision=1, selections=[""]),
            "selections[0]",
        ),
        (
            made(gates_pb2.ResolveGateRequest, gate_id=GATE, decision=1, on_behalf_of="x" * 257),
            "on_behalf_of",
        ),
        (
            made(
                gates_pb2.ResolveGateRequest,
                decision=1,
                run_gate=made(gates_pb2.RunGate, run_id=RUN, gate_name=""),
            ),
            "run_gate.gate_name",
        ),
        (
            made(
                gates_pb2.ResolveGateRequest,
                decision=1,
                run_gate=made(gates_pb2.RunGate, gate_name="review"),
            ),
            "run_gate.run_id",
        ),
        (made(gates_pb2.ReportPullRequestRequest, gate_id=GATE), "pull_request"),
        (reported(head_commit=""), "pull_request.head_commit"),
        (reported(author="x" * 129), "pull_request.author"),
        (reported(review_decision=4), "pull_request.review_decision"),
        (
            reported(approvals=[{"reviewer": "zoe", "commit": "a"}] * 1001),
            "pull_request.approvals (their number)",
        ),
        (reported(approvals=[{"reviewer": "zoe"}]), "pull_request.approvals[0].commit"),
        (reported(checks=[{"name": "lint"}]), "pull_request.checks[0].state"),
        (reported(checks=[{"name": "", "state": 1}]), "pull_request.checks[0].name"),
        (reported(url="https://" + "x" * 2048), "pull_request.url"),
        (made(workflows_pb2.PutWorkflowRequest), "source"),
        (made(workflows_pb2.GetWorkflowRequest), "name"),
        (made(workflows_pb2.GetWorkflowRequest, name="w", version=-1), "version"),
        (made(workflows_pb2.ListWorkflowsRequest, page_size=-5), "page_size"),
        (made(workflows_pb2.DeleteWorkflowRequest), "name"),
        (made(admin_pb2.SetActionLimitRequest, concurrency=1), "action"),
        (made(admin_pb2.SetActionLimitRequest, action="a"), "concurrency"),
        (made(admin_pb2.SetActionLimitRequest, action="a", concurrency=-1), "concurrency"),
        (made(admin_pb2.SetActionLimitRequest, action="a", rate_per_second=0), "rate_per_second"),
        (
            made(admin_pb2.SetActionLimitRequest, action="a", rate_per_second=float("nan")),
            "rate_per_second",
        ),
        (made(admin_pb2.ClearActionLimitRequest), "action"),
        (made(admin_pb2.ListReplicasRequest, page_size=-1), "page_size"),
        (made(admin_pb2.GetRetentionRequest, namespace="a", for_all=True), "namespace"),
        (made(admin_pb2.SetRetentionRequest), "policy"),
        (made(admin_pb2.SetRetentionRequest, inherit=False), "inherit"),
        (made(admin_pb2.SetRetentionRequest, keep_for={"seconds": -1}), "keep_for"),
        (made(admin_pb2.PurgeRunsRequest, older_than={"seconds": 2**40}), "older_than"),
        (made(workers_pb2.WorkRequest, credit=-1), "credit"),
        (made(workers_pb2.PollTasksRequest, worker_id="w"), "actions"),
        (
            made(workers_pb2.PollTasksRequest, worker_id="w", gate_types=["a"] * 1001),
            "gate_types (their number)",
        ),
        (
            made(workers_pb2.PollTasksRequest, worker_id="w", item_providers=["a", "b\n"]),
            "item_providers[1]",
        ),
        (made(workers_pb2.PollTasksRequest, worker_id="w", actions=[""]), "actions[0]"),
        (
            made(workers_pb2.PollTasksRequest, worker_id="w", actions=["a"], max_tasks=-1),
            "max_tasks",
        ),
        (made(workers_pb2.ReportTaskRequest), "report"),
        (made(workers_pb2.HeartbeatTaskRequest), "heartbeat"),
    ],
)
def test_requests_keep_their_limits(request_: Message, wrong: str) -> None:
    assert list(violations(request_)) == [wrong]


def test_pieces_of_a_workers_frames_keep_their_limits() -> None:
    """A hello, a report and a heartbeat, each good and bad."""
    hello = made(workers_pb2.WorkerHello, worker_id="w", actions=["a"], concurrency=1)
    check_hello(hello)
    check_hello(made(workers_pb2.WorkerHello, worker_id="w", scripts=True, concurrency=1))
    check_report(TASK)
    answers: list[dict[str, Any]] = [
        {"approved": {}},
        {"rejected": {"reason": "no"}},
        {"pending": {}},
    ]
    for answer in answers:
        check_report(
            made(workers_pb2.TaskReport, task_id=TASK.task_id, token="t", gate_answer=answer)
        )
    check_heartbeat(workers_pb2.TaskHeartbeat(task_id=TASK.task_id, token="t"), 0)

    for bad in (
        made(workers_pb2.WorkerHello, worker_id="w", actions=["a"]),
        made(workers_pb2.WorkerHello, worker_id="x" * 129, actions=["a"], concurrency=1),
        made(workers_pb2.WorkerHello, worker_id="w", actions=["a"] * 1001, concurrency=1),
        made(workers_pb2.WorkerHello, worker_id="w", gate_types=[""], concurrency=1),
        made(workers_pb2.WorkerHello, worker_id="w", concurrency=1),
    ):
        with pytest.raises(InvalidArgumentError):
            check_hello(bad)
    for report in (
        made(workers_pb2.TaskReport, task_id=TASK.task_id, token="t"),
        made(workers_pb2.TaskReport, task_id=TASK.task_id, token="t", failure={"message": ""}),
        made(workers_pb2.TaskReport, task_id="x", token="t", result={}),
        made(workers_pb2.TaskReport, task_id=TASK.task_id, token="t", gate_answer={}),
        made(
            workers_pb2.TaskReport,
            task_id=TASK.task_id,
            token="t",
            gate_answer={"rejected": {"reason": ""}},
        ),
        made(
            workers_pb2.TaskReport,
            task_id=TASK.task_id,
            token="t",
            gate_answer={"pending": {"delay": {"seconds": -1}}},
        ),
    ):
        with pytest.raises(InvalidArgumentError):
            check_report(report)
    with pytest.raises(InvalidArgumentError):
        check_heartbeat(
            made(workers_pb2.TaskHeartbeat, task_id=TASK.task_id, token="t", progress="x" * 4097), 0
        )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("w", ("w", None)),
        ("w@1", ("w", 1)),
        ("w@9223372036854775807", ("w", 2**63 - 1)),
        ("w@9223372036854775808", None),
        ("w@", None),
        ("w@-1", None),
        ("w@٣", None),
        ("w@1@2", None),
    ],
)
def test_a_workflow_is_named_with_or_without_its_version(
    text: str, parsed: tuple[str, int | None] | None
) -> None:
    assert parse_workflow_name(text) == parsed


def test_sizes_are_counted_in_bytes() -> None:
    """Two bytes a letter: half as many letters fit."""
    assert violations(made(runs_pb2.StartRunRequest, workflow="w", trigger="é" * 128)) == {}
    assert violations(made(runs_pb2.StartRunRequest, workflow="w", trigger="é" * 129)) == {
        "trigger": "has 258 bytes; at most 256 are allowed"
    }


def test_pages_have_a_default_and_a_cap() -> None:
    assert [checks.page_rows(size) for size in (0, 1, 500, 501)] == [50, 1, 500, 500]


def test_kinds_of_events_are_named_as_the_log_names_them() -> None:
    assert kinds_of(
        [events_pb2.EVENT_KIND_RUN_STARTED, events_pb2.EVENT_KIND_FAN_OUT_ITEM_COMPLETED]
    ) == {"run_started", "fan_out_item_completed"}

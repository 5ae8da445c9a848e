"""Every field of every request, one at a time, with what nobody expects in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass

from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2
from support.live_api import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from support.live_api import LiveApi

    Change = Callable[[Any], None]

GATED: Final = "workflow gated { gate human_review { } }"
TEXTS: Final = ("\0", "\u202e💥", "x" * 70_000, "*", f"gated@{2**63}")
FILTERS: Final = (
    "(((", "epoch>2147483648", f"depth={2**63 - 1}", "priority<-9223372036854775808",
    "create_time>now-99999w", "create_time<0001-01-01", "root_run_id!=x", "labels.x:*", "key='\0'",
)  # fmt: skip
VALUES: Final = {
    FieldDescriptor.TYPE_INT32: (-1, 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_DOUBLE: (5e-324, float("nan"), float("inf")),
    FieldDescriptor.TYPE_BOOL: (True,),
    FieldDescriptor.TYPE_ENUM: (-1, 99),
    FieldDescriptor.TYPE_STRING: TEXTS,
}
SPANS: Final = (
    Duration(seconds=1, nanos=-1),
    Duration(seconds=-(2**63)),
    Duration(nanos=2**31 - 1),
)
DEPTH: Final = 4
AT_ONCE: Final = 16
OURS: Final = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)


def changes(message: Message, place: str = "") -> Iterator[tuple[str, Change]]:
    """What to do to a message, each with its name."""
    for field in message.DESCRIPTOR.fields:
        name, path = field.name, f"{place}{field.name}"
        if field.message_type is None:
            for value in FILTERS if name == "filter" else VALUES[field.type]:
                yield f"{path}={value!r:.40}", _setting(field, value)
        elif field.message_type.GetOptions().map_entry:
            for text in TEXTS:
                yield f"{path}={text!r:.40}", _mapping(name, text)
        elif field.message_type is Duration.DESCRIPTOR:
            for span in SPANS:
                yield f"{path}={span}", _lasting(name, span)
        elif place.count(".") < DEPTH and field.message_type.full_name.startswith("runkon."):
            yield path, _entering(field, lambda _: None)
            kind: Any = field.message_type
            inner = GetMessageClass(kind)()
            for inner_name, change in changes(inner, f"{path}."):
                yield inner_name, _entering(field, change)


def _setting(field: Any, value: object) -> Change:
    if field.is_repeated:
        return lambda message: getattr(message, field.name).extend([value, value])
    return lambda message: setattr(message, field.name, value)


def _mapping(name: str, text: str) -> Change:
    return lambda message: getattr(message, name).update({text: text})


def _lasting(name: str, span: Duration) -> Change:
    return lambda message: getattr(message, name).CopyFrom(span)


def _entering(field: Any, change: Change) -> Change:
    def enter(message: Any) -> None:
        inside = getattr(message, field.name)
        if field.is_repeated:
            inside = inside[0] if inside else inside.add()
        else:
            inside.SetInParent()
        change(inside)

    return enter


def requests_of(service: str, run_id: str) -> dict[str, list[Message]]:
    """Requests to begin with, by the name of the RPC; those that are not named begin empty."""
    step_id = gate_id = f"{run_id}/b.0000/e1/0"
    report: dict[str, Any] = {"task_id": f"{step_id}#0", "token": "t"}
    at_once = Duration()
    known: dict[str, dict[str, list[Message]]] = {
        "RunService": {
            "StartRun": [runs_pb2.StartRunRequest(workflow="gated")],
            "BatchStartRuns": [],  # made of StartRun, by the same code
            "AwaitRun": [runs_pb2.AwaitRunRequest(run_id=run_id, timeout=at_once)],
            "GetStep": [runs_pb2.GetStepRequest(step_id=step_id)],
            "ListFanOutItems": [runs_pb2.ListFanOutItemsRequest(step_id=step_id)],
        },
        "GateService": {
            "GetGate": [gates_pb2.GetGateRequest(gate_id=gate_id)],
            "ResolveGate": [gates_pb2.ResolveGateRequest(gate_id=gate_id)],
            "ReportPullRequest": [gates_pb2.ReportPullRequestRequest(gate_id=gate_id)],
        },
        "WorkflowService": {
            "PutWorkflow": [workflows_pb2.PutWorkflowRequest(source=GATED)],
            "GetWorkflow": [workflows_pb2.GetWorkflowRequest(name="gated")],
            "GraphWorkflow": [workflows_pb2.GraphWorkflowRequest(workflow="gated")],
        },
        "WorkerService": {
            "PollTasks": [workers_pb2.PollTasksRequest(worker_id="w", actions=["a"], wait=at_once)],
            "ReportTask": [
                workers_pb2.ReportTaskRequest(report=workers_pb2.TaskReport(**report)),
            ],
            "HeartbeatTask": [
                workers_pb2.HeartbeatTaskRequest(heartbeat=workers_pb2.TaskHeartbeat(**report))
            ],
        },
        "AdminService": {
            "SetActionLimit": [admin_pb2.SetActionLimitRequest(action="a", concurrency=1)],
            "SetRetention": [admin_pb2.SetRetentionRequest(keep_forever=True)],
            "PurgeRuns": [admin_pb2.PurgeRunsRequest(older_than=Duration(seconds=86_400 * 999))],
        },
    }
    return known[service]


@pytest.mark.parametrize(
    ("module", "service"),
    [
        (runs_pb2, "RunService"),
        (gates_pb2, "GateService"),
        (workflows_pb2, "WorkflowService"),
        (workers_pb2, "WorkerService"),
        (admin_pb2, "AdminService"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_stands_in_a_field_the_answer_is_no_bug(
    api: LiveApi, module: Any, service: str
) -> None:
    """Each error says its reason, and what is wrong with the request where it is the request."""
    await api.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=GATED))
    started = await api.runs.StartRun(runs_pb2.StartRunRequest(workflow="gated"))
    known = requests_of(service, started.run.id)
    stub = {"RunService": api.runs, "GateService": api.gates, "WorkflowService": api.workflows,
            "WorkerService": api.workers, "AdminService": api.admin}[service]  # fmt: skip
    turn = asyncio.Semaphore(AT_ONCE)
    bugs: list[str] = []

    async def call(method: Any, request: Message, name: str) -> None:
        async with turn:
            try:
                await method(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                refused = Refusal(error)
                is_told = bool(refused.reason) and (
                    refused.code is not grpc.StatusCode.INVALID_ARGUMENT or bool(refused.fields)
                )
                if refused.code in OURS or not is_told:
                    bugs.append(f"{name}: {refused.code.name} {refused.message}")

    calls = []
    for rpc in module.DESCRIPTOR.services_by_name[service].methods:
        if rpc.server_streaming or rpc.client_streaming:
            continue
        blank: Any = GetMessageClass(rpc.input_type)()
        if "run_id" in rpc.input_type.fields_by_name:
            blank.run_id = started.run.id
        for base in known.get(rpc.name, [blank]):
            for place, change in changes(base):
                request = type(base)()
                request.CopyFrom(base)
                change(request)
                calls.append(call(getattr(stub, rpc.name), request, f"{rpc.name} {place}"))
    await asyncio.gather(*calls)

    assert len(calls) > 50
    assert bugs == []

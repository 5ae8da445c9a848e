"""Requests of WorkerService, and the pieces that the frames of a worker's stream are made of.

A result that is beyond the limits of StepResult is no violation: it is accepted, and its step
fails. Only what cannot be a report at all is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.api.parsing.checks import (
    NAME_BYTES,
    NOTE_BYTES,
    SHORT_TEXT_BYTES,
    Check,
)
from runkon_server.store.sessions import SERVERS_OWN

if TYPE_CHECKING:
    from runkon.v1 import workers_pb2

OFFERS_MAX: Final = 1_000
"""Of each kind: actions, item providers, types of gates."""
QUEUES_MAX: Final = 32
CREDIT_MAX: Final = 1_000
IN_HAND_MAX: Final = 10_000
TASK: Final = "the id of a task"


def check_hello(hello: workers_pb2.WorkerHello) -> None:
    """Refuse a hello that breaks a limit."""
    check = Check()
    check.namespace(hello.namespace, "hello.namespace")
    _check_worker(check, "hello.", hello)
    if hello.concurrency < 1:
        check.wrong("hello.concurrency", "must be at least 1")
    check.text("hello.client", hello.client, SHORT_TEXT_BYTES)
    check.done()


def _check_worker(
    check: Check, prefix: str, worker: workers_pb2.WorkerHello | workers_pb2.PollTasksRequest
) -> None:
    check.label(f"{prefix}worker_id", worker.worker_id, NAME_BYTES, required=True)
    if worker.worker_id.startswith(SERVERS_OWN):
        check.wrong(f"{prefix}worker_id", f"begins with `{SERVERS_OWN}`, as the server's own do")
    offers = {
        "actions": worker.actions,
        "item_providers": worker.item_providers,
        "gate_types": worker.gate_types,
    }
    if not (any(offers.values()) or worker.scripts):
        check.wrong(
            f"{prefix}actions", "is empty, as are the other offers: a worker offers something"
        )
    for field, names in offers.items():
        check.between(f"{prefix}{field} (their number)", len(names), 0, OFFERS_MAX)
        for number, name in enumerate(names[:OFFERS_MAX]):
            check.label(f"{prefix}{field}[{number}]", name, NAME_BYTES, required=True)
    check.between(f"{prefix}queues (their number)", len(worker.queues), 0, QUEUES_MAX)
    for number, name in enumerate(worker.queues[:QUEUES_MAX]):
        check.text(f"{prefix}queues[{number}]", name, SHORT_TEXT_BYTES)
    tokens = f"{prefix}tokens_in_hand"
    check.between(f"{tokens} (their number)", len(worker.tokens_in_hand), 0, IN_HAND_MAX)
    for number, token in enumerate(worker.tokens_in_hand[:IN_HAND_MAX]):
        check.label(f"{tokens}[{number}]", token, SHORT_TEXT_BYTES, required=True)


def check_work(frame: workers_pb2.WorkRequest) -> None:
    """Refuse a frame of a worker's stream; its reports and heartbeats are checked one by one."""
    check = Check()
    check.between("credit", frame.credit, 0, CREDIT_MAX)
    check.done()


def check_poll_tasks(request: workers_pb2.PollTasksRequest) -> None:
    """Refuse a PollTasksRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    _check_worker(check, "", request)
    if request.max_tasks < 0:
        check.wrong("max_tasks", "must not be negative")
    if request.HasField("wait"):
        check.duration("wait", request.wait, high=None)
    check.done()


def check_list_workers(request: workers_pb2.ListWorkersRequest) -> None:
    """Refuse a ListWorkersRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.page(request.page_size, request.page_token)
    check.done()


def check_report_task(request: workers_pb2.ReportTaskRequest) -> None:
    """Refuse a ReportTaskRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    if not request.HasField("report"):
        check.wrong("report", "is required")
        check.done()
    add_report(check, request.report)
    check.done()


def check_report(report: workers_pb2.TaskReport) -> None:
    """Refuse one report of a frame."""
    check = Check()
    add_report(check, report)
    check.done()


def add_report(check: Check, report: workers_pb2.TaskReport) -> None:
    """Note what is wrong with a report."""
    _check_task(check, "report", report.task_id, report.token)
    match report.WhichOneof("outcome"):
        case None:
            check.wrong(
                "report", "needs an outcome: result, items, gate_answer, failure or cancelled"
            )
        case "failure":
            if not report.failure.message:
                check.wrong("report.failure.message", "is required")
            check.label("report.failure.code", report.failure.code, NAME_BYTES)
        case "gate_answer":
            _check_answer(check, report.gate_answer)
        case _:
            pass


def _check_answer(check: Check, answer: workers_pb2.GateAnswer) -> None:
    field = "report.gate_answer"
    match answer.WhichOneof("answer"):
        case None:
            check.wrong(field, "needs an answer: approved, rejected or pending")
        case "rejected":
            if not answer.rejected.reason:
                check.wrong(f"{field}.rejected.reason", "is required")
        case "pending":
            if answer.pending.HasField("delay"):
                check.duration(f"{field}.pending.delay", answer.pending.delay, high=None)
        case _:
            pass


def check_heartbeat_task(request: workers_pb2.HeartbeatTaskRequest) -> None:
    """Refuse a HeartbeatTaskRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    if not request.HasField("heartbeat"):
        check.wrong("heartbeat", "is required")
        check.done()
    add_heartbeat(check, request.heartbeat)
    check.done()


def check_heartbeat(heartbeat: workers_pb2.TaskHeartbeat, number: int) -> None:
    """Refuse one heartbeat of a frame, `number` from 0."""
    check = Check()
    add_heartbeat(check, heartbeat, f"heartbeats[{number}]")
    check.done()


def add_heartbeat(
    check: Check, heartbeat: workers_pb2.TaskHeartbeat, field: str = "heartbeat"
) -> None:
    """Note what is wrong with a heartbeat."""
    _check_task(check, field, heartbeat.task_id, heartbeat.token)
    check.text(f"{field}.progress", heartbeat.progress, NOTE_BYTES)


def _check_task(check: Check, field: str, task_id: str, token: str) -> None:
    check.part_id(task_id, f"{field}.task_id", TASK)
    check.label(f"{field}.token", token, SHORT_TEXT_BYTES, required=True)

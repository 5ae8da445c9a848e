"""Requests of RunService."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon.v1 import events_pb2, runs_pb2, types_pb2
from runkon_server.api.parsing.checks import (
    NAME_BYTES,
    NOTE_BYTES,
    SHORT_TEXT_BYTES,
    Check,
)
from runkon_server.core.filter_parsing import FILTER_BYTES
from runkon_server.core.resuming import ResumeMode
from runkon_server.store.queues import EVERY_QUEUE, QUEUE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runkon.v1 import gates_pb2

BATCH_MAX: Final = 500
LABELS_MAX: Final = 32
PRIORITY_MAX: Final = 100
START_DELAY_MAX: Final = timedelta(days=90)
HEARTBEAT_MIN: Final = timedelta(seconds=1)
HEARTBEAT_MAX: Final = timedelta(seconds=60)
CURSOR_BYTES: Final = 256
ORDERS: Final = ("", "create_time desc", "create_time")
STEP: Final = "the id of a step"
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9_./-]{1,63}")
_VERSION_MAX: Final = 2**63 - 1


def parse_workflow_name(text: str) -> tuple[str, int | None] | None:
    """Name and version of `NAME` or `NAME@VERSION`; None if it is neither."""
    name, at, version = text.partition("@")
    if not at:
        return name, None
    if not (version.isascii() and version.isdecimal() and len(version) <= len(str(_VERSION_MAX))):
        return None
    return (name, int(version)) if 0 < int(version) <= _VERSION_MAX else None


def check_start_run(request: runs_pb2.StartRunRequest) -> None:
    """Refuse a StartRunRequest that breaks a limit. What `source` says is not looked at here."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    _check_definition(check, request)
    check.texts("inputs", request.inputs)
    check.label("key", request.key, SHORT_TEXT_BYTES)
    check.enum("conflict_policy", request.conflict_policy, runs_pb2.ConflictPolicy)
    check_labels(check, request.labels)
    if request.labels.get(QUEUE_LABEL) == EVERY_QUEUE:
        check.wrong(f"labels.{QUEUE_LABEL}", "is `*`: that serves every queue and is none itself")
    check.between("priority", request.priority, -PRIORITY_MAX, PRIORITY_MAX)
    check.text("trigger", request.trigger, SHORT_TEXT_BYTES)
    check.text("parent_run_id", request.parent_run_id, SHORT_TEXT_BYTES)
    if request.HasField("start_delay"):
        check.duration("start_delay", request.start_delay, high=START_DELAY_MAX)
    check.done()


def _check_definition(check: Check, request: runs_pb2.StartRunRequest) -> None:
    if request.WhichOneof("definition") == "source":
        if not request.source:
            check.wrong("source", "is required")
        check.texts("output_schemas", request.output_schemas)
        check.texts("snippets", request.snippets)
        return
    if request.output_schemas or request.snippets:
        check.wrong(
            "output_schemas, snippets", "belong to a `source`; a stored workflow has its own"
        )
    check_workflow_name(check, request.workflow)


def check_workflow_name(check: Check, workflow: str) -> None:
    """Note what is wrong with `NAME` or `NAME@VERSION` in a field `workflow`, which is required."""
    if check.label("workflow", workflow, NAME_BYTES + 20, required=True):
        parsed = parse_workflow_name(workflow)
        if parsed is None:
            check.wrong("workflow", "must be NAME or NAME@VERSION, the version from 1")
        else:
            check.label("workflow", parsed[0], NAME_BYTES, required=True)


def check_labels(check: Check, labels: Mapping[str, str]) -> None:
    """Labels of a run, or those that a run is to have."""
    if len(labels) > LABELS_MAX:
        check.wrong("labels", f"are {len(labels)}; at most {LABELS_MAX} are allowed")
        return
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            check.wrong("labels (a key)", "must be 1 to 63 of `A-Z a-z 0-9 _ . / -`")
        check.text(f"labels.{key[:63]}", value, SHORT_TEXT_BYTES)


def check_batch_start_runs(request: runs_pb2.BatchStartRunsRequest) -> None:
    """Refuse a batch as a whole; its items are checked one by one, each for its own outcome."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id, 120)
    check.between("requests (their number)", len(request.requests), 1, BATCH_MAX)
    for number, item in enumerate(request.requests[:BATCH_MAX]):
        if item.namespace not in ("", request.namespace):
            check.wrong(f"requests[{number}].namespace", "must be that of the batch, or empty")
    check.done()


def check_get_run(request: runs_pb2.GetRunRequest) -> None:
    """Refuse a GetRunRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    if request.WhichOneof("run") == "key":
        check.label("key", request.key, SHORT_TEXT_BYTES, required=True)
    else:
        check.run_id(request.run_id)
    check.enum("view", request.view, types_pb2.View)
    _check_sequence(check, request.at_sequence)
    check.done()


def _check_sequence(check: Check, at_sequence: int) -> None:
    if at_sequence < 0:
        check.wrong("at_sequence", "must not be negative")


def check_list_runs(request: runs_pb2.ListRunsRequest) -> None:
    """Refuse a ListRunsRequest that breaks a limit; its filter is read when it is used."""
    check = Check()
    check.namespace(request.namespace)
    check.page(request.page_size, request.page_token)
    check.text("filter", request.filter, FILTER_BYTES)
    if request.order_by not in ORDERS:
        check.wrong("order_by", "must be `create_time desc` or `create_time`")
    check.enum("view", request.view, types_pb2.View)
    check.done()


def check_count_runs(request: runs_pb2.CountRunsRequest) -> None:
    """Refuse a CountRunsRequest that breaks a limit; its filter is read when it is used."""
    check = Check()
    check.namespace(request.namespace)
    check.text("filter", request.filter, FILTER_BYTES)
    check.done()


def check_cancel_run(request: runs_pb2.CancelRunRequest) -> None:
    """Refuse a CancelRunRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.run_id(request.run_id)
    check.text("reason", request.reason, NOTE_BYTES)
    check.done()


def check_resume_run(request: runs_pb2.ResumeRunRequest) -> None:
    """Refuse a ResumeRunRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.run_id(request.run_id)
    check.enum("mode", request.mode, events_pb2.ResumeMode)
    if request.mode == events_pb2.RESUME_MODE_FROM_STEP:
        check.part_id(request.from_step_id, "from_step_id", STEP)
    elif request.from_step_id:
        check.wrong("from_step_id", "is for the mode FROM_STEP only")
    check.done()


def check_get_step(request: runs_pb2.GetStepRequest) -> None:
    """Refuse a GetStepRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.part_id(request.step_id, "step_id", STEP)
    check.done()


def check_list_fan_out_items(request: runs_pb2.ListFanOutItemsRequest) -> None:
    """Refuse a ListFanOutItemsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.part_id(request.step_id, "step_id", STEP)
    check.enum("status", request.status, types_pb2.FanOutItemStatus)
    check.page(request.page_size, request.page_token)
    check.done()


def check_run_mutation(request: runs_pb2.DismissRunRequest | runs_pb2.DeleteRunRequest) -> None:
    """Refuse a DismissRunRequest or a DeleteRunRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    check.run_id(request.run_id)
    check.done()


def check_explain_run(request: runs_pb2.ExplainRunRequest) -> None:
    """Refuse an ExplainRunRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id)
    check.done()


def check_await_run(request: runs_pb2.AwaitRunRequest) -> None:
    """Refuse an AwaitRunRequest that breaks a limit; a long timeout is shortened, not refused."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id)
    if request.HasField("timeout"):
        check.duration("timeout", request.timeout, high=None)
    check.done()


def check_list_steps(request: runs_pb2.ListStepsRequest) -> None:
    """Refuse a ListStepsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id)
    check.page(request.page_size, request.page_token)
    _check_sequence(check, request.at_sequence)
    check.done()


def check_list_run_events(request: runs_pb2.ListRunEventsRequest) -> None:
    """Refuse a ListRunEventsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id)
    if request.after_seq < 0:
        check.wrong("after_seq", "must not be negative")
    check.page_size(request.page_size)
    check.enums("kinds", request.kinds, events_pb2.EventKind)
    check.done()


def check_stream_run_events(request: runs_pb2.StreamRunEventsRequest) -> None:
    """Refuse a StreamRunEventsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id)
    match request.WhichOneof("cursor"):
        case "after_seq":
            if request.after_seq < 0:
                check.wrong("after_seq", "must not be negative")
        case None:
            pass
        case flag:
            if not getattr(request, flag):
                check.wrong(flag, "must be true where it is given")
    check.enums("kinds", request.kinds, events_pb2.EventKind)
    check_heartbeat(check, request)
    check.done()


def check_stream_namespace_events(request: runs_pb2.StreamNamespaceEventsRequest) -> None:
    """Refuse a StreamNamespaceEventsRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    match request.WhichOneof("position"):
        case "cursor":
            check.text("cursor", request.cursor, CURSOR_BYTES, required=True)
        case None:
            pass
        case flag:
            if not getattr(request, flag):
                check.wrong(flag, "must be true where it is given")
    check.label("workflow_name", request.workflow_name, NAME_BYTES)
    check.enums("kinds", request.kinds, events_pb2.EventKind)
    check_labels(check, request.labels)
    check_heartbeat(check, request)
    check.done()


def check_heartbeat(
    check: Check,
    request: runs_pb2.StreamRunEventsRequest
    | runs_pb2.StreamNamespaceEventsRequest
    | gates_pb2.StreamGatesRequest,
) -> None:
    """Most time without a frame."""
    if request.HasField("heartbeat_interval"):
        check.duration(
            "heartbeat_interval",
            request.heartbeat_interval,
            low=HEARTBEAT_MIN,
            high=HEARTBEAT_MAX,
        )


def resume_mode(mode: events_pb2.ResumeMode.ValueType) -> ResumeMode:
    """What a checked mode asks for; unspecified means normal."""
    if mode == events_pb2.RESUME_MODE_UNSPECIFIED:
        return ResumeMode.NORMAL
    return ResumeMode(events_pb2.ResumeMode.Name(mode).removeprefix("RESUME_MODE_").lower())


def kinds_of(kinds: Iterable[events_pb2.EventKind.ValueType]) -> frozenset[str]:
    """Checked event kinds as the log names them; empty means all."""
    names = (events_pb2.EventKind.Name(kind) for kind in kinds)
    return frozenset(name.removeprefix("EVENT_KIND_").lower() for name in names)

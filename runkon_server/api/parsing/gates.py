"""Requests of GateService."""

from __future__ import annotations

from typing import Final

from runkon.v1 import gates_pb2
from runkon_server.api.parsing.checks import (
    NAME_BYTES,
    SHORT_TEXT_BYTES,
    TEXT_BYTES,
    Check,
    size_of,
)
from runkon_server.api.parsing.runs import CURSOR_BYTES, check_heartbeat, check_labels
from runkon_server.runtime.commands import PullRequest

GATE: Final = "the id of a gate"
URL_BYTES: Final = 2 * 1024
REPORTED_MAX: Final = 1_000
SELECTIONS_MAX: Final = 1_000
"""As many as a gate may have options."""


def check_list_gates(request: gates_pb2.ListGatesRequest) -> None:
    """Refuse a ListGatesRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.run_id(request.run_id, required=False)
    check.label("type", request.type, NAME_BYTES)
    check.label("workflow_name", request.workflow_name, NAME_BYTES)
    check.enum("state", request.state, gates_pb2.GateState)
    if request.HasField("min_age"):
        check.duration("min_age", request.min_age, high=None)
    check.page(request.page_size, request.page_token)
    check.done()


def check_stream_gates(request: gates_pb2.StreamGatesRequest) -> None:
    """Refuse a StreamGatesRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.text("cursor", request.cursor, CURSOR_BYTES)
    check.run_id(request.run_id, required=False)
    check.label("type", request.type, NAME_BYTES)
    check.label("workflow_name", request.workflow_name, NAME_BYTES)
    check_labels(check, request.labels)
    check_heartbeat(check, request)
    check.done()


def check_get_gate(request: gates_pb2.GetGateRequest) -> None:
    """Refuse a GetGateRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.part_id(request.gate_id, "gate_id", GATE)
    check.done()


def check_resolve_gate(request: gates_pb2.ResolveGateRequest) -> None:
    """Refuse a ResolveGateRequest that breaks a limit; the options are known to the gate."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    _check_target(check, request)
    check.enum("decision", request.decision, gates_pb2.GateDecision, required=True)
    check.text("feedback", request.feedback, TEXT_BYTES)
    _check_selections(check, request)
    check.text("on_behalf_of", request.on_behalf_of, SHORT_TEXT_BYTES)
    check.done()


def check_report_pull_request(request: gates_pb2.ReportPullRequestRequest) -> None:
    """Refuse a ReportPullRequestRequest that breaks a limit."""
    check = Check()
    check.namespace(request.namespace)
    check.request_id(request.request_id)
    _check_target(check, request)
    if request.HasField("pull_request"):
        _check_pull_request(check, request.pull_request)
    else:
        check.wrong("pull_request", "is required")
    check.done()


def _check_pull_request(check: Check, seen: gates_pb2.PullRequest) -> None:
    field = "pull_request"
    check.label(f"{field}.head_commit", seen.head_commit, NAME_BYTES, required=True)
    check.label(f"{field}.author", seen.author, NAME_BYTES)
    check.label(f"{field}.url", seen.url, URL_BYTES)
    check.enum(f"{field}.review_decision", seen.review_decision, gates_pb2.ReviewDecision)
    check.between(f"{field}.approvals (their number)", len(seen.approvals), 0, REPORTED_MAX)
    for number, approval in enumerate(seen.approvals[:REPORTED_MAX]):
        place = f"{field}.approvals[{number}]"
        check.label(f"{place}.reviewer", approval.reviewer, NAME_BYTES, required=True)
        check.label(f"{place}.commit", approval.commit, NAME_BYTES, required=True)
    check.between(f"{field}.checks (their number)", len(seen.checks), 0, REPORTED_MAX)
    for number, each in enumerate(seen.checks[:REPORTED_MAX]):
        place = f"{field}.checks[{number}]"
        check.label(f"{place}.name", each.name, SHORT_TEXT_BYTES, required=True)
        check.enum(f"{place}.state", each.state, gates_pb2.CheckState, required=True)


def pull_request_of(seen: gates_pb2.PullRequest) -> PullRequest:
    """A checked pull request as the engine takes it."""
    decision = gates_pb2.ReviewDecision.Name(seen.review_decision)
    return PullRequest(
        head_commit=seen.head_commit,
        author=seen.author,
        approvals=tuple((each.reviewer, each.commit) for each in seen.approvals),
        review_decision=(
            decision.removeprefix("REVIEW_DECISION_").lower() if seen.review_decision else None
        ),
        checks=tuple(
            (
                each.name,
                gates_pb2.CheckState.Name(each.state).removeprefix("CHECK_STATE_").lower(),
            )
            for each in seen.checks
        ),
        url=seen.url,
    )


def _check_target(
    check: Check, request: gates_pb2.ResolveGateRequest | gates_pb2.ReportPullRequestRequest
) -> None:
    if request.WhichOneof("target") == "run_gate":
        _check_run_gate(check, request.run_gate)
    else:
        check.part_id(request.gate_id, "gate_id", GATE)


def _check_run_gate(check: Check, target: gates_pb2.RunGate) -> None:
    if target.WhichOneof("run") == "key":
        check.label("run_gate.key", target.key, SHORT_TEXT_BYTES, required=True)
    else:
        check.run_id(target.run_id, "run_gate.run_id")
    check.label("run_gate.gate_name", target.gate_name, NAME_BYTES, required=True)


def _check_selections(check: Check, request: gates_pb2.ResolveGateRequest) -> None:
    if not request.selections:
        return
    if request.decision == gates_pb2.GATE_DECISION_REJECT:
        check.wrong("selections", "are possible only with an approval")
    if len(request.selections) > SELECTIONS_MAX:
        count = len(request.selections)
        check.wrong("selections", f"are {count}; at most {SELECTIONS_MAX} are allowed")
        return
    if len(set(request.selections)) < len(request.selections):
        check.wrong("selections", "name the same option twice")
    for number, selection in enumerate(request.selections):
        check.text(f"selections[{number}]", selection, TEXT_BYTES, required=True)
    if sum(size_of(each) + 1 for each in request.selections) > TEXT_BYTES:
        check.wrong("selections", f"have more than {TEXT_BYTES} bytes together")

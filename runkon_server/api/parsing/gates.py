"""Requests of GateService."""

from __future__ import annotations

from runkon.v1 import gates_pb2
from runkon_server.api.parsing.checks import (
    NAME_BYTES,
    SHORT_TEXT_BYTES,
    TEXT_BYTES,
    Check,
    size_of,
)

GATE = "the id of a gate"


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
    if request.WhichOneof("target") == "run_gate":
        _check_run_gate(check, request.run_gate)
    else:
        check.part_id(request.gate_id, "gate_id", GATE)
    check.enum("decision", request.decision, gates_pb2.GateDecision, required=True)
    check.text("feedback", request.feedback, TEXT_BYTES)
    _check_selections(check, request)
    check.text("on_behalf_of", request.on_behalf_of, SHORT_TEXT_BYTES)
    check.done()


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
    if len(set(request.selections)) < len(request.selections):
        check.wrong("selections", "name the same option twice")
    for number, selection in enumerate(request.selections):
        check.text(f"selections[{number}]", selection, TEXT_BYTES, required=True)
    if sum(size_of(each) + 1 for each in request.selections) > TEXT_BYTES:
        check.wrong("selections", f"have more than {TEXT_BYTES} bytes together")

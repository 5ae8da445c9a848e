"""Invariants of what clients saw: S3, S4, S6, S10, S24, L8."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.verify.evidence import Evidence, Operation, Subscription
    from runkon_server.verify.plans import Plans

LAST_OPERATIONS: Final = 5


def s3_answers_are_true(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Every run that a client was told of exists; none does that was refused to everybody."""
    told = set(_unanswered(evidence, "StartRun"))
    refused: dict[str, str] = {}
    for each in _outcomes(evidence, "StartRun"):
        name = str(each.args.get("name", each.op_id))
        if each.kind == "fail" and name not in told:
            refused[name] = each.op_id
        else:
            told.add(name)
            refused.pop(name, None)
        if each.kind == "ok" and each.result["run_id"] not in evidence.runs:
            what = f"{each.proc} was told of it by {each.op_id}, and it does not exist"
            yield Violation(invariant="S3", run_id=each.result["run_id"], what=what)
    for run in evidence.runs.values():
        name = str((run.row.get("labels") or {}).get("name"))
        if name in refused:
            what = f"it exists, although {refused[name]} was refused"
            yield Violation(invariant="S3", run_id=run.run_id, what=what)


def s4_requests_count_once(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """A request id names one run, whatever the number of calls; another payload is refused."""
    answers: dict[tuple[str, str], tuple[object, object]] = {}
    for op in ("StartRun", "CancelRun", "ResumeRun", "ResolveGate"):
        for each in _outcomes(evidence, op):
            request_id = each.args.get("request_id")
            if each.kind != "ok" or request_id is None:
                continue
            answer = (each.result.get("run_id"), each.args.get("digest"))
            first = answers.setdefault((op, str(request_id)), answer)
            if first != answer:
                what = f"{op} {request_id} was answered {first} and {answer}"
                yield Violation(invariant="S4", what=what)
    named: dict[str, str] = {}
    for run in evidence.runs.values():
        if run.row.get("parent_workflow_run_id") is not None:
            continue  # a child has the labels of its parent
        name = (run.row.get("labels") or {}).get("name")
        if name is not None and named.setdefault(str(name), run.run_id) != run.run_id:
            what = f"{named[str(name)]} is the run of {name} as well"
            yield Violation(invariant="S4", run_id=run.run_id, what=what)


def s6_streams_are_the_log(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """What a subscriber received is one stretch of the log, without gap, repeat or difference."""
    for each in evidence.subscriptions:
        run = evidence.runs.get(each.run_id)
        log = {} if run is None else {event.seq: event for event in run.events}
        for wrong, seq in _wrong_deliveries(each, log):
            what = f"{each.subscriber}: {wrong}"
            yield Violation(invariant="S6", run_id=each.run_id, seq=seq, what=what)


def _wrong_deliveries(each: Subscription, log: dict[int, Any]) -> Iterator[tuple[str, int]]:
    due = each.after_seq + 1
    for delivery in each.deliveries:
        if delivery.seq != due:
            yield f"got {delivery.seq} where {due} was due, by {delivery.source}", delivery.seq
        due = delivery.seq + 1
        event = log.get(delivery.seq)
        if event is None:
            yield "got an event that does not exist", delivery.seq
        elif (event.kind, event.epoch) != (delivery.kind, delivery.epoch):
            yield f"got {delivery.kind}, the log has {event.kind}", delivery.seq
        elif delivery.payload is not None and delivery.payload != event.payload:
            yield "got another payload than the log has", delivery.seq
    last = max(log, default=0)
    if each.is_ended and due <= last and log[due].epoch == log[due - 1].epoch:
        yield f"was told that {due - 1} is the last event", due


def s10_one_winner_per_gate(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """A gate is decided once; who lost is told by whom; a vote that was answered OK counts."""
    gates: dict[str, Any] = {}
    votes: set[tuple[str, str, bool]] = set()
    for run in evidence.runs.values():
        decided: dict[str, str] = {}
        for event in run.events:
            if event.kind != "gate_resolved":
                continue
            gate = event.payload["gate"]
            if gate["id"] in decided:
                what = f"{gate['id']} {gate['state']} after it was {decided[gate['id']]}"
                yield Violation(invariant="S10", run_id=run.run_id, seq=event.seq, what=what)
            decided[gate["id"]] = gate["state"]
        gates |= {str(gate["id"]): gate for gate in run.gates}
        votes |= {
            (str(vote["gate_id"]), str(vote["principal"]), vote["decision"] == "approve")
            for vote in run.votes
        }
    for each in _outcomes(evidence, "ResolveGate"):
        gate = gates.get(str(each.args["gate_id"]))
        if gate is None:
            continue
        vote = (str(gate["id"]), str(each.args["principal"]), bool(each.args["approve"]))
        if each.kind == "ok" and vote not in votes:
            what = f"{gate['id']}: {each.proc} was told OK, and its vote {vote[1:]} is not there"
            yield Violation(invariant="S10", run_id=gate["run_id"], what=what)
        elif each.kind == "ok" and not vote[2] and gate["state"] != "rejected":
            what = f"{gate['id']} is {gate['state']}, although {vote[1]} rejected it"
            yield Violation(invariant="S10", run_id=gate["run_id"], what=what)
        winner = each.result.get("resolved_by")
        if winner is not None and winner != gate["resolved_by"]:
            known = {principal for gate_id, principal, _ in votes if gate_id == gate["id"]}
            if winner not in known:
                what = f"{gate['id']}: told that {winner} decided, it was {gate['resolved_by']}"
                yield Violation(invariant="S10", run_id=gate["run_id"], what=what)


def s24_secrets_stay_out(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """No planted secret stands in any row or event."""
    if not evidence.canaries:
        return
    for run in evidence.runs.values():
        text = json.dumps(asdict(run), ensure_ascii=False)
        for number, canary in enumerate(evidence.canaries):
            if canary in text:
                what = f"canary {number} stands in its rows or events"
                yield Violation(invariant="S24", run_id=run.run_id, what=what)


def l8_last_operations_succeed(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """After the last fault the last calls of each client are answered."""
    if evidence.healed_mono_s is None:
        return
    calls: dict[str, dict[str, str]] = {}
    for each in evidence.operations:
        if each.mono_s >= evidence.healed_mono_s and each.op != "ReportTask":
            calls.setdefault(each.proc, {})[each.op_id] = each.kind
    for proc, kinds in calls.items():
        last = list(kinds.values())[-LAST_OPERATIONS:]
        if any(kind in {"info", "invoke"} for kind in last):
            yield Violation(invariant="L8", what=f"the last calls of {proc} ended {last}")


def _outcomes(evidence: Evidence, op: str) -> Iterator[Operation]:
    return (each for each in evidence.operations if each.op == op and each.kind != "invoke")


def _unanswered(evidence: Evidence, op: str) -> Iterator[str]:
    """The names of the runs that callers wanted who never heard an answer."""
    answered = {each.op_id for each in _outcomes(evidence, op)}
    for each in evidence.operations:
        if each.op == op and each.op_id not in answered:
            yield str(each.args.get("name", each.op_id))

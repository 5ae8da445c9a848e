"""Gates that are decided from outside: opened, tallied, decided, closed, adopted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_server.core import ids, polling, tasks
from runkon_server.core.decision import ClearTimer, CloseGate, OpenGate, SetTimer
from runkon_server.core.facts import GateDecided, GateDecision, Outcome
from runkon_server.core.model import GateOp, Place
from runkon_server.core.outcomes import abort
from runkon_server.core.outputs_json import INVALID as OUTPUT_INVALID
from runkon_server.core.rows import CANCELLED_CODE, cut, new_row, option_list, step_payload
from runkon_server.core.variables import is_storable, output_fields
from runkon_server.core.waiting import block, unblock
from runkon_server.dsl.ast import Policy, StepField

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runkon_server.core.facts import GatePolled, Reported
    from runkon_server.core.model import Options, Passes
    from runkon_server.core.plan import GateNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

PR_APPROVAL: Final = "pr_approval"
_AUTO_APPROVED: Final = "approved by itself: this is a dry run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one principal said; each has at most one vote per gate."""

    principal: str
    approve: bool
    feedback: str | None = None


def tally(
    *, approvers: int, exclude_starter: bool, starter: str, votes: Sequence[Vote]
) -> GateDecision | None:
    """What the votes so far amount to; None: more are needed.

    One rejection decides, and so do approvals of `approvers` distinct principals. A vote of an
    excluded starter counts for nothing.
    """
    counted = [vote for vote in votes if not (exclude_starter and vote.principal == starter)]
    if any(not vote.approve for vote in counted):
        return GateDecision.REJECTED
    if len({vote.principal for vote in counted}) >= approvers:
        return GateDecision.APPROVED
    return None


def enter(tx: Scratch, node: GateNode, at: str, passes: Passes) -> None:
    """Open a gate, or take it from its row."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows[-1])
    elif tx.may_start():
        _open(tx, node, at, passes)


def _open(tx: Scratch, node: GateNode, at: str, passes: Passes) -> None:
    state = tx.state
    setup = state.setup
    step_id = ids.step_id(setup.run_id, at, setup.epoch, 0)
    role, status = ("reviewer", "completed") if setup.dry_run else ("gate", "waiting")
    row = new_row(node.columns, Place(at, passes, state.position), setup.epoch, 0, status)
    row["role"] = role
    state.position += 1
    if setup.dry_run:
        row["result_text"] = _AUTO_APPROVED
        tx.insert_step(step_id, row)
        tx.step_event("step_completed", step_id, row)
        return
    state.starts += 1
    options = _options(tx, node)
    if isinstance(options, str):
        row |= {"status": "failed", "step_error": options}
        tx.insert_step(step_id, row)
        tx.step_event("step_failed", step_id, row)
        abort(tx, options, (step_id,))
        return
    if options is not None:
        row["gate_options"] = options
    _await(tx, GateOp(node, step_id, row, options))


def _options(tx: Scratch, node: GateNode) -> Options | str | None:
    """The options, or why there are none although there must be."""
    source = node.gate.options
    if not isinstance(source, StepField):
        return source
    of = f"gate `{node.gate.name}`: its options come from"
    output = tx.state.outputs.get(source.step)
    if not output:
        return f"{of} `{source.step}`, which has no structured output"
    found = (output_fields(output) or {}).get(source.field)
    if not isinstance(found, dict):
        return f"{of} `{source.step}.{source.field}`, which is no object"
    return tuple(
        (key, label)
        for key, label in found.items()
        if isinstance(label, str) and is_storable(key) and is_storable(label)
    )


def _await(tx: Scratch, op: GateOp) -> None:
    gate, row, state = op.node.gate, op.row, tx.state
    tx.insert_step(op.step_id, row)
    payload = step_payload(op.step_id, row)
    tx.event("gate_waiting", {"gate": _gate_payload(op, "pending"), **payload})
    tx.order(
        OpenGate(
            gate_id=op.step_id,
            step_id=op.step_id,
            name=gate.name,
            gate_type=gate.gate_type,
            prompt=gate.prompt,
            options=op.options,
            approvers=gate.approvers,
            exclude_starter=gate.exclude_starter,
            timeout_s=gate.timeout_s,
            on_timeout=gate.on_timeout.value,
            iteration=row["iteration"],
            min_approvals=gate.min_approvals,
            approval_mode=gate.approval_mode.value,
        )
    )
    tx.order(
        SetTimer(
            timer_id=ids.gate_timer(op.step_id),
            kind="gate",
            delay_s=gate.timeout_s,
            step_id=op.step_id,
        )
    )
    state.leaf = polling.look(tx, op) if op.node.is_polled else op
    block(tx, blocked_on_gate(op))


def blocked_on_gate(op: GateOp) -> dict[str, Any]:
    """The run's `blocked_on` while it stands at a gate."""
    gate = op.node.gate
    blocked_on: dict[str, Any] = {
        "type": gate.gate_type,
        "gate_id": op.step_id,
        "gate_name": gate.name,
        "prompt": gate.prompt,
        "options": option_list(op.options),
    }
    if gate.gate_type == PR_APPROVAL:
        blocked_on["approvals_needed"] = gate.min_approvals
    return blocked_on


def _gate_payload(op: GateOp, gate_state: str) -> dict[str, Any]:
    gate = op.node.gate
    payload = {
        "id": op.step_id,
        "step_id": op.step_id,
        "name": gate.name,
        "gate_type": gate.gate_type,
        "iteration": op.row["iteration"],
        "options": option_list(op.options),
        "approvers": gate.approvers,
        "exclude_starter": gate.exclude_starter,
        "timeout_s": gate.timeout_s,
        "on_timeout": gate.on_timeout.value,
        "state": gate_state,
    }
    if gate.prompt is not None:
        payload["prompt"] = cut(gate.prompt)
    if gate.gate_type == PR_APPROVAL:
        payload |= {
            "min_approvals": gate.min_approvals,
            "approval_mode": gate.approval_mode.value,
        }
    return payload


def decide(tx: Scratch, op: GateOp, fact: GateDecided) -> bool:
    """A gate was decided; whether it was this one."""
    if fact.gate_id != op.step_id:
        return False
    gate = op.node.gate
    columns: dict[str, Any] = {}
    if fact.decided_by is not None:
        columns["gate_approved_by"] = fact.decided_by
    if fact.feedback is not None:
        columns["gate_feedback"] = fact.feedback
    if fact.selections:
        columns["gate_selections"] = fact.selections
        columns["context_out"] = "\n".join(
            ["Selected:", *(f"- {each}" for each in fact.selections)]
        )
    match fact.decision:
        case GateDecision.APPROVED:
            columns["status"] = "completed"
            _set_feedback(tx, fact.feedback, fact.selections)
        case GateDecision.REJECTED:
            error = fact.feedback or f"gate `{gate.name}` was rejected"
            columns |= {"status": "failed", "step_error": error}
        case GateDecision.TIMED_OUT:
            status = "failed" if gate.on_timeout is Policy.FAIL else "timed_out"
            error = f"gate `{gate.name}` timed out after {gate.timeout_s} s"
            columns |= {"status": status, "step_error": error}
    polling.end(tx, op, fact.poll_id, polling.GATE_CLOSED)
    _end(tx, op, columns)
    if fact.decision is not GateDecision.TIMED_OUT:
        tx.order(ClearTimer(timer_id=ids.gate_timer(op.step_id)))
    if columns["status"] == "failed":
        abort(tx, columns["step_error"], (op.step_id,))
    return True


def _end(tx: Scratch, op: GateOp, columns: dict[str, Any]) -> None:
    tx.state.leaf = None
    tx.update_step(op.step_id, columns)
    tx.step_event(f"step_{columns['status']}", op.step_id, {**op.row, **columns})
    unblock(tx)


def _set_feedback(tx: Scratch, feedback: str | None, selections: tuple[str, ...] | None) -> None:
    told = ", ".join(selections) if selections else feedback
    if told:
        tx.state.memory = tx.state.memory._replace(gate_feedback=told)


def report(tx: Scratch, op: GateOp, fact: Reported) -> bool:
    """A look at the gate went wrong; whether it was the one under way."""
    if not polling.is_looking(op) or fact.task_id != polling.task_of(op):
        return False
    if fact.outcome is Outcome.CANCELLED or (fact.outcome is Outcome.FAILED and fact.retryable):
        polling.pause(tx, op, None, fact.error)
        return True
    error = fact.error or "the worker that looked at it gave no answer"
    columns = {
        "status": "failed",
        "step_error": f"gate `{op.node.gate.name}`: {error}",
        "error_code": fact.error_code or OUTPUT_INVALID,
    }
    _close(tx, op, columns)
    unblock(tx)
    return True


def polled(tx: Scratch, op: GateOp, fact: GatePolled) -> bool:
    """A look did not decide; whether it was the one under way."""
    if not polling.is_looking(op) or fact.task_id != polling.task_of(op):
        return False
    polling.pause(tx, op, fact.delay_s, fact.note)
    return True


def close(tx: Scratch, op: GateOp) -> None:
    """The run was cancelled: nobody is asked any more."""
    polling.end(tx, op, None, tasks.RUN_CANCELLED)
    error = f"gate `{op.node.gate.name}` was closed, because the run was cancelled"
    _close(tx, op, {"status": "failed", "step_error": error, "error_code": CANCELLED_CODE})


def _close(tx: Scratch, op: GateOp, columns: dict[str, Any]) -> None:
    tx.state.leaf = None
    tx.update_step(op.step_id, columns)
    row = {**op.row, **columns}
    gate = _gate_payload(op, "cancelled")
    tx.event("gate_resolved", {"gate": gate, **step_payload(op.step_id, row)})
    tx.order(CloseGate(gate_id=op.step_id))
    tx.order(ClearTimer(timer_id=ids.gate_timer(op.step_id)))
    abort(tx, columns["step_error"], (op.step_id,))


def _adopt(tx: Scratch, node: GateNode, at: str, passes: Passes, record: StepRecord) -> None:
    if record.role == "reviewer":
        return
    tx.state.starts += 1
    match record.status:
        case "waiting":
            place = Place(at, passes, record.position)
            row = new_row(node.columns, place, record.epoch, 0, "waiting")
            row["role"] = record.role
            if record.gate_options is not None:
                row["gate_options"] = record.gate_options
            op = GateOp(node, record.id, row, record.gate_options)
            tx.state.leaf = polling.adopted(op, record)
            tx.state.status = "waiting"  # unless the run turns out to be cancelled
        case "completed":
            _set_feedback(tx, record.gate_feedback, record.gate_selections)
        case "failed":
            abort(tx, record.step_error or "", (record.id,))
        case _:
            pass

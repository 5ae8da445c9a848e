"""Gates and votes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon.v1 import gates_pb2
from runkon_server.api.render.values import options, timestamp

if TYPE_CHECKING:
    from runkon_server.store.rows import GateRow, VoteRow

_STATES: Final = {
    name.removeprefix("GATE_STATE_").lower(): number for name, number in gates_pb2.GateState.items()
}
_DECISIONS: Final = {
    name.removeprefix("GATE_DECISION_").lower(): number
    for name, number in gates_pb2.GateDecision.items()
}
_APPROVAL_MODES: Final = {
    name.removeprefix("APPROVAL_MODE_").lower(): number
    for name, number in gates_pb2.ApprovalMode.items()
}
STATE_NAMES: Final = {number: name for name, number in _STATES.items()}
"""The state as the store names it, by the contract's number."""


VOTES_BYTES: Final = 2 * 1024 * 1024


def render_gate(gate: GateRow) -> gates_pb2.Gate:
    """A gate with its votes. If all their feedback would not fit a message, each is cut."""
    decided = gate.state in ("approved", "rejected")
    votes = [render_vote(vote) for vote in gate.votes]
    if sum(vote.ByteSize() for vote in votes) > VOTES_BYTES:
        share = VOTES_BYTES // len(votes)
        for vote in votes:
            vote.feedback = vote.feedback.encode()[:share].decode(errors="ignore")
    return gates_pb2.Gate(
        id=gate.id,
        namespace=gate.namespace,
        run_id=gate.run_id,
        step_id=gate.step_id,
        name=gate.name,
        type=gate.gate_type,
        iteration=gate.iteration,
        prompt=gate.prompt or "",
        options=options(gate.options),
        approvers=gate.approvers,
        exclude_starter=gate.exclude_starter,
        votes=votes,
        state=_STATES.get(gate.state, gates_pb2.GATE_STATE_UNSPECIFIED),
        open_time=timestamp(gate.opened_at),
        deadline_time=timestamp(gate.deadline_at),
        resolve_time=timestamp(gate.resolved_at),
        resolved_by=(gate.resolved_by or "") if decided else "",
        on_behalf_of=gate.on_behalf_of or "",
        feedback=gate.feedback or "",
        selections=gate.selections or (),
        workflow_name=gate.workflow_name,
        display_name=gate.workflow_title or gate.workflow_name,
        labels=gate.labels,
        min_approvals=gate.min_approvals if gate.gate_type == "pr_approval" else 0,
        approval_mode=(
            approval_mode(gate.approval_mode)
            if gate.gate_type == "pr_approval"
            else gates_pb2.APPROVAL_MODE_UNSPECIFIED
        ),
    )


def approval_mode(mode: str) -> gates_pb2.ApprovalMode.ValueType:
    """What a gate of type `pr_approval` looks at."""
    return _APPROVAL_MODES.get(mode, gates_pb2.APPROVAL_MODE_UNSPECIFIED)


def render_vote(vote: VoteRow) -> gates_pb2.GateVote:
    """What one principal said."""
    return gates_pb2.GateVote(
        principal=vote.principal,
        decision=_DECISIONS.get(vote.decision, gates_pb2.GATE_DECISION_UNSPECIFIED),
        feedback=vote.feedback or "",
        selections=vote.selections or (),
        on_behalf_of=vote.on_behalf_of or "",
        time=timestamp(vote.at),
    )

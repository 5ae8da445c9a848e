"""Calls of GateService."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runkon.v1 import gates_pb2
from runkon_client.calls.call import Call, Page, encode_span, mint_request_id, reader
from runkon_client.calls.texts import require_fields, require_many
from runkon_client.decode import decode_gate
from runkon_client.errors import Code, NotFoundError
from runkon_client.values import GateState, ReportedPullRequest, ReviewDecision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from runkon_client import values
    from runkon_client.values import PullRequest


@dataclass(frozen=True, slots=True)
class GateFilter:
    """Which gates a list holds: those that everything given holds for."""

    run_id: str = ""
    type: str = ""
    workflow_name: str = ""
    state: values.GateState | None = None
    min_age: timedelta | None = None


def list_gates(namespace: str, wanted: GateFilter, token: str) -> Call[Page[values.Gate]]:
    """ListGates."""
    state = gates_pb2.GATE_STATE_UNSPECIFIED
    if wanted.state is not None:
        state = gates_pb2.GateState.Value(f"GATE_STATE_{wanted.state.name}")
    return Call(
        "/runkon.v1.GateService/ListGates",
        gates_pb2.ListGatesRequest(
            namespace=namespace,
            run_id=wanted.run_id,
            type=wanted.type,
            workflow_name=wanted.workflow_name,
            state=state,
            min_age=encode_span(wanted.min_age) if wanted.min_age is not None else None,
            page_token=token,
        ),
        reader(
            gates_pb2.ListGatesResponse,
            lambda answer: Page(tuple(map(decode_gate, answer.gates)), answer.next_page_token),
        ),
    )


def get_gate(namespace: str, gate_id: str) -> Call[values.Gate]:
    """GetGate."""
    return Call(
        "/runkon.v1.GateService/GetGate",
        gates_pb2.GetGateRequest(namespace=namespace, gate_id=gate_id),
        reader(gates_pb2.GetGateResponse, lambda answer: decode_gate(answer.gate)),
    )


@dataclass(frozen=True, slots=True)
class Vote:
    """What to say at a gate."""

    approve: bool
    feedback: str = ""
    selections: Sequence[str] = ()
    on_behalf_of: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class GateTarget:
    """Which gate: by its id, or else by its run and its name there."""

    gate_id: str = ""
    run_id: str = ""
    gate_name: str = ""

    def __post_init__(self) -> None:
        require_fields(self)

    def found_in(self, gates: Sequence[values.Gate]) -> GateTarget:
        """The same gate by its id, out of its run's: the pending one, or else the latest.

        Raises:
            NotFoundError: the run has had no gate of that name.
        """
        named = [gate for gate in gates if gate.name == self.gate_name]
        if not named:
            raise NotFoundError(
                f"run {self.run_id} has had no gate {self.gate_name}",
                code=Code.NOT_FOUND,
                reason="GATE_NOT_FOUND",
            )
        pending = [gate for gate in named if gate.state is GateState.PENDING]
        # Each group of a list comes oldest first.
        return GateTarget(gate_id=(pending or named)[-1].id)


def resolve_gate(namespace: str, target: GateTarget, vote: Vote) -> Call[values.Gate]:
    """ResolveGate."""
    require_fields(vote)
    require_many("selections", vote.selections)
    request = gates_pb2.ResolveGateRequest(
        namespace=namespace,
        request_id=vote.request_id or mint_request_id(),
        decision=(
            gates_pb2.GATE_DECISION_APPROVE if vote.approve else gates_pb2.GATE_DECISION_REJECT
        ),
        feedback=vote.feedback,
        selections=vote.selections,
        on_behalf_of=vote.on_behalf_of,
    )
    _aim(request, target)
    return Call(
        "/runkon.v1.GateService/ResolveGate",
        request,
        reader(gates_pb2.ResolveGateResponse, lambda answer: decode_gate(answer.gate)),
    )


def report_pull_request(
    namespace: str, target: GateTarget, seen: PullRequest, request_id: str
) -> Call[ReportedPullRequest]:
    """ReportPullRequest."""
    request = gates_pb2.ReportPullRequestRequest(
        namespace=namespace,
        request_id=request_id or mint_request_id(),
        pull_request=_encode_pull_request(seen),
    )
    _aim(request, target)
    return Call(
        "/runkon.v1.GateService/ReportPullRequest",
        request,
        reader(
            gates_pb2.ReportPullRequestResponse,
            lambda answer: ReportedPullRequest(decode_gate(answer.gate), answer.pending_reason),
        ),
    )


def _aim(
    request: gates_pb2.ResolveGateRequest | gates_pb2.ReportPullRequestRequest,
    target: GateTarget,
) -> None:
    if target.gate_id:
        request.gate_id = target.gate_id
    else:
        request.run_gate.gate_name = target.gate_name
        request.run_gate.run_id = target.run_id


def _encode_pull_request(seen: PullRequest) -> gates_pb2.PullRequest:
    decision = gates_pb2.REVIEW_DECISION_UNSPECIFIED
    if seen.review_decision is not ReviewDecision.UNKNOWN:
        decision = gates_pb2.ReviewDecision.Value(f"REVIEW_DECISION_{seen.review_decision.name}")
    return gates_pb2.PullRequest(
        head_commit=seen.head_commit,
        author=seen.author,
        approvals=[
            gates_pb2.PullRequestApproval(reviewer=each.reviewer, commit=each.commit)
            for each in seen.approvals
        ],
        review_decision=decision,
        checks=[
            gates_pb2.PullRequestCheck(
                name=each.name, state=gates_pb2.CheckState.Value(f"CHECK_STATE_{each.state.name}")
            )
            for each in seen.checks
        ],
        url=seen.url,
    )

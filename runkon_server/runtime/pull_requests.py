"""ReportPullRequest: judged under the run's lock by whichever replica is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server import errors
from runkon_server.core import pull_requests as core
from runkon_server.core.facts import GateDecision
from runkon_server.runtime.commands import PullRequestReported
from runkon_server.runtime.entries import CallEntry, find_run
from runkon_server.runtime.settling import Resolution, require_open, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.commands import PullRequest, ReportPullRequest
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedGate, LockedRun, NewRequest, Wants

GATE_TYPES: Final = frozenset({"pr_approval", "pr_checks"})


class PullRequestEntry(CallEntry[PullRequestReported]):
    """Approves the gate in the reporter's name if the report satisfies it; never rejects."""

    __slots__ = ("_command", "_gate_id", "_recorded", "_then")

    def __init__(
        self,
        run_id: str,
        gate_id: str,
        command: ReportPullRequest,
        request: NewRequest | None,
        then: Callable[[FactRecorded], None],
    ) -> None:
        super().__init__(run_id, request)
        self._gate_id = gate_id
        self._command = command
        self._then = then
        self._recorded: FactRecorded | None = None

    def want(self, wants: Wants) -> None:
        super().want(wants)
        wants.runs.add(self.run_id)
        wants.gates.add(self._gate_id)

    def replay(self, response: dict[str, Any]) -> PullRequestReported:
        return PullRequestReported(**{**response, "replayed": True})

    def decide(self, batch: Batch) -> None:
        self._recorded = None
        try:
            run = find_run(batch, self.run_id, self._command.namespace)
            gate = batch.locked.gates.get(self._gate_id)
            if gate is None:
                raise errors.GateNotFoundError(self._gate_id)
            self.answer = self._judge(batch, run, gate)
        except errors.RunkonError as error:
            self.refusal = error
        else:
            self._remember(batch, self.answer)

    def _judge(self, batch: Batch, run: LockedRun, gate: LockedGate) -> PullRequestReported:
        command = self._command
        if gate.gate_type not in GATE_TYPES:
            raise errors.GateTypeMismatchError(gate.id, gate_type=gate.gate_type)
        if gate.state == "approved":
            return PullRequestReported(run_id=run.id, gate_id=gate.id, replayed=True)
        require_open(run, gate)
        missing = core.judge(
            gate_type=gate.gate_type,
            min_approvals=gate.min_approvals,
            approval_mode=gate.approval_mode,
            pull_request=_seen(command.pull_request),
        )
        if missing is None:
            found = Resolution(
                decision=GateDecision.APPROVED,
                resolved_by=command.principal,
                feedback=command.pull_request.url or None,
            )
            self._recorded = settle(batch, run, gate, found)
        return PullRequestReported(run_id=run.id, gate_id=gate.id, pending_reason=missing or "")

    def _remember(self, batch: Batch, answer: PullRequestReported) -> None:
        """Store what only the rows under lock could tell."""
        if self.request is None or not answer.pending_reason:
            return
        response = {
            "run_id": answer.run_id,
            "gate_id": answer.gate_id,
            "pending_reason": answer.pending_reason,
        }
        batch.writes.responses.append(
            {
                "namespace": self.request.namespace,
                "request_id": self.request.request_id,
                "response": response,
            }
        )

    def committed(self, batch: Batch) -> None:
        if self._recorded is not None:
            self._then(self._recorded)
        super().committed(batch)


def _seen(pull_request: PullRequest) -> core.PullRequest:
    decision = pull_request.review_decision
    return core.PullRequest(
        head_commit=pull_request.head_commit,
        author=pull_request.author,
        approvals=tuple(core.Approval(*each) for each in pull_request.approvals),
        review_decision=core.ReviewDecision(decision or core.ReviewDecision.UNKNOWN),
        checks=tuple(
            core.Check(name, core.CheckState(state)) for name, state in pull_request.checks
        ),
    )

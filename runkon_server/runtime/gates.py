"""Gates: votes and deadlines, decided under the run's lock by whichever replica is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from runkon_server import errors
from runkon_server.core.facts import GateDecision
from runkon_server.core.gates import Vote, tally
from runkon_server.failpoints import failpoint
from runkon_server.runtime.commands import GateResolved
from runkon_server.runtime.entries import CallEntry, Entry, find_run
from runkon_server.runtime.settling import (
    Resolution,
    is_about_to_close,
    last_words,
    require_open,
    settle,
    wrong_selections,
)
from runkon_server.store.locking import LockedVote
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.commands import ResolveGate
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedGate, LockedRun, NewRequest, Wants

log = structlog.get_logger(__name__)

EARLY_PAUSE_S: Final = 0.05
FAILED_PAUSE_S: Final = 1.0


class GateVoteEntry(CallEntry[GateResolved]):
    """One principal's vote; the vote that completes the tally decides the gate.

    First decision wins; the identical vote again is answered like the first; any other vote on a
    decided gate is refused naming the winner.
    """

    __slots__ = ("_command", "_gate_id", "_recorded", "_then")

    def __init__(
        self,
        run_id: str,
        gate_id: str,
        command: ResolveGate,
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

    def replay(self, response: dict[str, Any]) -> GateResolved:
        return GateResolved(run_id=response["run_id"], gate_id=response["gate_id"], replayed=True)

    def decide(self, batch: Batch) -> None:
        self._recorded = None
        try:
            run = find_run(batch, self.run_id, self._command.namespace)
            gate = batch.locked.gates.get(self._gate_id)
            if gate is None:
                raise errors.GateNotFoundError(self._gate_id)
            self._vote(batch, run, gate)
        except errors.RunkonError as error:
            self.refusal = error
        else:
            self.answer = GateResolved(run_id=self.run_id, gate_id=self._gate_id)

    def _vote(self, batch: Batch, run: LockedRun, gate: LockedGate) -> None:
        command = self._command
        decision = "approve" if command.approve else "reject"
        wrong = wrong_selections(gate, command.selections)
        if wrong:
            raise errors.GateSelectionInvalidError(wrong, [key for key, _ in gate.options or ()])
        mine = next((v for v in gate.votes if v.principal == command.principal), None)
        if mine is not None and _same(mine, command, decision):
            return
        if gate.exclude_starter and command.principal == run.started_by:
            raise errors.GateStarterExcludedError(gate.id, principal=command.principal)
        require_open(run, gate)
        if mine is not None:
            raise errors.GateAlreadyResolvedError(
                gate.id, decision=f"{mine.decision} voted", resolved_by=mine.principal
            )
        selections = list(command.selections) or None
        gate.votes.append(LockedVote(command.principal, decision, command.feedback, selections))
        vote = {
            "principal": command.principal,
            "decision": decision,
            "feedback": command.feedback,
            "selections": selections,
            "on_behalf_of": command.on_behalf_of,
        }
        row = {"run_id": run.id, "gate_id": gate.id, "n": len(gate.votes), **vote}
        batch.writes.votes.append(row)
        if gate.approvers > 1:
            voted = {"gate_id": gate.id, "gate_name": gate.name, "vote": vote}
            batch.append_event(run, "gate_voted", to_json(voted))
        verdict = tally(
            approvers=gate.approvers,
            exclude_starter=gate.exclude_starter,
            starter=run.started_by,
            votes=[
                Vote(principal=v.principal, approve=v.decision == "approve", feedback=v.feedback)
                for v in gate.votes
            ],
        )
        if verdict is not None:
            feedback, selections = last_words(gate)
            self._recorded = settle(
                batch,
                run,
                gate,
                Resolution(
                    decision=verdict,
                    resolved_by=command.principal,
                    on_behalf_of=command.on_behalf_of,
                    feedback=feedback,
                    selections=selections,
                ),
            )

    def committed(self, batch: Batch) -> None:
        failpoint("gate.voted")
        if self._recorded is not None:
            self._then(self._recorded)
        super().committed(batch)


class GateTimeoutEntry(Entry):
    """Decides a gate whose deadline has passed, unless somebody else has.

    Args:
        again: called with the seconds after which to look again, when the gate may still be open:
            it was not due by the database's clock, or nobody knows.
    """

    __slots__ = ("_again", "_gate_id", "_is_early", "_recorded", "_then", "_timer_id")

    def __init__(
        self,
        run_id: str,
        timer_id: str,
        then: Callable[[FactRecorded], None],
        again: Callable[[float], None],
    ) -> None:
        super().__init__(run_id)
        self._timer_id = timer_id
        self._gate_id = timer_id.removesuffix(":gate")
        self._then = then
        self._again = again
        self._recorded: FactRecorded | None = None
        self._is_early = False

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        wants.gates.add(self._gate_id)

    def apply(self, batch: Batch) -> None:
        self._recorded = None
        self._is_early = False
        run = batch.locked.runs.get(self.run_id)
        gate = batch.locked.gates.get(self._gate_id)
        if run is None or run.is_terminal or gate is None or gate.state != "pending":
            return
        if is_about_to_close(run, gate):
            return
        if gate.is_due:
            feedback, selections = last_words(gate)
            found = Resolution(
                decision=GateDecision.TIMED_OUT, feedback=feedback, selections=selections
            )
            self._recorded = settle(batch, run, gate, found)
            # The core takes a timer that fired for gone; left there, it would wake the run again.
            batch.writes.cleared_timers.append(self._timer_id)
        else:
            self._is_early = True

    def committed(self, batch: Batch) -> None:
        failpoint("gate.timed_out")
        if self._recorded is not None:
            self._then(self._recorded)
        if self._is_early:
            self._again(EARLY_PAUSE_S)

    def failed(self, error: Exception) -> None:
        log.warning("gate.timeout_failed", run_id=self.run_id, error=str(error))
        self._again(FAILED_PAUSE_S)


def _same(vote: LockedVote, command: ResolveGate, decision: str) -> bool:
    return (
        vote.decision == decision
        and vote.feedback == command.feedback
        and (vote.selections or []) == list(command.selections)
    )

"""Looks at gates by workers, as far as they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server import errors
from runkon_server.core.facts import Outcome, Reported
from runkon_server.failpoints import failpoint
from runkon_server.runtime.commands import ACCEPTED, AckStatus, Verdict
from runkon_server.runtime.entries import Entry
from runkon_server.runtime.reports import judge_report, misfit, not_recorded, stale
from runkon_server.runtime.settling import Resolution, require_open, settle, wrong_selections

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.core.facts import GateDecided
    from runkon_server.runtime.commands import Acknowledge, TaskReport
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedGate, LockedRun, Wants


class LookEntry(Entry):
    """A worker's look at a gate that decides it, if the gate allows; else the report is stale."""

    __slots__ = ("_acknowledge", "_namespace", "_recorded", "_report", "_then", "verdict")

    def __init__(
        self,
        run_id: str,
        namespace: str,
        report: TaskReport,
        acknowledge: Acknowledge | None,
        then: Callable[[FactRecorded], None],
    ) -> None:
        super().__init__(run_id)
        self._namespace = namespace
        self._report = report
        self._acknowledge = acknowledge
        self._then = then
        self._recorded: FactRecorded | None = None
        self.verdict = not_recorded()

    @property
    def _decision(self) -> GateDecided:
        assert self._report.gate_decision is not None
        return self._report.gate_decision

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        wants.tasks.add(self._report.fact.task_id)
        wants.gates.add(self._decision.gate_id)

    def apply(self, batch: Batch) -> None:
        self._recorded = None
        task_id = self._report.fact.task_id
        run = batch.locked.runs.get(self.run_id)
        task = batch.locked.tasks.get(task_id)
        if run is None or run.namespace != self._namespace:
            self.verdict = Verdict(AckStatus.REFUSED, errors.TaskNotFoundError(task_id))
            return
        self.verdict = judge_report(task, self._report)
        if self.verdict is not ACCEPTED or task is None:
            return
        gate = batch.locked.gates.get(self._decision.gate_id)
        is_asked = task.kind == "gate" and gate is not None and task_id.startswith(f"{gate.id}#")
        if run.is_terminal:
            self.verdict = stale(task_id, f"of a run that is {run.status}")
            return
        task.state, task.digest = "done", self._report.digest
        batch.writes.task_ends.append(
            {"run_id": run.id, "id": task_id, "state": "done", "digest": self._report.digest}
        )
        if not is_asked or gate is None:
            fact = misfit(task.kind, self._report.fact) or _invalid(task_id, "of another gate")
            self._recorded = batch.record_fact(run, fact)
        else:
            self._recorded = self._decide(batch, run, gate)

    def _decide(self, batch: Batch, run: LockedRun, gate: LockedGate) -> FactRecorded | None:
        decided, task_id = self._decision, self._report.fact.task_id
        try:
            require_open(run, gate)
        except errors.RunkonError:  # somebody else was quicker: there is nothing to tell any more
            return batch.record_fact(run, self._report.fact)
        wrong = wrong_selections(gate, decided.selections)
        if wrong:
            return batch.record_fact(run, _invalid(task_id, f"no options are {wrong}"))
        found = Resolution(
            decision=decided.decision,
            resolved_by=decided.decided_by,
            feedback=decided.feedback,
            selections=list(decided.selections) or None,
            poll_id=task_id,
        )
        return settle(batch, run, gate, found)

    def committed(self, batch: Batch) -> None:
        failpoint("look.recorded")
        if self._recorded is not None:
            self._then(self._recorded)
        if self._acknowledge is not None:
            self._acknowledge(self.verdict)

    def failed(self, error: Exception) -> None:
        if self._acknowledge is not None:
            self._acknowledge(not_recorded())


def _invalid(task_id: str, why: str) -> Reported:
    return Reported(
        task_id=task_id,
        outcome=Outcome.FAILED,
        error=f"the worker's answer is not possible: {why}",
        error_code="OUTPUT_INVALID",
        retryable=False,
    )

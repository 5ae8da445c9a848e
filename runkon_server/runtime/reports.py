"""Reports of workers: which count, and how one is recorded when its run is not in memory here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server import errors
from runkon_server.core.facts import GatePolled, ItemsCollected, Outcome, Reported
from runkon_server.failpoints import failpoint
from runkon_server.runtime.commands import ACCEPTED, AckStatus, Verdict
from runkon_server.runtime.entries import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.core.facts import Fact
    from runkon_server.runtime.commands import Acknowledge, TaskReport
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedTask, Wants


def judge_report(task: LockedTask | None, report: TaskReport) -> Verdict:
    """What a report is worth, given the task's row under lock.

    The first report under the newest token wins; the same again is a duplicate, another outcome is
    refused, an older token is stale.
    """
    task_id = report.fact.task_id
    if task is not None and report.by_server:
        return ACCEPTED if task.state == "queued" else stale(task_id, "a worker has it")
    if task is None or (task.delivery == 0 and task.token != report.token):
        return Verdict(AckStatus.REFUSED, errors.TaskNotFoundError(task_id))
    if task.token != report.token:
        return stale(task_id, "handed out again")
    if task.state == "leased":
        return ACCEPTED
    if task.state == "done":
        if task.digest == report.digest:
            return Verdict(AckStatus.DUPLICATE)
        return Verdict(AckStatus.REFUSED, errors.ReportConflictError(task_id))
    return stale(task_id, task.state)


def judge_second(first: TaskReport, report: TaskReport) -> Verdict:
    """What a report is worth that comes together with another one on the same task."""
    if first.digest == report.digest:
        return Verdict(AckStatus.DUPLICATE)
    return Verdict(AckStatus.REFUSED, errors.ReportConflictError(report.fact.task_id))


def misfit(kind: str, fact: Fact) -> Reported | None:
    """What stands for an answer to another question than the task asked; None: the answer fits."""
    match fact:
        case ItemsCollected() if kind == "items":
            return None
        case GatePolled() if kind == "gate":
            return None
        case Reported() if kind in {"action", "script"} or fact.outcome is not Outcome.COMPLETED:
            return None
        case Reported() | ItemsCollected() | GatePolled():
            return Reported(
                task_id=fact.task_id,
                outcome=Outcome.FAILED,
                error=f"the task is of the kind `{kind}`, which asks for another answer",
                error_code="OUTPUT_INVALID",
                retryable=False,
            )
        case _:
            return None


def stale(task_id: str, state: str) -> Verdict:
    """The report comes too late to count."""
    return Verdict(AckStatus.STALE, errors.TaskAttemptStaleError(task_id, state=state))


def not_recorded() -> Verdict:
    """The report may be sent again."""
    return Verdict(AckStatus.REFUSED, errors.UnavailableError("not recorded; report again"))


class ReportEntry(Entry):
    """Records a report as a fact for whoever owns the run; an unowned run is taken with it."""

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

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        wants.tasks.add(self._report.fact.task_id)

    def apply(self, batch: Batch) -> None:
        self._recorded = None
        run = batch.locked.runs.get(self.run_id)
        task = batch.locked.tasks.get(self._report.fact.task_id)
        if run is None or run.namespace != self._namespace:
            self.verdict = Verdict(
                AckStatus.REFUSED, errors.TaskNotFoundError(self._report.fact.task_id)
            )
            return
        self.verdict = judge_report(task, self._report)
        if self.verdict is not ACCEPTED or task is None:
            return
        if run.is_terminal:
            self.verdict = stale(task.id, f"of a run that is {run.status}")
            return
        task.state, task.digest = "done", self._report.digest
        batch.writes.task_ends.append(
            {"run_id": run.id, "id": task.id, "state": "done", "digest": self._report.digest}
        )
        fact = self._report.fact
        self._recorded = batch.record_fact(run, misfit(task.kind, fact) or fact)

    def committed(self, batch: Batch) -> None:
        failpoint("report.recorded")
        if self._recorded is not None:
            self._then(self._recorded)
        if self._acknowledge is not None:
            self._acknowledge(self.verdict)

    def failed(self, error: Exception) -> None:
        if self._acknowledge is not None:
            self._acknowledge(not_recorded())

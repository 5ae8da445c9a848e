"""Reports of workers: which count, and how one is recorded when its run is not in memory here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.runtime.commands import AckStatus
from runkon_server.runtime.entries import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.commands import TaskReport
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedTask, Wants

UNKNOWN_TASK = "no such task, or the token was never issued for it"


def judge_report(task: LockedTask | None, report: TaskReport) -> tuple[AckStatus, str]:
    """What a report is worth, given the task's row under lock.

    The first report under the newest token wins; the same again is a duplicate, another outcome is
    refused, an older token is stale.
    """
    if task is not None and report.by_server:
        waiting = task.state == "queued"
        return (AckStatus.ACCEPTED, "") if waiting else (AckStatus.STALE, "a worker has it")
    if task is None or (task.delivery == 0 and task.token != report.token):
        return AckStatus.REFUSED, UNKNOWN_TASK
    if task.token != report.token:
        return AckStatus.STALE, "the task was handed out again"
    if task.state == "leased":
        return AckStatus.ACCEPTED, ""
    if task.state == "done":
        if task.digest == report.digest:
            return AckStatus.DUPLICATE, ""
        return AckStatus.REFUSED, "already reported with another outcome"
    return AckStatus.STALE, f"the task is {task.state}"


class ReportEntry(Entry):
    """Records a report as a fact for whoever owns the run; an unowned run is taken with it."""

    __slots__ = ("_acknowledge", "_namespace", "_recorded", "_report", "_then", "status")

    def __init__(
        self,
        run_id: str,
        namespace: str,
        report: TaskReport,
        acknowledge: Callable[[AckStatus, str], None] | None,
        then: Callable[[FactRecorded], None],
    ) -> None:
        super().__init__(run_id)
        self._namespace = namespace
        self._report = report
        self._acknowledge = acknowledge
        self._then = then
        self._recorded: FactRecorded | None = None
        self.status = (AckStatus.STALE, "")

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        wants.tasks.add(self._report.fact.task_id)

    def apply(self, batch: Batch) -> None:
        self._recorded = None
        run = batch.locked.runs.get(self.run_id)
        task = batch.locked.tasks.get(self._report.fact.task_id)
        if run is None or run.namespace != self._namespace:
            self.status = (AckStatus.REFUSED, UNKNOWN_TASK)
            return
        self.status = judge_report(task, self._report)
        if self.status[0] is not AckStatus.ACCEPTED or task is None:
            return
        if run.is_terminal:
            self.status = (AckStatus.STALE, f"the run is {run.status}")
            return
        task.state, task.digest = "done", self._report.digest
        batch.writes.task_ends.append(
            {"run_id": run.id, "id": task.id, "state": "done", "digest": self._report.digest}
        )
        self._recorded = batch.record_fact(run, self._report.fact)

    def committed(self, batch: Batch) -> None:
        if self._recorded is not None:
            self._then(self._recorded)
        if self._acknowledge is not None:
            self._acknowledge(*self.status)

    def failed(self, error: Exception) -> None:
        if self._acknowledge is not None:
            self._acknowledge(AckStatus.REFUSED, f"not recorded, report again: {error}")

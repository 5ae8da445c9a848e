"""CancelRun: recorded by any replica; the run says `cancelling` from that commit on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon_server import errors
from runkon_server.core.facts import CancelAsked
from runkon_server.failpoints import failpoint
from runkon_server.runtime.commands import RunCancelled
from runkon_server.runtime.entries import CallEntry, find_run
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.commands import CancelRun
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.store.locking import LockedRun, NewRequest, Wants


def ask_to_stop(
    batch: Batch, run: LockedRun, *, reason: str, force: bool, requested_by: str
) -> FactRecorded | None:
    """Record that a run is to stop, unless it is over or has been asked before.

    Only `force` is worth recording a second time.
    """
    if run.is_terminal or (run.status == "cancelling" and not force):
        return None
    run.status = "cancelling"
    told = {"reason": reason, "force": force, "requested_by": requested_by}
    batch.append_event(run, "run_cancel_requested", to_json(told))
    return batch.record_fact(run, CancelAsked(reason=reason, force=force))


class CancelEntry(CallEntry[RunCancelled]):
    """Asks a run to stop. A run that is cancelled or cancelling answers OK."""

    __slots__ = ("_command", "_recorded", "_then")

    def __init__(
        self,
        command: CancelRun,
        request: NewRequest | None,
        then: Callable[[FactRecorded], None],
    ) -> None:
        super().__init__(command.run_id, request)
        self._command = command
        self._then = then
        self._recorded: FactRecorded | None = None

    def want(self, wants: Wants) -> None:
        super().want(wants)
        wants.runs.add(self.run_id)

    def replay(self, response: dict[str, Any]) -> RunCancelled:
        return RunCancelled(run_id=response["run_id"], replayed=True)

    def decide(self, batch: Batch) -> None:
        self._recorded = None
        command = self._command
        try:
            run = find_run(batch, self.run_id, command.namespace)
        except errors.RunNotFoundError as error:
            self.refusal = error
            return
        if run.status in {"completed", "failed"}:
            self.refusal = errors.RunStateError(run.id, status=run.status, wish="cancelled")
            return
        self.answer = RunCancelled(run_id=run.id)
        self._recorded = ask_to_stop(
            batch, run, reason=command.reason, force=command.force, requested_by=command.principal
        )

    def committed(self, batch: Batch) -> None:
        failpoint("cancel.recorded")
        if self._recorded is not None:
            self._then(self._recorded)
        super().committed(batch)

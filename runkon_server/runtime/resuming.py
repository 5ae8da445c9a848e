"""Taking a finished run up again: decided on its rows, committed if they are still the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runkon_server import errors
from runkon_server.core.engine import ResumeRefusal, ResumeRefusedError
from runkon_server.failpoints import failpoint
from runkon_server.runtime.actors import Actor
from runkon_server.runtime.budgets import EVENTS_MAX
from runkon_server.runtime.commands import RunResumed
from runkon_server.runtime.entries import CallEntry, find_run
from runkon_server.store.locking import TERMINAL
from runkon_server.store.reads.requests import stored_request
from runkon_server.store.reads.runs import runs_by_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.core.decision import Decision
    from runkon_server.core.engine import ResumeMode
    from runkon_server.runtime.actors import DecisionEntry
    from runkon_server.runtime.commands import ResumeRun
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.programs import Program
    from runkon_server.runtime.registry import Registry
    from runkon_server.store.loading import LoadedRun
    from runkon_server.store.locking import LockedRun, NewRequest, Wants

ATTEMPTS_MAX: Final = 5
_STATES: Final = {
    ResumeRefusal.LIVE: "only a run that has ended is resumed",
    ResumeRefusal.CANCELLED: "that is final, start a new one",
    ResumeRefusal.COMPLETED: "only mode RESTART repeats it",
}
"""What the run's status alone forbids, and what to add to it."""


class Resumption:
    """The first decision of a new epoch, and the run as it was when it was made."""

    __slots__ = ("_entry", "_loaded", "actor")

    def __init__(
        self,
        registry: Registry,
        loaded: LoadedRun,
        program: Program,
        decision: Decision,
        resumed_by: str,
    ) -> None:
        self._loaded = loaded
        actor = Actor(
            registry,
            loaded.rows.run.run_id,
            loaded.info,
            loaded.info.generation + 1,
            decision.state,
            program,
        )
        actor.resumed_by = resumed_by
        self.actor = actor
        self._entry = actor.enter(decision)

    @property
    def entry(self) -> DecisionEntry:
        """The decision, with its orders made ready by `Registry.prepare_resume`."""
        return self._entry

    @property
    def epoch(self) -> int:
        """The epoch that it opens."""
        return self.actor.state.setup.epoch

    def want(self, wants: Wants) -> None:
        """Name the rows to lock."""
        self._entry.want(wants)

    def is_current(self, run: LockedRun, timeline: int) -> bool:
        """Whether the run is as it was, on the same server's word."""
        info, record = self._loaded.info, self._loaded.rows.run
        return (run.epoch, run.last_seq, run.status, timeline) == (
            record.epoch,
            info.last_seq,
            record.status,
            self._loaded.timeline,
        )

    def write_to(self, batch: Batch, run: LockedRun) -> None:
        """Open the epoch."""
        entry = self._entry
        run.epoch = self.epoch
        run.generation += 1
        run.owner_token = batch.owner_token
        run.changes.update(lease="take", epoch=run.epoch, reopens=True)
        self.actor.generation = entry.generation = run.generation
        self.actor.applied_fact_seq = entry.applied_fact_seq = run.fact_seq
        entry.write_to(batch, run)

    def committed(self, batch: Batch) -> None:
        """Go on with the run here."""
        self.actor.registry.started(self._entry, batch)

    def release(self, registry: Registry, *, may_be_written: bool = False) -> None:
        """It was not committed, as `Registry.unassign`."""
        registry.unassign(self._entry, may_be_written=may_be_written)


class ResumeEntry(CallEntry[RunResumed]):
    """Opens a new epoch of a run that has ended, unless something changed since it was read.

    Args:
        key: the run's key, which another live run may hold by now.
    """

    __slots__ = ("_command", "_is_written", "_key", "_resumption", "is_outdated")

    def __init__(
        self,
        command: ResumeRun,
        request: NewRequest | None,
        resumption: Resumption,
        key: str | None,
    ) -> None:
        super().__init__(command.run_id, request)
        self._command = command
        self._resumption = resumption
        self._key = key
        self._is_written = False
        self.is_outdated = False
        """The run is not as it was read; ask again."""

    @property
    def exclusive(self) -> tuple[tuple[str, ...], ...]:
        if self._key is None:
            return super().exclusive
        return (*super().exclusive, ("key", self._command.namespace, self._key))

    def want(self, wants: Wants) -> None:
        super().want(wants)
        wants.runs.add(self.run_id)
        self._resumption.want(wants)
        if self._key is not None:
            wants.run_keys[(self._command.namespace, self._key)] = self.run_id

    def replay(self, response: dict[str, Any]) -> RunResumed:
        return RunResumed(run_id=response["run_id"], replayed=True)

    def apply(self, batch: Batch) -> None:
        self._is_written = self.is_outdated = False
        super().apply(batch)

    def decide(self, batch: Batch) -> None:
        try:
            run = find_run(batch, self.run_id, self._command.namespace)
            if not batch.may_take:
                raise errors.DatabaseUnavailableError
            # A parent waits for the end of the epoch that it knows: it has to hear of that first.
            is_current = self._resumption.is_current(run, batch.locked.timeline)
            if not is_current or not run.parent_notified:
                self.is_outdated = True
                raise errors.ConflictError
            self._take_key(batch)
        except errors.RunkonError as error:
            self.refusal = error
            return
        self._resumption.write_to(batch, run)
        self._is_written = True
        self.answer = RunResumed(run_id=run.id)

    def _take_key(self, batch: Batch) -> None:
        """Make the run the one that its key names, unless another live one is."""
        if self._key is None:
            return
        name = (self._command.namespace, self._key)
        holder, status = batch.locked.keys[name]
        if holder == self.run_id:
            return
        if status is not None and status not in TERMINAL:
            raise errors.RunKeyInUseError(self._key, run_id=holder)
        batch.writes.keys.append({"namespace": name[0], "key": self._key, "run_id": self.run_id})

    def committed(self, batch: Batch) -> None:
        if self._is_written:
            failpoint("resume.committed")
            self._resumption.committed(batch)
        else:
            self._resumption.release(self._resumption.actor.registry)
        super().committed(batch)

    def failed(self, error: Exception) -> None:
        self._resumption.release(self._resumption.actor.registry, may_be_written=True)
        super().failed(error)


def as_domain_error(
    error: ResumeRefusedError, run_id: str, status: str, mode: ResumeMode, step_id: str | None
) -> errors.RunkonError:
    """What a caller is told of a resume that the core refuses."""
    if error.refusal in _STATES:
        wish = f"resumed: {_STATES[error.refusal]}"
        return errors.RunStateError(run_id, status=status, wish=wish)
    if error.refusal is ResumeRefusal.UNKNOWN_STEP:
        return errors.StepNotFoundError(step_id or "")
    return errors.ResumeRefusedError(run_id, status=status, mode=mode.value, why=str(error))


class Resumer:
    """Reads a run, decides how it goes on and commits that, until nothing came in between."""

    def __init__(self, registry: Registry, reads: AsyncEngine) -> None:
        self._registry = registry
        self._reads = reads

    async def resume(self, command: ResumeRun, request: NewRequest | None) -> RunResumed:
        """As `Engine.resume_run`."""
        for _ in range(ATTEMPTS_MAX):
            stored = await self._stored(request)
            if stored is not None:
                return stored
            resumption, key = await self._prepare(command)
            failpoint("resume.prepared")
            entry = ResumeEntry(command, request, resumption, key)
            self._registry.submit(entry)
            try:
                return await entry.future
            except errors.ConflictError:
                if not entry.is_outdated:
                    raise
                self._registry.notifier.tell(command.run_id)
                await self._registry.pause()
        raise errors.ConflictError

    async def _stored(self, request: NewRequest | None) -> RunResumed | None:
        """The first answer, if there is one: a run that was resumed is not as it was before."""
        if request is None:
            return None
        async with self._reads.connect() as conn:
            stored = await stored_request(
                conn, namespace=request.namespace, request_id=request.request_id
            )
        if stored is None:
            return None
        if stored.digest != request.digest:
            raise errors.RequestIdReusedError(request.request_id)
        return RunResumed(run_id=stored.response["run_id"], replayed=True)

    async def _prepare(self, command: ResumeRun) -> tuple[Resumption, str | None]:
        async with self._reads.connect() as conn:
            row = (await runs_by_id(conn, [command.run_id])).get(command.run_id)
        if row is None or row.namespace != command.namespace:
            raise errors.RunNotFoundError(command.run_id)
        if row.last_seq >= EVENTS_MAX:
            raise errors.ResumeRefusedError(
                row.id, status=row.status, mode=command.mode.value, why="it has no events left"
            )
        try:
            resumption = await self._registry.prepare_resume(
                row.id, command.mode, command.from_step_id, command.principal
            )
        except ResumeRefusedError as error:
            raise as_domain_error(
                error, row.id, row.status, command.mode, command.from_step_id
            ) from None
        return resumption, row.key

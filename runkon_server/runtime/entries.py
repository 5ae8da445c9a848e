"""What a batch is made of: each entry changes one run, under its lock, or drops out alone.

`apply` runs between the two round trips of a batch. It looks at the locked rows, decides whether
it still wins, and only then adds its writes; a loser adds nothing and the batch goes on. It must
not wait, and must not raise for anything a caller or a race can cause: that is an outcome.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runkon_server import errors
from runkon_server.core import facts as core_facts
from runkon_server.runtime.commands import EventRecord

if TYPE_CHECKING:
    from runkon_server.core.decision import TaskKind
    from runkon_server.store.locking import Locked, LockedRun, NewRequest, Wants
    from runkon_server.store.writing import Writes

AnswerT = TypeVar("AnswerT")


@dataclass(slots=True)
class Batch:
    """One transaction in the making: what is locked, what will be written, what it will say."""

    locked: Locked
    writes: Writes
    owner_token: str
    events: dict[str, list[EventRecord]]
    """Per run, in sequence; told to subscribers after the commit."""
    facts_for_others: set[str]
    """Runs owned by another replica that has to look at new facts."""
    ready_runs: bool = False
    """Whether some run became ready without an owner."""
    queued_tasks: set[tuple[str, str, TaskKind, str]] = field(default_factory=set)
    """Namespace, queue, kind and name of what was queued without a worker."""
    may_take: bool = True
    """Whether this replica may become the owner of runs, see `Tenure.is_standing`."""
    is_hinted: bool = False
    """Whether other replicas hear of it from the transaction's own session."""
    is_announced: bool = False
    """Whether subscribers were told."""

    def append_event(self, run: LockedRun, kind: str, payload: str) -> None:
        """Append a public event to a locked run, taking its next number."""
        seq = run.next_seq()
        self.writes.add_event(
            run.id,
            seq=seq,
            epoch=run.epoch,
            kind=kind,
            generation=run.generation,
            payload=payload,
        )
        record = EventRecord(run.id, seq, run.epoch, kind, self.locked.now, run.generation, payload)
        self.events.setdefault(run.id, []).append(record)
        run.changes.setdefault("lease", "keep")

    def record_fact(self, run: LockedRun, fact: core_facts.Fact) -> FactRecorded:
        """Store a fact for the owner to apply, and see to it that there is one.

        A run without an owner is taken by this replica in the same transaction, or is ready for
        any other if this one may not.
        """
        seq = run.next_fact_seq()
        self.writes.facts.append(
            {
                "run_id": run.id,
                "fact_seq": seq,
                "kind": core_facts.kind_of(fact),
                "payload": core_facts.dump_fact(fact),
            }
        )
        taken = run.owner_token is None and self.may_take
        if taken:
            run.owner_token = self.owner_token
            run.generation += 1
            run.changes["lease"] = "take"
            run.changes["ready"] = "now"
        elif run.owner_token is None:
            run.changes.setdefault("lease", "keep")
            run.changes["ready"] = "now"
            self.ready_runs = True
        else:
            run.changes.setdefault("lease", "keep")
            if run.owner_token != self.owner_token:
                self.facts_for_others.add(run.id)
        return FactRecorded(run.id, seq, fact, run.generation, taken, run.owner_token)


@dataclass(frozen=True, slots=True)
class FactRecorded:
    """A fact that was stored, and who has to apply it."""

    run_id: str
    fact_seq: int
    fact: core_facts.Fact
    generation: int
    taken: bool
    """This replica took the run with the fact and has to load it."""
    owner_token: str | None


class Entry:
    """Base of all entries; `run_id` serialises: two batches in flight never share a run."""

    __slots__ = ("run_id",)

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    @property
    def request(self) -> NewRequest | None:
        """The request id to claim, if the call is idempotent."""
        return None

    @property
    def exclusive(self) -> tuple[tuple[str, ...], ...]:
        """Keys of which a batch may hold only one entry (a request id, a run key)."""
        return ()

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits any more, so that the entry need not be committed."""
        return False

    def want(self, wants: Wants) -> None:
        """Name the rows to lock."""
        raise AssertionError((type(self), wants))

    def apply(self, batch: Batch) -> None:
        """Decide under the lock and add the writes."""
        raise AssertionError((type(self), batch))

    def committed(self, batch: Batch) -> None:
        """The batch is durable. Called once, in the event loop."""

    def failed(self, error: Exception) -> None:
        """The entry will not be committed (or, for `OutcomeUnknownError`, may have been).

        May be called again, and after a `committed` that raised.
        """

    def unavailable(self, reason: errors.UnavailableError) -> None:
        """The database cannot commit it now; it stays queued unless somebody gives it up."""


class CallEntry(Entry, Generic[AnswerT]):
    """An entry that a caller awaits: it ends in an answer or in a domain error.

    Subclasses set `answer` or `refusal` in `apply`.
    """

    __slots__ = ("_request", "answer", "future", "refusal")

    def __init__(self, run_id: str, request: NewRequest | None = None) -> None:
        super().__init__(run_id)
        self._request = request
        self.answer: AnswerT | None = None
        self.refusal: errors.RunkonError | None = None
        self.future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()

    @property
    def request(self) -> NewRequest | None:
        return self._request

    @property
    def exclusive(self) -> tuple[tuple[str, ...], ...]:
        return () if self._request is None else (self._request.key,)

    @property
    def is_given_up(self) -> bool:
        return self.future.done()

    def want(self, wants: Wants) -> None:
        if self._request is not None:
            wants.requests[self._request.key] = self._request

    def apply(self, batch: Batch) -> None:
        """Answer a repeat from the stored response; else decide; a refusal gives the id back."""
        self.answer = None
        self.refusal = None
        request = self._request
        is_new = request is not None and request.key in batch.locked.claimed
        if request is not None and not is_new:
            stored = batch.locked.requests.get(request.key)
            if stored is None or not request.is_repeat_of(stored):
                self.refusal = errors.RequestIdReusedError(request.request_id)
                return
            if not self.takes_up(stored.response):
                self.answer = self.replay(stored.response)
                return
        self.decide(batch)
        if request is not None and is_new and self._is_refused():
            batch.writes.released_requests.append(request.key)

    def takes_up(self, response: dict[str, Any]) -> bool:
        """Whether this carries out what was already answered."""
        return False

    def _is_refused(self) -> bool:
        return self.refusal is not None

    def decide(self, batch: Batch) -> None:
        """Set `answer` or `refusal`, adding writes only with an answer."""
        raise AssertionError((type(self), batch))

    def replay(self, response: dict[str, Any]) -> AnswerT:
        """The first answer again, marked as replayed."""
        raise AssertionError((type(self), response))

    def committed(self, batch: Batch) -> None:
        if self.future.done():
            return
        if self.refusal is not None:
            self.future.set_exception(self.refusal)
        else:
            assert self.answer is not None
            self.future.set_result(self.answer)

    def failed(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def unavailable(self, reason: errors.UnavailableError) -> None:
        self.failed(reason)


def find_run(batch: Batch, run_id: str, namespace: str) -> LockedRun:
    """The locked run, if it is this namespace's.

    Raises:
        RunNotFoundError: it is not, or does not exist; the two look the same.
    """
    run = batch.locked.runs.get(run_id)
    if run is None or run.namespace != namespace:
        raise errors.RunNotFoundError(run_id)
    return run

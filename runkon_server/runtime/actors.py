"""Runs that this replica owns, in memory. An actor is no task and no thread: it moves when pushed.

`offer` hands it a fact; if nothing of its run is being committed it decides at once and submits the
decision, else the fact waits and joins the next one. The state before a decision is kept until the
commit, so a refused decision is simply forgotten and made again on what is true now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.engine import advance, open_tasks, waits_only_for_gates
from runkon_server.core.facts import CancelAsked, GateDecided, TimerDue
from runkon_server.runtime.budgets import EVENTS_MAX
from runkon_server.runtime.changeset import OPEN_STATUSES, Changeset
from runkon_server.runtime.commands import ACCEPTED, AckStatus, Verdict
from runkon_server.runtime.entries import Entry
from runkon_server.runtime.reports import judge_report, judge_second, misfit
from runkon_server.store.queues import queue_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from runkon_server.core.decision import Decision
    from runkon_server.core.facts import Fact, LimitReached
    from runkon_server.core.model import RunState
    from runkon_server.runtime.children import Offspring
    from runkon_server.runtime.commands import Acknowledge, TaskReport
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.notices import Notice
    from runkon_server.runtime.programs import Program
    from runkon_server.runtime.registry import Registry
    from runkon_server.store.loading import RunInfo
    from runkon_server.store.locking import LockedRun, Wants


TIMER_GONE: Final = Verdict(AckStatus.REFUSED)
TIMER_NOT_DUE: Final = Verdict(AckStatus.STALE)
NOTICE_OUTDATED: Final = Verdict(AckStatus.STALE)
MISFIT: Final = Verdict(AckStatus.REFUSED)
"""The report answers another question than the task asked; it counts as a failure instead."""


@dataclass(slots=True)
class Offer:
    """A fact for an actor, and what has to hold under the lock for it to count."""

    fact: Fact
    fact_seq: int | None = None
    """Stored already, under this number."""
    report: TaskReport | None = None
    """The task must be leased under this report's token."""
    timer_id: str | None = None
    """The timer must exist and be due."""
    notice: Notice | None = None
    """The child's row must still say so."""
    acknowledge: Acknowledge | None = None


class Actor:
    """One owned run."""

    __slots__ = (
        "applied_fact_seq",
        "generation",
        "idle_since_s",
        "info",
        "is_committing",
        "limit",
        "pending",
        "pinned",
        "program",
        "registry",
        "resumed_by",
        "run_id",
        "started_at",
        "state",
        "timeline",
        "timers",
    )

    def __init__(  # noqa: PLR0917 - all of it is what a run consists of
        self,
        registry: Registry,
        run_id: str,
        info: RunInfo,
        generation: int,
        state: RunState,
        program: Program,
    ) -> None:
        self.registry = registry
        self.run_id = run_id
        self.info = info
        self.generation = generation
        self.state = state
        self.program = program
        self.resumed_by = ""
        self.limit: LimitReached | None = None
        """Why the run has to end with its next decision."""
        self.pinned: dict[str, tuple[int, Program]] = {}
        """By step id: what the children of a `foreach` run, fixed by the first of them."""
        self.applied_fact_seq = info.applied_fact_seq
        self.pending: list[Offer] = []
        self.is_committing = False
        self.started_at: dict[str, datetime] = {}
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.idle_since_s = 0.0
        self.timeline: int | None = None
        """Of the server whose rows the state rests on; None: on those of its first commit."""

    def offer(self, offer: Offer) -> None:
        """Take a fact; decide now, or with the next decision."""
        self.pending.append(offer)
        self.move()

    def move(self) -> None:
        """Decide on everything that is pending, unless a commit is under way."""
        if self.is_committing:
            return
        # A stored fact may come twice, from who recorded it and from the table; and the first may
        # be applied, or refused and put back, while the second waits here.
        stored: dict[int, Offer] = {}
        direct: list[Offer] = []
        for offer in self.pending:
            if offer.fact_seq is None:
                direct.append(offer)
            elif offer.fact_seq > self.applied_fact_seq:
                stored[offer.fact_seq] = offer
        self.pending = []
        if stored or direct:
            self.submit(self.decide([*(stored[seq] for seq in sorted(stored)), *direct]))

    def decide(self, offers: list[Offer], *, park: bool = False) -> DecisionEntry:
        """Advance over the offers' facts without touching the state."""
        decided = (each.fact.gate_id for each in offers if isinstance(each.fact, GateDecided))
        changeset = self._changeset(frozenset(decided))
        state = self.state
        for offer, is_halted in cancels_first(offers):
            decision = advance(state, offer.fact, is_halted=is_halted)
            state = decision.state
            changeset.add(decision, self.started_at, self._extra)
        if self.limit is not None and not state.is_terminal:
            decision = advance(state, self.limit)
            state = decision.state
            changeset.add(decision, self.started_at, self._extra)
        return self._entry(offers, state, changeset, park=park)

    def enter(self, decision: Decision) -> DecisionEntry:
        """The entry of a decision that no fact has led to."""
        changeset = self._changeset()
        changeset.add(decision, self.started_at, self._extra)
        return self._entry([], decision.state, changeset)

    def _changeset(self, decided_gates: frozenset[str] = frozenset()) -> Changeset:
        info = self.info
        is_child = info.parent_workflow_run_id is not None
        return Changeset(
            self.program,
            info.namespace,
            info.workflow_name,
            queue_of(info.labels),
            info.priority,
            info.identity,
            is_child,
            decided_gates,
        )

    def _entry(
        self, offers: list[Offer], state: RunState, changeset: Changeset, *, park: bool = False
    ) -> DecisionEntry:
        if not state.is_terminal and waits_only_for_gates(state):
            park = True
        self.registry.assign(changeset)
        return DecisionEntry(self, offers, state, changeset, park=park)

    def submit(self, entry: DecisionEntry) -> None:
        """Queue a decision; the next one waits for it."""
        self.is_committing = True
        if entry.changeset.has_children:
            self.registry.prepare_children(entry)
        else:
            self.registry.submit(entry)

    def park_if_idle(self) -> None:
        """Give the run up if it only waits; called when it has been idle for long enough."""
        if not self.is_committing and not self.pending and not self.state.is_terminal:
            self.submit(self.decide([], park=True))

    def stop(self) -> None:
        """Forget the run's timers; the actor is out of use."""
        for handle in self.timers.values():
            handle.cancel()
        self.timers.clear()

    def settle(self, entry: DecisionEntry, now: datetime) -> None:
        """Take over what was committed."""
        self.state = entry.state
        self.applied_fact_seq = entry.applied_fact_seq
        for step in entry.changeset.steps:
            status = step.columns.get("status")
            if status in OPEN_STATUSES:
                self.started_at.setdefault(step.step_id, now)
            elif status is not None:
                self.started_at.pop(step.step_id, None)
        for timer_id in entry.changeset.cleared_timers:
            if handle := self.timers.pop(timer_id, None):
                handle.cancel()
        for timer in entry.changeset.timers.values():
            self.registry.arm(self, timer.timer_id, timer.kind, timer.delay_s)

    @property
    def waits_for_workers(self) -> bool:
        """Whether some task of the run is out."""
        return bool(open_tasks(self.state))

    def _extra(self, kind: str) -> dict[str, Any]:
        if kind == "run_resumed":
            return {"resumed_by": self.resumed_by}
        if kind != "run_started":
            return {}
        return {
            "workflow_version": self.info.workflow_version or 0,
            "trigger": self.info.trigger,
            "started_by": self.info.started_by,
        }


class DecisionEntry(Entry):
    """A decision of the owner, fenced by token and generation.

    Refused as a whole when it rests on something that is not so: a fact it has not seen, a task
    that was reported or lost meanwhile, a timer that is not due.
    """

    __slots__ = (
        "actor",
        "applied_fact_seq",
        "changeset",
        "generation",
        "is_behind",
        "is_lost",
        "is_over_budget",
        "is_parked",
        "offers",
        "offspring",
        "park",
        "rejected",
        "state",
    )

    def __init__(
        self,
        actor: Actor,
        offers: list[Offer],
        state: RunState,
        changeset: Changeset,
        *,
        park: bool,
    ) -> None:
        super().__init__(actor.run_id)
        self.actor = actor
        self.generation = actor.generation
        self.offers = offers
        self.state = state
        self.changeset = changeset
        self.offspring: Offspring | None = None
        """What becomes of child runs; made before the entry is submitted."""
        self.park = park
        self.is_parked = False
        self.applied_fact_seq = actor.applied_fact_seq
        self.is_lost = False
        self.is_behind = False
        self.is_over_budget = False
        self.rejected: list[tuple[Offer, Verdict]] = []

    def want(self, wants: Wants) -> None:
        wants.runs.add(self.run_id)
        for offer in self.offers:
            if offer.report is not None:
                wants.tasks.add(offer.report.fact.task_id)
            elif offer.timer_id is not None:
                wants.timers.add(offer.timer_id)
            elif offer.notice is not None:
                wants.runs.add(offer.notice.child_run_id)
        if self.offspring is not None:
            self.offspring.want(wants)
        # Heartbeats lock tasks too: what will be changed is locked in the common order.
        wants.tasks |= self.changeset.cancelled_tasks.keys()
        wants.tasks |= self.changeset.abandoned_tasks.keys()

    def apply(self, batch: Batch) -> None:
        self.is_lost = self.is_behind = self.is_over_budget = self.is_parked = False
        self.rejected.clear()
        run = batch.locked.runs.get(self.run_id)
        if (
            run is None
            or run.owner_token != batch.owner_token
            or run.generation != self.generation
            or self.actor.timeline not in {None, batch.locked.timeline}
            or run.is_terminal
        ):
            self.is_lost = True
            return
        stored = [o.fact_seq for o in self.offers if o.fact_seq is not None]
        base = self.actor.applied_fact_seq
        if run.fact_seq != base + len(stored):
            self.is_behind = True
            return
        self._check_offers(batch)
        if self.rejected:
            return
        events = len(self.changeset.events)
        if events and run.last_seq + events > EVENTS_MAX and self.changeset.ended is None:
            self.is_over_budget = True
            return
        run.fact_seq += len(self.offers) - len(stored)
        run.applied_fact_seq = self.applied_fact_seq = run.fact_seq
        if stored:
            batch.writes.applied_facts.append({"run_id": run.id, "upto": run.fact_seq})
        self._end_offers(batch)
        self.write_to(batch, run)

    def write_to(self, batch: Batch, run: LockedRun) -> None:
        """Write what was decided, the fence having held."""
        self.changeset.write_to(batch, run)
        offspring = self.offspring
        if offspring is not None:
            offspring.write_to(batch, run, is_draining=self.actor.registry.is_draining)
        if self.changeset.ended is not None:
            # The core knows nothing of a run's own start: one cancelled before has it still.
            unstarted = [t for t in self.actor.timers if t.endswith(":start")]
            batch.writes.cleared_timers += unstarted
            run.changes.update(lease="drop", ready="never")
            run.owner_token = None
        elif self.park and not (offspring is not None and offspring.unheard):
            self.is_parked = True
            run.changes.update(lease="drop", ready="timers")
            run.owner_token = None

    def _check_offers(self, batch: Batch) -> None:
        seen: dict[str, TaskReport] = {}
        for offer in self.offers:
            if offer.report is not None:
                task_id = offer.report.fact.task_id
                verdict = judge_report(batch.locked.tasks.get(task_id), offer.report)
                if verdict is ACCEPTED and task_id in seen:
                    verdict = judge_second(seen[task_id], offer.report)
                if verdict is ACCEPTED:
                    failure = misfit(batch.locked.tasks[task_id].kind, offer.fact)
                    if failure is not None:
                        offer.fact = failure
                        verdict = MISFIT
                seen.setdefault(task_id, offer.report)
                if verdict is not ACCEPTED:
                    self.rejected.append((offer, verdict))
            elif offer.timer_id is not None:
                is_due = batch.locked.timers.get(offer.timer_id)
                if is_due is None:
                    self.rejected.append((offer, TIMER_GONE))
                elif not is_due:
                    self.rejected.append((offer, TIMER_NOT_DUE))
            elif offer.notice is not None:
                child = batch.locked.runs.get(offer.notice.child_run_id)
                if not offer.notice.holds(child):
                    self.rejected.append((offer, NOTICE_OUTDATED))

    def _end_offers(self, batch: Batch) -> None:
        for offer in self.offers:
            if offer.report is not None:
                task = batch.locked.tasks[offer.report.fact.task_id]
                task.state, task.digest = "done", offer.report.digest
                batch.writes.task_ends.append(
                    {
                        "run_id": self.run_id,
                        "id": offer.report.fact.task_id,
                        "state": "done",
                        "digest": offer.report.digest,
                    }
                )
            elif offer.timer_id is not None:
                batch.writes.cleared_timers.append(offer.timer_id)
            elif offer.notice is not None:
                offer.notice.mark_told(batch.locked.runs[offer.notice.child_run_id])

    @property
    def is_refused(self) -> bool:
        """Whether it rests on something that is not so; valid after `apply`."""
        return self.is_lost or self.is_behind or self.is_over_budget or bool(self.rejected)

    def committed(self, batch: Batch) -> None:
        registry = self.actor.registry
        if self.is_refused:
            registry.unassign(self)
            registry.refused(self)
        else:
            registry.decided(self, batch)

    def failed(self, error: Exception) -> None:
        registry = self.actor.registry
        registry.unassign(self, may_be_written=True)
        registry.abandon(self.actor, self.offers, error)


def cancels_first(offers: Sequence[Offer]) -> Iterator[tuple[Offer, bool]]:
    """Offers in the order in which they are applied, each with whether it may begin nothing new.

    After a cancel nothing new begins, so one that is known of goes before everything that could
    begin something. Gates that were decided earlier stay decided: they go before it, and halt.
    """
    cancels = [n for n, offer in enumerate(offers) if isinstance(offer.fact, CancelAsked)]
    if not cancels:
        yield from ((offer, False) for offer in offers)
        return
    gates = [n for n in range(cancels[0]) if isinstance(offers[n].fact, GateDecided)]
    yield from ((offers[n], True) for n in gates)
    yield from ((offers[n], False) for n in cancels)
    early = {*gates, *cancels}
    yield from ((offer, False) for n, offer in enumerate(offers) if n not in early)


def timer_offer(timer_id: str) -> Offer:
    """What a timer that fired offers."""
    return Offer(TimerDue(timer_id=timer_id), timer_id=timer_id)


def report_offer(report: TaskReport, acknowledge: Acknowledge | None) -> Offer:
    """What a worker's report offers."""
    return Offer(report.fact, report=report, acknowledge=acknowledge)


def notice_offer(notice: Notice) -> Offer:
    """What the word of a child offers."""
    return Offer(notice.fact, notice=notice)

"""The runs this replica owns: adopting, waking, parking and losing them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from runkon_server import errors
from runkon_server.core.engine import resume
from runkon_server.core.facts import Started
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.actors import (
    MISFIT,
    TIMER_NOT_DUE,
    Actor,
    Offer,
    notice_offer,
    report_offer,
    timer_offer,
)
from runkon_server.runtime.alarms import Alarms
from runkon_server.runtime.budgets import out_of_events
from runkon_server.runtime.catching_up import FactReader
from runkon_server.runtime.children import prepare
from runkon_server.runtime.commands import ACCEPTED
from runkon_server.runtime.gates import GateTimeoutEntry
from runkon_server.runtime.loader import Loader
from runkon_server.runtime.looks import LookEntry
from runkon_server.runtime.notices import NoticeEntry, Notifier
from runkon_server.runtime.programs import Programs
from runkon_server.runtime.reports import ReportEntry, not_recorded
from runkon_server.runtime.resuming import Resumption
from runkon_server.store.database import is_passing
from runkon_server.store.loading import load_runs
from runkon_server.store.locking import run_of
from runkon_server.store.timelines import outer_fence

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.core.engine import ResumeMode
    from runkon_server.runtime.actors import DecisionEntry
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.changeset import Changeset
    from runkon_server.runtime.commands import Acknowledge, TaskReport, Verdict
    from runkon_server.runtime.committer import Committer
    from runkon_server.runtime.dispatcher import Dispatcher
    from runkon_server.runtime.entries import Batch, Entry, FactRecorded
    from runkon_server.runtime.notices import Notice
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.runtime.tenure import Tenure

log = structlog.get_logger(__name__)

TIMER_SLACK_S = 0.002
"""A timer fires this much late by our clock, so that it is rarely early by the database's."""
REARM_S = 0.05
LET_GO_S = 2.0
"""Before a run is taken up again whose decision the database could not take."""


class Registry:
    """All actors of this replica."""

    def __init__(  # noqa: PLR0917 - the joint where the parts of the engine meet
        self,
        config: EngineConfig,
        ambient: Ambient,
        committer: Committer,
        tenure: Tenure,
        dispatcher: Dispatcher,
        reads: AsyncEngine,
        stats: EngineStats,
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._committer = committer
        self._tenure = tenure
        self._dispatcher = dispatcher
        self.reads = reads
        self.stats = stats
        self._loop = asyncio.get_running_loop()
        self._alarms = Alarms(self._loop, self._fire)
        self._tasks: set[asyncio.Task[None]] = set()
        self.actors: dict[str, Actor] = {}
        self.programs = Programs()
        self.notifier = Notifier(ambient, reads, self._deliver, stats)
        self.loader = Loader(self, config, ambient, committer, tenure)
        self._facts = FactReader(reads, self._spawn, self.pause, self.loader.set_aside)
        self.is_draining = False

    # -- what actors need ------------------------------------------------------------------------

    def submit(self, entry: Entry) -> None:
        """Queue an entry for the committer."""
        self._committer.submit(entry)

    def assign(self, changeset: Changeset) -> None:
        """Give new tasks to connected workers with credit; the rest is queued."""
        for task in changeset.tasks.values():
            if task.order.task_id in changeset.abandoned_tasks:
                continue
            session = self._dispatcher.reserve(
                changeset.namespace, changeset.queue, task.order.kind, task.order.action
            )
            if session is not None:
                task.session = session
                task.token = self._ambient.token()

    def unassign(self, entry: DecisionEntry, *, may_be_written: bool = False) -> None:
        """Return the credit of a decision that was not committed.

        One that `may_be_written` may have leased tasks that no worker hears of: queue them again.
        """
        for task in entry.changeset.tasks.values():
            if task.session is not None:
                self._dispatcher.release(task.session)
                task.session = None
                if may_be_written and task.token is not None:
                    self._dispatcher.give_back_later(task.order.task_id, task.token)
        if entry.offspring is not None:
            entry.offspring.release(self)

    def prepare_children(self, entry: DecisionEntry) -> None:
        """Submit a decision once everything is found that its child runs need."""
        self._spawn(self._prepare_and_submit(entry))

    async def _prepare_and_submit(self, entry: DecisionEntry) -> None:
        """Try until the database answers; the run stays ours meanwhile, or its fence fails."""
        while entry.offspring is None:
            try:
                entry.offspring = await prepare(self, entry.actor, entry.changeset)
                await failpoint_async("children.prepared")
            except Exception as error:  # noqa: BLE001 - told to whoever waits for the decision
                if not is_passing(error):
                    entry.failed(error)
                    return
                await self.pause()
        self.submit(entry)

    async def prepare_resume(
        self, run_id: str, mode: ResumeMode, step_id: str | None = None, resumed_by: str = ""
    ) -> Resumption:
        """Decide how a finished run goes on, and find what that needs.

        Raises:
            ResumeRefusedError: it does not; the core's error.
            RunNotFoundError: there is no such run.
            errors.ResumeRefusedError: this server cannot run its definition.
        """
        async with self.reads.connect() as conn:
            loaded = (await load_runs(conn, [run_id])).get(run_id)
        if loaded is None:
            raise errors.RunNotFoundError(run_id)
        info = loaded.info
        try:
            program = await self.programs.load(self.reads, info.namespace, info.content_hash)
        except ValueError as error:
            raise errors.ResumeRefusedError(
                run_id,
                status=loaded.rows.run.status,
                mode=mode.value,
                why=f"this version of the server cannot run its definition: {error}",
            ) from None
        decision = resume(program.plan, loaded.rows, mode, step_id)
        resumption = Resumption(self, loaded, program, decision, resumed_by)
        entry = resumption.entry
        if entry.changeset.has_children:
            try:
                entry.offspring = await prepare(self, entry.actor, entry.changeset)
            except BaseException:
                self.unassign(entry)
                raise
        return resumption

    async def pause(self) -> None:
        """Wait a moment for what others have to do first."""
        await self._ambient.sleep(REARM_S)

    def _deliver(self, notice: Notice) -> None:
        """Take the word of a child to its parent: in memory here, or in the table."""
        actor = self.actors.get(notice.parent_run_id)
        if actor is not None:
            actor.offer(notice_offer(notice))
        else:
            self.submit(NoticeEntry(notice, self.recorded, self.notifier.settled))

    def arm(self, actor: Actor, timer_id: str, kind: str, delay_s: float) -> None:
        """Have a timer of an owned run fire in this process too; its row stays the truth."""
        if handle := actor.timers.pop(timer_id, None):
            handle.cancel()
        actor.timers[timer_id] = self._loop.call_later(
            max(0.0, delay_s) + TIMER_SLACK_S, self._alarms.went_off, actor.run_id, timer_id, kind
        )

    def _fire(self, run_id: str, timer_id: str, kind: str) -> None:
        actor = self.actors.get(run_id)
        if actor is None:
            return
        actor.timers.pop(timer_id, None)
        failpoint("timer.fired")
        if kind == "gate":
            again = partial(self._rearm, actor, timer_id)
            self.submit(GateTimeoutEntry(run_id, timer_id, self.recorded, again))
        elif kind == "start":
            actor.offer(Offer(Started(), timer_id=timer_id))
        else:
            actor.offer(timer_offer(timer_id))

    # -- after a commit --------------------------------------------------------------------------

    def decided(self, entry: DecisionEntry, batch: Batch) -> None:
        """A decision is durable: carry out its orders, go on with what came meanwhile."""
        actor, changeset, now = entry.actor, entry.changeset, batch.locked.now
        failpoint("decision.committed")
        actor.is_committing = False
        actor.timeline = batch.locked.timeline
        actor.settle(entry, now)
        failpoint("decision.settled")
        fence = outer_fence(batch.locked.timeline, actor.generation)
        self._dispatcher.carry_out(changeset, fence, now)
        failpoint("decision.carried_out")
        self._count(changeset)
        for offer in entry.offers:
            if offer.acknowledge is not None:
                offer.acknowledge(ACCEPTED)
            if offer.notice is not None:
                self.notifier.settled(offer.notice.child_run_id, is_told=True)
        if changeset.concerns_parent:
            self.notifier.tell(actor.run_id)
        if entry.offspring is not None:
            entry.offspring.committed(self, batch)
            actor.pending += [
                Offer(each.fact, fact_seq=each.fact_seq) for each in entry.offspring.unheard
            ]
        if changeset.ended is not None or entry.is_parked:
            self.stats.runs_parked += entry.is_parked
            if entry.is_parked:
                failpoint("run.parked")
            self._remove(actor)
            self._reoffer(actor.pending, actor)
        else:
            actor.idle_since_s = self._ambient.boottime_s()
            actor.move()

    def started(self, entry: DecisionEntry | None, batch: Batch) -> None:
        """A run was created or resumed here; without a decision it goes on later, by its timer."""
        self.stats.runs_started += 1
        failpoint("run.started")
        if entry is not None:
            if batch.owner_token == self._tenure.token:
                self.adopt(entry.actor)
            try:
                self.decided(entry, batch)
            except BaseException:
                self._remove(entry.actor)  # it is not as its rows are: to be loaded anew
                raise

    def begin(self, actor: Actor) -> None:
        """Take up a run that was created here with the fact that begins it."""
        self.adopt(actor)
        actor.offer(Offer(Started(), fact_seq=1))

    def refused(self, entry: DecisionEntry) -> None:
        """A decision rested on something that is not so; see what is, and decide again."""
        actor = entry.actor
        actor.is_committing = False
        if entry.is_lost:
            self.stats.leases_lost += 1
            log.info("lease.lost", run_id=actor.run_id, generation=actor.generation)
            self._remove(actor)
            self._reoffer([*entry.offers, *actor.pending], actor)
            return
        if entry.is_over_budget:
            actor.limit = out_of_events(actor.state.setup.epoch)
        rejected = {id(offer) for offer, verdict in entry.rejected if verdict is not MISFIT}
        for offer, verdict in entry.rejected:
            if offer.notice is not None:
                self.notifier.settled(offer.notice.child_run_id, is_told=False)
            if offer.acknowledge is not None and verdict is not MISFIT:
                offer.acknowledge(verdict)
            if offer.timer_id is not None and verdict is TIMER_NOT_DUE:
                self._rearm(actor, offer.timer_id, REARM_S)
        kept = [offer for offer in entry.offers if id(offer) not in rejected]
        actor.pending[:0] = kept
        if entry.is_behind:
            self._facts.catch_up(actor)
        elif entry.is_over_budget and not actor.pending:
            actor.submit(actor.decide([]))
        else:
            actor.move()

    def _rearm(self, actor: Actor, timer_id: str, pause_s: float) -> None:
        """Our clock was ahead of the database's, say: look again in a moment."""
        if self.actors.get(actor.run_id) is actor:
            self.arm(actor, timer_id, timer_id.rpartition(":")[2], pause_s)

    def abandon(self, actor: Actor, offers: Sequence[Offer], error: Exception) -> None:
        """The database refused a decision, or its outcome is unknown: forget the run.

        It is loaded anew, here or elsewhere, when its lease runs out, which is no longer renewed.
        If only something was locked, or slow, that is sooner, and no owner has fallen silent.
        """
        log.error("run.abandoned", run_id=actor.run_id, exc_info=error)
        self._remove(actor)
        for offer in [*offers, *actor.pending]:
            if offer.acknowledge is not None:
                offer.acknowledge(not_recorded())
            if offer.notice is not None:  # the scan tells of it again
                self.notifier.settled(offer.notice.child_run_id, is_told=True)
        if isinstance(error, errors.ConflictError) or is_passing(error):
            self._spawn(self.loader.let_go(actor.run_id, LET_GO_S))

    def recorded(self, recorded: FactRecorded) -> None:
        """A fact was stored by this replica: apply it if the run is ours."""
        failpoint("fact.recorded")
        offer = Offer(recorded.fact, fact_seq=recorded.fact_seq)
        if recorded.taken:
            self.stats.runs_acquired += 1
            self.load([recorded.run_id])
            return
        actor = self.actors.get(recorded.run_id)
        if actor is not None:
            actor.offer(offer)
        else:
            self.loader.offer(recorded.run_id, offer)

    def _count(self, changeset: Changeset) -> None:
        stats = self.stats
        stats.events_appended += len(changeset.events)
        for step in changeset.steps:
            status = step.columns.get("status")
            if status in {"completed", "failed", "skipped", "timed_out"}:
                stats.steps_finished[status] += 1
        if changeset.ended is not None:
            stats.runs_finished[changeset.ended] += 1

    # -- coming and going ------------------------------------------------------------------------

    def adopt(self, actor: Actor) -> None:
        """Keep a run that was started or loaded here."""
        actor.idle_since_s = self._ambient.boottime_s()
        self.actors[actor.run_id] = actor
        self.stats.leases_held = len(self.actors)

    def _remove(self, actor: Actor) -> None:
        actor.stop()
        if self.actors.get(actor.run_id) is actor:
            del self.actors[actor.run_id]
        self.stats.leases_held = len(self.actors)

    def _reoffer(self, offers: Iterable[Offer], actor: Actor) -> None:
        """Facts whose run is no longer ours: reports are recorded for the new owner.

        Stored facts and timers need nothing, the next owner reads them.
        """
        for offer in offers:
            if offer.report is not None:
                self._record_report(actor.info.namespace, offer.report, offer.acknowledge)
            elif offer.notice is not None:
                self.notifier.settled(offer.notice.child_run_id, is_told=False)

    @property
    def held(self) -> int:
        """How many runs are in memory, or on their way there."""
        return len(self.actors) + self.loader.awaited

    def generations(self) -> dict[str, int]:
        """The runs in memory, each with the generation under which it is ours."""
        # The copy is one step: the lessor's thread may ask while the loop stands still.
        return {run_id: actor.generation for run_id, actor in list(self.actors.items())}

    def lost(self, generations: Mapping[str, int]) -> None:
        """The renewal found that these runs are no longer ours, under these generations.

        One that was taken again meanwhile has a higher one and stays.
        """
        for run_id, generation in generations.items():
            actor = self.actors.get(run_id)
            if actor is None or actor.generation != generation or actor.is_committing:
                continue
            self._lose(actor)

    def lose_all(self) -> None:
        """The token that owned them was given up: no run is ours."""
        for actor in list(self.actors.values()):
            self._lose(actor)

    def _lose(self, actor: Actor) -> None:
        self.stats.leases_lost += 1
        self._remove(actor)
        self._reoffer(actor.pending, actor)
        actor.pending = []

    def leave_timelines_but(self, timeline: int) -> None:
        """Forget the runs whose state rests on what another server has written."""
        self.lost(
            {
                run_id: actor.generation
                for run_id, actor in self.actors.items()
                if actor.timeline not in {None, timeline}
            }
        )

    def park_idle(self) -> None:
        """Park the runs that have only waited for `linger_s`."""
        deadline = self._ambient.boottime_s() - self._config.linger_s
        for actor in list(self.actors.values()):
            if actor.idle_since_s < deadline:
                actor.park_if_idle()

    def wake(self, run_id: str) -> None:
        """Another replica stored a fact for a run of ours."""
        actor = self.actors.get(run_id)
        if actor is not None:
            self._facts.catch_up(actor)

    def forget(self, run_id: str) -> None:
        """Drop what is in memory of a run, if anything is; what waited there is recorded."""
        if actor := self.actors.get(run_id):
            self._remove(actor)
            self._reoffer(actor.pending, actor)
            actor.pending = []

    def load(self, run_ids: Sequence[str]) -> None:
        """Load runs whose lease this replica has just taken."""
        if fresh := self.loader.expect(run_ids):
            self._spawn(self.loader.load(fresh))

    # -- reports ---------------------------------------------------------------------------------

    def report(
        self,
        namespace: str,
        report: TaskReport,
        acknowledge: Acknowledge | None,
    ) -> None:
        """Take a worker's report: to the run in memory here, or into the table for its owner."""
        failpoint("report.received")
        run_id = run_of(report.fact.task_id)
        if acknowledge is not None:
            acknowledge = partial(self._acknowledge, acknowledge)
        if report.gate_decision is not None:
            self.submit(LookEntry(run_id, namespace, report, acknowledge, self.recorded))
            return
        actor = self.actors.get(run_id)
        if actor is not None and actor.info.namespace == namespace:
            actor.offer(report_offer(report, acknowledge))
        else:
            self._record_report(namespace, report, acknowledge)

    def _acknowledge(self, acknowledge: Acknowledge, verdict: Verdict) -> None:
        self.stats.tasks_reported[verdict.status] += 1
        acknowledge(verdict)

    def _record_report(
        self,
        namespace: str,
        report: TaskReport,
        acknowledge: Acknowledge | None,
    ) -> None:
        run_id = run_of(report.fact.task_id)
        self.submit(ReportEntry(run_id, namespace, report, acknowledge, self.recorded))

    # -- lifecycle -------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("registry.task_failed", exc_info=error)

    def stop(self) -> None:
        """Forget everything; the leases are handed over by statement."""
        self.is_draining = True
        for task in self._tasks:
            task.cancel()
        for actor in list(self.actors.values()):
            self._remove(actor)

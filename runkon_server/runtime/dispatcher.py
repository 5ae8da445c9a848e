"""Tasks to workers: at once to a connected one with credit, else through the queue in the table.

Two ways in, one rule of order: as long as an action has a backlog in the queue, new tasks of it
queue up behind instead of overtaking on the fast path. Other kinds of tasks go the same ways; what
an action is to them is a script, an item provider or a type of gates.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import structlog

from runkon_server import errors
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.backlog import Backlog
from runkon_server.runtime.claimer import Claimer
from runkon_server.runtime.leases import claimed_lease, content_hash_of, ordered_lease
from runkon_server.runtime.limits import ActionLimits
from runkon_server.runtime.roster import Roster, need_of, offer_of
from runkon_server.runtime.sessions import WorkerSession
from runkon_server.store import claims
from runkon_server.store.database import is_passing
from runkon_server.store.locking import run_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.core.decision import TaskKind
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.changeset import Changeset, NewTask
    from runkon_server.runtime.commands import (
        Acknowledge,
        TaskHeartbeat,
        TaskLease,
        TaskReport,
        WorkerHello,
    )
    from runkon_server.runtime.programs import Program
    from runkon_server.runtime.roster import Need, Offer
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.claiming import ClaimedTask

log = structlog.get_logger(__name__)

BeatFuture: TypeAlias = "asyncio.Future[tuple[bool, str | None]]"
"""For a heartbeat that came as a call: (still counts, reason to stop)."""
_Beat: TypeAlias = "tuple[WorkerSession | BeatFuture, TaskHeartbeat, str]"
"""Who sent it, and in which namespace."""

CLAIM_MAX = 64


class Dispatcher:
    """The workers connected to this replica and what they are owed.

    The engine connects its other parts before it starts: `report` takes a report on to the
    registry, `progress` a task's progress to its run's events, `unreached` hears that a task was
    told to stop that no session here has, `removed` that a session was closed, `may_push` says
    whether this replica's leases are good, `program` gives a definition by namespace and content
    hash.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        reads: AsyncEngine,
        stats: EngineStats,
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._reads = reads
        self._stats = stats
        self._sessions: dict[WorkerSession, None] = {}
        """In the order of claims: who was given something from the queue goes to its end."""
        self._roster = Roster()
        self._holders: dict[str, WorkerSession] = {}
        self._backlog = Backlog()
        self._left_over: set[tuple[Offer, str]] = set()
        """Limited actions of which more may wait for such workers than could be handed out."""
        self._beats: list[_Beat] = []
        self._unseen: list[tuple[str, str, str]] = []
        """Leases (run id, task id, token) that never left for a worker."""
        self._claim_wanted = asyncio.Event()
        self._beat_wanted = asyncio.Event()
        self._lease = timedelta(seconds=config.task_lease_s)
        self.claimer = Claimer(config)
        self.limits = ActionLimits(ambient, reads, config.task_lease_s, self._claim_wanted.set)
        self.report: Callable[[str, TaskReport, Acknowledge | None], None] = _not_wired
        self.progress: Callable[[TaskHeartbeat, str, int], None] = _not_wired
        self.unreached: Callable[[], None] = _not_wired
        self.removed: Callable[[WorkerSession], None] = lambda _: None
        self.may_push: Callable[[], bool] = lambda: True
        self.program: Callable[[str, str], Awaitable[Program]] = _not_wired

    # -- sessions --------------------------------------------------------------------------------

    def open(self, hello: WorkerHello, notify: Callable[[], None]) -> WorkerSession:
        """Add a worker; it gets nothing before it gives credit."""
        session = WorkerSession(self, hello, notify)
        if hello.in_hand is not None:
            self._supersede(hello)
        self._sessions[session] = None
        self._roster.add(session)
        self._stats.workers_connected = len(self._sessions)
        return session

    def _supersede(self, hello: WorkerHello) -> None:
        """End older streams of a worker: it has left them, though the network may not say so.

        Else they would be given what was taken back from them.
        """
        for older in list(self._sessions):
            if (
                older.worker_id == hello.worker_id
                and older.namespace == hello.namespace
                and older.hello.in_hand is not None
            ):
                log.info("worker.superseded", worker_id=hello.worker_id)
                older.close()

    def remove(self, session: WorkerSession) -> None:
        """Forget a worker that is gone."""
        if session not in self._sessions:
            return
        del self._sessions[session]
        self._roster.remove(session)
        self._backlog.keep(self._roster.is_served)
        self._claim_wanted.set()  # what it served by name may be a fallback's now
        if self._left_over:
            offers = {offer_of(each, "action") for each in self._sessions}
            self._left_over = {each for each in self._left_over if each[0] in offers}
        for task_id in session.tasks:
            if self._holders.get(task_id) is session:
                del self._holders[task_id]
        for lease in session.take()[0]:
            self.give_back_later(lease.task_id, lease.token)
        self._stats.workers_connected = len(self._sessions)
        self.removed(session)

    def drain(self) -> None:
        """Hand out nothing more from this replica."""
        self.limits.stop()
        for session in self._sessions:
            session.drain()

    def credit_added(self, session: WorkerSession) -> None:
        """A worker can take more: look into the queue if something may be there."""
        if session.may_find_more or any(
            self._roster.serves(session, need) for need in self._backlog
        ):
            self._claim_wanted.set()

    def forget(self, task_id: str, token: str) -> None:
        """A task was reported, or lost, under this token; another session may have it by now."""
        holder = self._holders.get(task_id)
        if holder is not None and holder.tasks.get(task_id, token) == token:
            del self._holders[task_id]
        if self.limits.known:
            self.limits.freed()

    # -- the fast path ---------------------------------------------------------------------------

    def reserve(
        self, namespace: str, queue: str, kind: TaskKind, name: str
    ) -> WorkerSession | None:
        """A worker with credit for a task that is about to be committed; one credit is taken.

        Named workers go before fallbacks, which take actions only; among equals they take turns.
        """
        need = need_of(namespace, queue, kind, name)
        if self._backlog.is_own(need) or (
            kind == "action" and (namespace, name) in self.limits.known
        ):
            return None
        session = self._roster.next_with_credit(need)
        if session is not None:
            session.credit -= 1
        return session

    def release(self, session: WorkerSession) -> None:
        """Give a credit back: the task was not committed."""
        if session.is_open:
            session.credit += 1

    def carry_out(self, changeset: Changeset, fence: int, now: datetime) -> None:
        """After the commit: send new tasks, pass on cancellations."""
        for task in changeset.tasks.values():
            session, task.session = task.session, None
            if session is None:
                self.queued(
                    changeset.namespace, changeset.queue, task.order.kind, task.order.action
                )
            elif task.order.task_id in changeset.abandoned_tasks:
                self.release(session)
            elif not session.is_open or not self.may_push():
                assert task.token is not None
                self.release(session)
                self.give_back_later(task.order.task_id, task.token)
            else:
                self._push(session, changeset, task, fence, now)
        for task_id, reason in changeset.cancelled_tasks.items():
            if not self.cancel(task_id, reason):
                self.unreached()
        for task_id, reason in changeset.abandoned_tasks.items():
            self.cancel(task_id, reason)

    def cancel(self, task_id: str, reason: str) -> bool:
        """Tell the worker that has a task to stop; False when it is not connected here."""
        session = self._holders.get(task_id)
        if session is None:
            return False
        session.cancel(task_id, session.tasks[task_id], reason)
        return True

    def queued(self, namespace: str, queue: str, kind: TaskKind, name: str) -> None:
        """A new task waits in the table for a worker."""
        self.requeued([need_of(namespace, queue, kind, name)])

    def requeued(self, needs: Iterable[Need]) -> None:
        """Tasks that were out before wait in the table: what is new goes behind them.

        Whichever replica has queued the newer ones, else they would be given every credit that a
        worker gets back before a look into the table finds the older ones.
        """
        for need in needs:
            if self._roster.is_served(need):
                self._backlog.add(need, is_own=True)
                self._claim_wanted.set()

    def look(self, needs: Iterable[Need] | None = None) -> None:
        """Something was queued elsewhere that asks for this; None: it may ask for anything."""
        if needs is None:
            for session in self._sessions:
                session.may_find_more = True
            self._claim_wanted.set()
            return
        for need in needs:
            if self._roster.is_served(need):
                self._backlog.add(need, is_own=False)
                self._claim_wanted.set()

    def give_back_later(self, task_id: str, token: str) -> None:
        """Queue a task again that is leased under this token, if it is: no worker was told."""
        self._unseen.append((run_of(task_id), task_id, token))
        self._claim_wanted.set()

    async def give_back(self) -> None:
        """Queue the tasks again whose lease never left for a worker."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        try:
            async with self._reads.connect() as conn:
                await claims.give_back(conn, tasks=unseen)
            await failpoint_async("tasks.given_back")
        except BaseException:
            self._unseen += unseen
            raise
        self.look()

    def _push(
        self,
        session: WorkerSession,
        changeset: Changeset,
        task: NewTask,
        fence: int,
        now: datetime,
    ) -> None:
        lease = ordered_lease(changeset, task, fence=fence, now=now, lease=self._lease)
        self._give(session, lease)

    def _give(self, session: WorkerSession, lease: TaskLease) -> None:
        """Put a task into a worker's outbox; one whose stream cannot be told is gone."""
        self._holders[lease.task_id] = session
        self._stats.tasks_dispatched += 1
        failpoint("task.pushing")
        try:
            session.push(lease)
            failpoint("task.pushed")
        except Exception:
            log.exception("worker.unreachable", worker_id=session.worker_id)
            session.close()

    # -- the queue -------------------------------------------------------------------------------

    async def run_polls(self) -> None:
        """Look for all that nobody may have told of, every `poll_s`."""
        while True:
            await self._ambient.sleep(self._config.poll_s)
            self.look()

    async def run_claims(self) -> None:
        """Lease queued tasks to workers with credit, when told."""
        try:
            while True:
                await self._claim_wanted.wait()
                self._claim_wanted.clear()
                try:
                    await self.give_back()
                    await self.limits.refresh()
                    await self._claim_round()
                except Exception as error:
                    if not is_passing(error):
                        raise
                    log.warning("claim.failed", error=str(error).strip())
                    await self._ambient.sleep(self._config.poll_s)
        finally:
            await self.claimer.close()

    async def _claim_round(self) -> None:
        """Look once for each kind of offer that may find something: equal workers share a look."""
        done: set[Offer] = set()
        for session in [each for each in self._sessions if each.credit > 0 and each.is_open]:
            looks_for_all, session.may_find_more = session.may_find_more, False
            needs = [need for need in self._backlog if self._roster.serves(session, need)]
            if self.limits.known:
                await self._claim_limited(session, None if looks_for_all else needs)
            for kind in filter(session.takes, session.offers):
                offer = offer_of(session, kind)
                if offer in done or not (looks_for_all or any(n.kind == kind for n in needs)):
                    continue
                if await self._claim_kind(session, kind):
                    done.add(offer)

    async def _claim_limited(self, session: WorkerSession, needs: Sequence[Need] | None) -> None:
        """Look for tasks of limited actions: of all, or of those asked for or left at a limit."""
        named = self._roster.named_beside(session, "action")
        told = {need.name for need in needs or () if need.kind == "action"}
        offer = offer_of(session, "action")
        for action, left in self.limits.open_to(session, named):
            if needs is not None and action not in told and (offer, action) not in self._left_over:
                continue
            before = self._backlog.moment
            take = partial(self.limits.claim, session, action, left)
            has_more = await self._claim_some(session, take)
            if has_more or self.limits.is_at_limit(session.namespace, action):
                self._left_over.add((offer, action))
            else:
                self._left_over.discard((offer, action))
                self._drained(before, session, "action", {action})

    async def _claim_kind(self, session: WorkerSession, kind: TaskKind) -> bool:
        """Look for tasks of a kind; True when nothing is left that such a worker is given."""
        before = self._backlog.moment
        if await self._claim_some(session, partial(self._take, session, kind)):
            return False
        self._drained(before, session, kind, None)
        return True

    def _drained(
        self, before: int, session: WorkerSession, kind: TaskKind, names: Collection[str] | None
    ) -> None:
        """Nothing is left of what such a session is given.

        Args:
            before: when the look began.
            names: of limited actions; None: of all names but those.
        """
        limited = self.limits.limited(session.namespace) if kind == "action" else ()

        def is_met(need: Need) -> bool:
            is_looked_for = need.name not in limited if names is None else need.name in names
            return need.kind == kind and is_looked_for and self._roster.serves(session, need)

        self._backlog.drained(before, is_met)

    async def _claim_some(
        self, session: WorkerSession, take: Callable[[int], Awaitable[list[ClaimedTask]]]
    ) -> bool:
        """Hand out what `take` gives for a number of tasks; False when that was all there is."""
        limit = min(session.credit, CLAIM_MAX)
        if limit <= 0:  # it was given something, or closed, while others were looked after
            session.may_find_more = True
            return True
        session.credit -= limit
        claimed: list[ClaimedTask] = []
        self._stats.queue_looks += 1
        try:
            claimed = await take(limit)
        finally:
            if session.is_open:
                session.credit += limit - len(claimed)
        await self._hand_out(session, claimed)
        if claimed and session in self._sessions:
            self._sessions[session] = self._sessions.pop(session)
        if len(claimed) < limit:
            return False
        session.may_find_more = True
        if session.credit > 0:
            self._claim_wanted.set()
        return True

    async def _take(self, session: WorkerSession, kind: TaskKind, limit: int) -> list[ClaimedTask]:
        return await self.claimer.take(
            session,
            kind,
            limit,
            named=self._roster.named_beside(session, kind) if session.is_fallback else (),
            limited=self.limits.limited(session.namespace) if kind == "action" else (),
        )

    async def _hand_out(self, session: WorkerSession, claimed: Sequence[ClaimedTask]) -> None:
        for number, task in enumerate(claimed):
            try:
                lease = claimed_lease(task, await self._program_of(task), self._lease)
            except Exception as error:
                if not is_passing(error):
                    # A newer replica may understand it, once the lease runs out; given back, it
                    # would come again at once.
                    log.exception("task.unreadable", run_id=task.run_id, task_id=task.id)
                    self.release(session)
                    continue
                for unseen in claimed[number:]:
                    self.give_back_later(unseen.id, unseen.token)
                    self.release(session)
                raise
            if not session.is_open:
                self.give_back_later(task.id, task.token)
                continue
            self._give(session, lease)

    async def _program_of(self, task: ClaimedTask) -> Program | None:
        content_hash = content_hash_of(task)
        if content_hash is None:
            return None
        try:
            return await self.program(task.namespace, content_hash)
        except errors.WorkflowNotFoundError:
            return None

    # -- heartbeats ------------------------------------------------------------------------------

    def heartbeat(self, session: WorkerSession, beats: Sequence[TaskHeartbeat]) -> None:
        """Take heartbeats of a session."""
        self._beats.extend((session, beat, session.namespace) for beat in beats)
        self._beat_wanted.set()

    async def heartbeat_one(self, namespace: str, beat: TaskHeartbeat) -> tuple[bool, str | None]:
        """Take one heartbeat and wait for what it says: (still counts, reason to stop)."""
        future: BeatFuture = asyncio.get_running_loop().create_future()
        self._beats.append((future, beat, namespace))
        self._beat_wanted.set()
        return await future

    async def run_heartbeats(self) -> None:
        """Write heartbeats, many to a statement."""
        while True:
            await self._beat_wanted.wait()
            self._beat_wanted.clear()
            beats, self._beats = self._beats, []
            try:
                await self._extend(beats)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("heartbeat.failed", error=str(error).strip())
                # Workers beat on meanwhile, for as long as that lasts.
                self._beats = _newest([*beats, *self._beats])
                self._beat_wanted.set()
                await self._ambient.sleep(self._config.poll_s)

    async def _extend(self, beats: Sequence[_Beat]) -> None:
        rows = {(run_of(b.task_id), b.task_id, b.token) for _, b, _ in beats}
        told = {beat.task_id for _, beat, _ in beats if beat.progress}
        async with self._reads.connect() as conn:
            known = await claims.extend_tasks(
                conn, tasks=rows, told=told, ttl_s=self._config.task_lease_s
            )
        await failpoint_async("beats.extended")
        for sender, beat, namespace in beats:
            found = known.get((beat.task_id, beat.token))
            if found is not None and found.namespace != namespace:
                found = None
            counts, reason = found is not None, found.cancel_reason if found else None
            if found is not None and beat.progress:
                self.progress(beat, found.step_name, found.iteration)
            if isinstance(sender, asyncio.Future):
                if not sender.done():
                    sender.set_result((counts, reason))
            elif not counts:
                sender.cancel(beat.task_id, beat.token, "lease_lost")
                sender.settle(beat.task_id, beat.token)
            elif reason is not None:
                sender.cancel(beat.task_id, beat.token, reason)


def _newest(beats: Iterable[_Beat]) -> list[_Beat]:
    """The last one of each task and sender, without the calls that nobody waits for any more."""
    found: dict[tuple[object, str, str], _Beat] = {}
    for each in beats:
        sender, beat, _ = each
        if not (isinstance(sender, asyncio.Future) and sender.done()):
            found[sender, beat.task_id, beat.token] = each
    return list(found.values())


def _not_wired(*_: object) -> NoReturn:
    raise AssertionError("the engine connects this before it starts")

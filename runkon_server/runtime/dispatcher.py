"""Tasks to workers: at once to a connected one with credit, else through the queue in the table.

Two ways in, one rule of order: as long as an action has a backlog in the queue, new tasks of it
queue up behind instead of overtaking on the fast path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import structlog

from runkon_server.runtime.commands import TaskLease
from runkon_server.runtime.sessions import WorkerSession
from runkon_server.store import claims
from runkon_server.store.database import is_passing
from runkon_server.store.locking import run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.changeset import Changeset, NewTask
    from runkon_server.runtime.commands import (
        Acknowledge,
        TaskHeartbeat,
        TaskReport,
        WorkerHello,
    )
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.claims import ClaimedTask

log = structlog.get_logger(__name__)

KeyT = TypeVar("KeyT")
BeatFuture: TypeAlias = "asyncio.Future[tuple[bool, str | None]]"
"""For a heartbeat that came as a call: (still counts, reason to stop)."""

CLAIM_MAX = 64


class Dispatcher:
    """The workers connected to this replica and what they are owed.

    The engine connects its other parts before it starts: `report` takes a report on to the
    registry, `progress` a task's progress to its run's events, `unreached` hears that a task was
    told to stop that no session here has, `may_push` says whether this replica's leases are good.
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
        self._sessions: set[WorkerSession] = set()
        self._named: defaultdict[tuple[str, str], list[WorkerSession]] = defaultdict(list)
        self._fallbacks: defaultdict[str, list[WorkerSession]] = defaultdict(list)
        self._holders: dict[str, WorkerSession] = {}
        self._backlog: set[tuple[str, str]] = set()
        self._beats: list[tuple[WorkerSession | BeatFuture, TaskHeartbeat, str]] = []
        self._unseen: list[tuple[str, str, str]] = []
        """Leases (run id, task id, token) that never left for a worker."""
        self._claim_wanted = asyncio.Event()
        self._beat_wanted = asyncio.Event()
        self._lease = timedelta(seconds=config.task_lease_s)
        self.report: Callable[[str, TaskReport, Acknowledge | None], None] = _not_wired
        self.progress: Callable[[str, TaskHeartbeat], None] = _not_wired
        self.unreached: Callable[[], None] = _not_wired
        self.may_push: Callable[[], bool] = lambda: True

    # -- sessions --------------------------------------------------------------------------------

    def open(self, hello: WorkerHello, notify: Callable[[], None]) -> WorkerSession:
        """Add a worker; it gets nothing before it gives credit."""
        session = WorkerSession(self, hello, notify)
        self._sessions.add(session)
        for action in session.actions:
            self._named[(session.namespace, action)].append(session)
        if session.is_fallback:
            self._fallbacks[session.namespace].append(session)
        self._stats.workers_connected = len(self._sessions)
        return session

    def remove(self, session: WorkerSession) -> None:
        """Forget a worker that is gone."""
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        for action in session.actions:
            _drop(self._named, (session.namespace, action), session)
        if session.is_fallback:
            _drop(self._fallbacks, session.namespace, session)
        for task_id in session.tasks:
            if self._holders.get(task_id) is session:
                del self._holders[task_id]
        for lease in session.take()[0]:
            self._give_back(lease.task_id, lease.token)
        self._stats.workers_connected = len(self._sessions)

    def drain(self) -> None:
        """Hand out nothing more from this replica."""
        for session in self._sessions:
            session.drain()

    def credit_added(self, session: WorkerSession) -> None:
        """A worker can take more: look into the queue if something may be there."""
        namespaces = {namespace for namespace, _ in self._backlog}
        if session.may_find_more or session.namespace in namespaces:
            self._claim_wanted.set()

    def forget(self, task_id: str) -> None:
        """A task was reported."""
        self._holders.pop(task_id, None)

    # -- the fast path ---------------------------------------------------------------------------

    def reserve(self, namespace: str, action: str) -> WorkerSession | None:
        """A worker with credit for a task that is about to be committed; one credit is taken.

        Named workers go before fallbacks; among equals they take turns.
        """
        if (namespace, action) in self._backlog:
            return None
        named = self._named.get((namespace, action))
        session = _next_with_credit(named) if named else None
        if session is None and not named:
            fallbacks = self._fallbacks.get(namespace)
            session = _next_with_credit(fallbacks) if fallbacks else None
        if session is not None:
            session.credit -= 1
        return session

    def release(self, session: WorkerSession) -> None:
        """Give a credit back: the task was not committed."""
        if session.is_open:
            session.credit += 1

    def carry_out(self, changeset: Changeset, generation: int, now: datetime) -> None:
        """After the commit: send new tasks, pass on cancellations."""
        for task in changeset.tasks.values():
            if task.session is None:
                self.queued(changeset.namespace, task.order.action)
            elif task.order.task_id in changeset.abandoned_tasks:
                self.release(task.session)
            elif not task.session.is_open or not self.may_push():
                assert task.token is not None
                self.release(task.session)
                self._give_back(task.order.task_id, task.token)
            else:
                self._push(changeset, task, generation, now)
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

    def queued(self, namespace: str, action: str) -> None:
        """A task waits in the table for a worker."""
        self._backlog.add((namespace, action))
        self._claim_wanted.set()

    def look(self) -> None:
        """Something may have been queued elsewhere."""
        for session in self._sessions:
            session.may_find_more = True
        self._claim_wanted.set()

    def _give_back(self, task_id: str, token: str) -> None:
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
        except BaseException:
            self._unseen += unseen
            raise
        self.look()

    def _push(self, changeset: Changeset, task: NewTask, generation: int, now: datetime) -> None:
        order = task.order
        assert task.token is not None
        session: WorkerSession = task.session
        self._holders[order.task_id] = session
        self._stats.tasks_dispatched += 1
        session.push(
            TaskLease(
                task_id=order.task_id,
                token=task.token,
                namespace=changeset.namespace,
                run_id=run_of(order.task_id),
                workflow_name=changeset.workflow_name,
                step_id=order.step_id,
                step_name=order.step_name,
                action=order.action,
                iteration=order.iteration,
                iterations=order.iterations,
                attempt=order.attempt,
                delivery=0,
                retries_remaining=order.retries_remaining,
                idempotency_key=order.idempotency_key,
                fence=f"{generation}.0",
                inputs=dict(order.inputs),
                prior_contexts=order.prior_contexts,
                retry_error=order.retry_error,
                gate_feedback=order.gate_feedback,
                identity=order.identity,
                max_turns=order.max_turns,
                plugin_dirs=order.plugin_dirs,
                lease=self._lease,
                deadline_at=(
                    None if order.timeout_s is None else now + timedelta(seconds=order.timeout_s)
                ),
                dry_run=order.dry_run,
            )
        )

    # -- the queue -------------------------------------------------------------------------------

    async def run_claims(self) -> None:
        """Lease queued tasks to workers with credit: when told, and every `poll_s` anyway."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await self._claim_wanted.wait()
            self._claim_wanted.clear()
            try:
                await self.give_back()
                for session in [s for s in self._sessions if s.credit > 0 and s.is_open]:
                    await self._claim(session)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("claim.failed", error=str(error).strip())
                await self._ambient.sleep(self._config.poll_s)

    async def _claim(self, session: WorkerSession) -> None:
        limit = min(session.credit, CLAIM_MAX)
        if limit <= 0:  # it was given something, or closed, while others were looked after
            return
        session.credit -= limit
        claimed: list[ClaimedTask] = []
        try:
            async with self._reads.connect() as conn:
                claimed = await claims.claim_tasks(
                    conn,
                    namespace=session.namespace,
                    worker_id=session.worker_id,
                    actions=sorted(session.actions),
                    fallback=session.is_fallback,
                    named=[a for n, a in self._named if n == session.namespace],
                    limit=limit,
                    ttl_s=self._config.task_lease_s,
                )
        finally:
            if session.is_open:
                session.credit += limit - len(claimed)
        for task in claimed:
            if not session.is_open:
                self._give_back(task.id, task.token)
                continue
            self._holders[task.id] = session
            self._stats.tasks_dispatched += 1
            session.push(self._lease_of(task))
        session.may_find_more = len(claimed) == limit
        if len(claimed) < limit:
            self._served(session)
        elif session.credit > 0:
            self._claim_wanted.set()

    def _served(self, session: WorkerSession) -> None:
        """The queue held less than was asked for: nothing of what this worker serves is left."""
        self._backlog = {
            (namespace, action)
            for namespace, action in self._backlog
            if namespace != session.namespace
            or not (
                action in session.actions
                or (session.is_fallback and (namespace, action) not in self._named)
            )
        }

    def _lease_of(self, task: ClaimedTask) -> TaskLease:
        payload: dict[str, Any] = json.loads(task.payload)
        return TaskLease(
            task_id=task.id,
            token=task.token,
            namespace=task.namespace,
            run_id=task.run_id,
            workflow_name=payload["workflow_name"],
            step_id=task.step_id,
            step_name=payload["step_name"],
            action=task.action,
            iteration=payload.get("iteration", 0),
            iterations=tuple(payload.get("iterations", ())),
            attempt=payload.get("attempt", 0),
            delivery=task.delivery,
            retries_remaining=payload.get("retries_remaining", 0),
            idempotency_key=payload["key"],
            fence=f"{task.generation}.{task.delivery}",
            inputs=payload["inputs"],
            prior_contexts=payload.get("prior_contexts"),
            retry_error=payload.get("retry_error"),
            gate_feedback=payload.get("gate_feedback"),
            identity=payload.get("identity"),
            max_turns=payload.get("max_turns"),
            plugin_dirs=tuple(payload.get("plugin_dirs", ())),
            lease=self._lease,
            deadline_at=task.deadline_at,
            dry_run=payload.get("dry_run", False),
        )

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
                self._beats[:0] = beats
                self._beat_wanted.set()
                await self._ambient.sleep(self._config.poll_s)

    async def _extend(
        self, beats: Sequence[tuple[WorkerSession | BeatFuture, TaskHeartbeat, str]]
    ) -> None:
        rows = {(run_of(b.task_id), b.task_id, b.token) for _, b, _ in beats}
        async with self._reads.connect() as conn:
            known = await claims.extend_tasks(conn, tasks=rows, ttl_s=self._config.task_lease_s)
        for sender, beat, namespace in beats:
            found = known.get((beat.task_id, beat.token))
            counts = found is not None and found[0] == namespace
            reason = found[1] if found is not None and counts else None
            if counts and beat.progress:
                self.progress(namespace, beat)
            if isinstance(sender, asyncio.Future):
                if not sender.done():
                    sender.set_result((counts, reason))
            elif not counts:
                sender.cancel(beat.task_id, beat.token, "lease_lost")
            elif reason is not None:
                sender.cancel(beat.task_id, beat.token, reason)


def _next_with_credit(sessions: list[WorkerSession]) -> WorkerSession | None:
    """The first session with credit; it moves to the end of the line."""
    for index, session in enumerate(sessions):
        if session.credit > 0:
            sessions.append(sessions.pop(index))
            return session
    return None


def _drop(table: defaultdict[KeyT, list[WorkerSession]], key: KeyT, session: WorkerSession) -> None:
    table[key].remove(session)
    if not table[key]:
        del table[key]


def _not_wired(*_: object) -> None:
    raise AssertionError("the engine connects this before it starts")

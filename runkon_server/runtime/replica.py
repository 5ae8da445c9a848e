"""One replica of the server: its parts, wired, started and stopped.

Started inside a running event loop and bound to it. All loops live in one task group: one that
fails ends the replica with the reason, it never goes on half alive.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from runkon_server import errors
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.arrivals import Arrivals
from runkon_server.runtime.attendance import Attendance
from runkon_server.runtime.audience import Audience
from runkon_server.runtime.builtin import BuiltinWorker, echo, sleeper
from runkon_server.runtime.committer import Committer
from runkon_server.runtime.dispatcher import Dispatcher
from runkon_server.runtime.hints import EVERYTHING, Hints, needs_in
from runkon_server.runtime.lessor import Lessor
from runkon_server.runtime.listener import Listener
from runkon_server.runtime.presence import Presence
from runkon_server.runtime.progress import ProgressFilter
from runkon_server.runtime.providers import ItemProviders
from runkon_server.runtime.registry import Registry
from runkon_server.runtime.scanner import Scanner
from runkon_server.runtime.stats import EngineStats
from runkon_server.runtime.sweeper import Sweeper
from runkon_server.runtime.tenure import Tenure
from runkon_server.store import claims
from runkon_server.store.database import close_reads, create_reads, is_connection_loss
from runkon_server.store.hints import send_last_hints
from runkon_server.store.quick_reads import QuickReads

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.builtin import Action
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.store.timelines import History

log = structlog.get_logger(__name__)

FIRST_SESSION_S: Final = 30.0
"""How long a start tries to get the pool's first session, and then waits for the listener's."""
FIRST_SESSION_PAUSE_S: Final = 0.5


class Replica:
    """Its parts and loops. `start` before anything else; `stop` hands everything over.

    Args:
        builtin: actions served inside the process, by namespace; `echo` and `sleep` of the
            namespace `default` are always there.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient | None = None,
        *,
        builtin: Mapping[str, Mapping[str, Action]] | None = None,
    ) -> None:
        self.config = config
        self.ambient = ambient or SystemAmbient()
        self._start_id = self.ambient.ulid()
        self.replica_id = self._start_id[-6:].lower()
        self.stats = EngineStats()
        self._builtin_actions = {
            "default": {"echo": echo, "sleep": sleeper(self.ambient)},
            **(builtin or {}),
        }
        self._builtin: list[BuiltinWorker] = []
        self._audience = Audience()
        self._history: History | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self.is_draining = False
        self.is_started = False

    # -- lifecycle -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and begin to take runs.

        Raises:
            DatabaseUnavailableError: PostgreSQL does not answer now.
        """
        loop = asyncio.get_running_loop()
        config, ambient, start_id, stats = self.config, self.ambient, self._start_id, self.stats
        self.reads: AsyncEngine = create_reads(
            config.dsn, config.lease_ttl_s, config.read_connections, is_pooled=config.is_pooled
        )
        self.quick_reads = QuickReads(config.dsn, config.lease_ttl_s, is_pooled=config.is_pooled)
        await self._require_database()
        self._failed = loop.create_future()
        self.tenure = Tenure(ambient.ulid, ended=self._stand_down)
        self._listener = Listener(
            config, ambient, start_id, self.tenure, stats,
            heard=self._heard, entered=self._entered,
        )  # fmt: skip
        self._hints = Hints(config, ambient, start_id, stats)
        self._listener.listening = self._hints.greet
        self._committer = self._new_committer()
        self._dispatcher = Dispatcher(config, ambient, self.reads, stats)
        self._registry = Registry(
            config, ambient, self._committer, self.tenure, self._dispatcher, self.reads, stats
        )
        self._presence = Presence(config, ambient, start_id, self.replica_id)
        self._scanner = Scanner(
            config, ambient, self.tenure, self.reads, self._registry, self._dispatcher, stats
        )
        self._scanner.gone = lambda: self._listener.gone
        self._attendance = Attendance(config, ambient, self.tenure, start_id, self.replica_id)
        self._scanner.publishers = (self._presence.publish, self._attendance.publish)
        self._arrivals = Arrivals(config, ambient, self.reads, self._dispatcher, stats)
        self._dispatcher.removed = self._presence.closed
        self._lessor = Lessor(
            config, ambient, self.tenure,
            held=self._registry.generations, lost=self._registry.lost, failed=self._fail,
        )  # fmt: skip
        self._dispatcher.report = self._registry.report
        self._dispatcher.progress = ProgressFilter(ambient, self._registry.submit).take
        self._dispatcher.unreached = self._scanner.look_for_tasks
        self._dispatcher.may_push = lambda: self._lessor.guard.is_good
        self._dispatcher.program = partial(self._registry.programs.load, self.reads)
        self._lessor.start()
        self._lanes = [self._spawn(self._committer.run_lane()) for _ in range(config.lanes)]
        self._tasks = [
            self._spawn(work)
            for work in (
                self._listener.run(),
                self._hints.run(),
                self._scanner.run_runs(),
                self._scanner.run_tasks(),
                self._scanner.run_idle(),
                self._scanner.run_facts(),
                self._scanner.run_partitions(),
                self._registry.notifier.run(),
                Sweeper(config, ambient, self.reads, stats).run(),
                self._arrivals.run(),
                self._dispatcher.run_claims(),
                self._dispatcher.run_polls(),
                self._dispatcher.run_heartbeats(),
            )
        ]
        self._start_builtin()
        self.is_started = True
        await self._require_lock()
        log.info("replica.started", replica=self.replica_id)

    def _new_committer(self) -> Committer:
        return Committer(
            self.config,
            self.ambient,
            self.tenure,
            self.stats,
            after_commit=self._after_commit,
            hint=self._hints.behind,
            hinted=self._hints.answered,
        )

    def _stand_down(self) -> None:
        self._registry.lose_all()
        # The others take tasks back from the server's own workers of a token that is gone.
        for worker in self._builtin:
            worker.rename(self.tenure.token)
        self._providers.rename(self.tenure.token)

    async def _require_database(self) -> None:
        """A session answers; that one was refused, or lost in its handshake, ends no process."""
        until_s = self.ambient.boottime_s() + FIRST_SESSION_S
        try:
            while not await self._has_session(is_last=self.ambient.boottime_s() >= until_s):
                await self.ambient.sleep(FIRST_SESSION_PAUSE_S)
        except BaseException:  # a start that is cancelled leaves nothing open either
            await close_reads(self.reads)
            raise

    async def _has_session(self, *, is_last: bool) -> bool:
        """Whether the database answers; if this attempt is the last one, it has to."""
        try:
            async with self.reads.connect() as conn:
                await conn.exec_driver_sql("SELECT 1")
        except Exception as error:
            if not is_connection_loss(error):
                raise
            if is_last:
                raise errors.DatabaseUnavailableError from error
            log.warning("database.awaited", reason=str(error).strip())
            return False
        return True

    async def _require_lock(self) -> None:
        """Runs may be taken once the others can see that we live."""
        try:
            async with asyncio.timeout(FIRST_SESSION_S):
                await self.tenure.wait_held()
        except TimeoutError as error:
            await self.stop()
            raise errors.DatabaseUnavailableError from error

    def _start_builtin(self) -> None:
        for namespace, actions in self._builtin_actions.items():
            worker = BuiltinWorker(
                self._dispatcher,
                self.ambient,
                self.tenure.token,
                namespace,
                actions,
                beat_s=self.config.task_lease_s / 3,
            )
            self._builtin.append(worker)
            worker.start()
        self._providers = ItemProviders(self._dispatcher, self.tenure.token, self.reads)
        self._providers.start()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Drain: end streams, commit what is queued, hand every run to the other replicas."""
        if not self.is_started or self.is_draining:
            return
        self.is_draining = self._scanner.is_draining = self._registry.is_draining = True
        failpoint("drain.begun")
        self._dispatcher.drain()
        self._attendance.drain()
        self._scanner.look_for_tasks()
        self._audience.drain.happened()
        for worker in self._builtin:
            worker.stop()
        self._providers.stop()
        self._committer.close()
        _, late = await asyncio.wait(self._lanes, timeout=grace_s)
        self._registry.stop()
        for task in [*late, *self._tasks]:
            task.cancel()
        await asyncio.gather(*self._lanes, *self._tasks, return_exceptions=True)
        self._committer.give_up()
        self.tenure.stop()
        with contextlib.suppress(Exception):  # the leases run out by themselves
            await self._dispatcher.give_back()
            async with self.reads.connect() as conn:
                await self._presence.withdraw(conn)
                await self._attendance.withdraw(conn)
                await failpoint_async("leases.hand_over")
                handed = 0
                for token in {self.tenure.token, *self.tenure.former}:
                    handed += await claims.hand_over(conn, token=token)
                await failpoint_async("leases.handed_over")
                log.info("replica.stopped", replica=self.replica_id, runs_handed_over=handed)
                await send_last_hints(conn, self._hints.farewell())
        await self._lessor.stop()
        await self.quick_reads.close()
        await close_reads(self.reads)

    async def wait_failed(self) -> None:
        """Return never; raise what ended one of the engine's loops."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            log.error("replica.loop_failed", exc_info=error)
            self._failed.set_exception(error)

    @property
    def database_is_up(self) -> bool:
        """Whether PostgreSQL answered within the last seconds."""
        return self.is_started and self._listener.is_up and self._committer.trouble is None

    # -- what it hears ---------------------------------------------------------------------------

    def _entered(self, history: History) -> None:
        """The listener has a session, on this server."""
        before, self._history = self._history, history
        if before in {None, history}:
            return
        log.warning("timeline.changed", before=str(before), now=str(history))
        self._registry.leave_timelines_but(history.timeline)
        self._audience.rewrite.happened()

    def _after_commit(self, batch: Batch) -> None:
        self._hints.tell(batch)
        for run_id, records in batch.events.items():
            self._audience.tell(run_id, records)

    def _heard(self, hint: dict[str, Any]) -> None:
        for run_id in hint.get("e", ()):
            self._audience.tell(run_id, None)
        facts = hint.get("f", ())
        for run_id in list(self._registry.actors) if facts == EVERYTHING else facts:
            self._registry.wake(run_id)
        if "r" in hint:
            self._scanner.look_for_runs()
        if "l" in hint:
            self._scanner.look_for_tasks()
        if "t" in hint:
            needs = needs_in(hint["t"])
            if needs is not None and "o" in hint:
                self._dispatcher.requeued(needs)
            else:
                self._dispatcher.look(needs)
        if "q" in hint:
            self._audience.start_requests.happened()
        for task_id, reason in hint.get("c", {}).items():
            self._dispatcher.cancel(task_id, reason)

"""The polls behind the hints: runs without an owner, tasks without a worker, idle runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import psycopg
import structlog

from runkon_server.core.facts import Outcome, Reported
from runkon_server.failpoints import failpoint_async
from runkon_server.runtime.commands import TaskReport
from runkon_server.runtime.hints import requeued_hint
from runkon_server.runtime.roster import need_of
from runkon_server.store import claims
from runkon_server.store.arrivals import take_back_from
from runkon_server.store.database import is_connection_loss, is_passing
from runkon_server.store.partitions import ensure_partitions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.dispatcher import Dispatcher
    from runkon_server.runtime.registry import Registry
    from runkon_server.runtime.roster import Need
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.runtime.tenure import Tenure

log = structlog.get_logger(__name__)

# The worker for them may be connected elsewhere.
_TELL_OF_TASKS = "SELECT pg_notify('runkon', %(hint)s)"

PARTITIONS_S = 6 * 3_600.0
PAUSE_MAX = 1.5
"""The longest pause between two looks, in the unit of `scan_s`; with its jitter, the shortest is a
third of that."""
DUE_PAUSE_S = 0.04
"""How long after the next timer, or lease of a task, is due it is looked for, ±50 %; many are taken
in one look."""


class Scanner:
    """Looks again and again, with jitter, at what nobody may have been told of."""

    def __init__(  # noqa: PLR0917 - it looks after everything
        self,
        config: EngineConfig,
        ambient: Ambient,
        tenure: Tenure,
        reads: AsyncEngine,
        registry: Registry,
        dispatcher: Dispatcher,
        stats: EngineStats,
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._tenure = tenure
        self._reads = reads
        self._registry = registry
        self._dispatcher = dispatcher
        self._stats = stats
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._due_in_s = math.inf
        self._deadline_in_s = math.inf
        self.is_draining = False
        self.publishers: Sequence[Callable[[AsyncConnection], Awaitable[None]]] = ()
        """Write who is there; the engine connects them before it starts."""
        self.gone: Callable[[], Collection[str]] = frozenset
        """The owners whose sessions are gone; connected likewise."""

    def look_for_runs(self) -> None:
        """Some run may be ready."""
        self._ready.set()

    def look_for_tasks(self) -> None:
        """Some task may have been told to stop that no worker here has."""
        self._lost.set()

    async def run_runs(self) -> None:
        """Take ready and orphaned runs."""
        while True:
            await self._registry.loader.room_to_load()
            taken = await self._guarded(self._acquire)
            if taken < self._config.acquire_batch:
                await self._guarded(self._find_next_due)
                await self._wait(self._ready, self._pause_before(self._due_in_s))

    async def run_tasks(self) -> None:
        """Hand out again, or settle, tasks whose worker is gone; tell who is there."""
        while True:
            await self._guarded(self._settle_lost)
            await self._wait(self._lost, self._pause_before(self._deadline_in_s))

    async def run_idle(self) -> None:
        """Park runs that only wait."""
        while True:
            await self._ambient.sleep(min(0.5, self._config.linger_s / 2))
            self._registry.park_idle()

    async def run_facts(self) -> None:
        """Go on with what nobody told of: facts for runs of ours, children for their parents."""
        while True:
            await self._ambient.sleep(self._config.poll_s * (0.5 + self._ambient.jitter()))
            await self._guarded(self._find_behind)
            await self._guarded(self._registry.notifier.scan)

    async def run_partitions(self) -> None:
        """Make the partitions of the months to come; a failure is only logged, rows have a home.

        Not at once: the migration has made three months, and a replica that stops right after its
        start should not leave a thread behind that holds a session.
        """
        while True:
            await self._ambient.sleep(PARTITIONS_S * (0.5 + self._ambient.jitter()))
            try:
                await asyncio.to_thread(ensure_partitions, self._config.session_dsn)
            except psycopg.Error as error:
                log.warning("partition.failed", error=str(error).strip())

    def _pause_before(self, due_in_s: float) -> float:
        """Until the next look: as always, or when the next timer or lease of a task is due."""
        pause_s = self._config.scan_s * (0.5 + self._ambient.jitter())
        # Not at the instant itself: all replicas would meet there, with one row at a time.
        due_s = max(0.0, due_in_s) + DUE_PAUSE_S * (0.5 + self._ambient.jitter())
        return min(pause_s, due_s)

    async def _find_next_due(self) -> int:
        self._due_in_s = math.inf
        async with self._reads.connect() as conn:
            self._due_in_s = await claims.next_due(conn)
        return 0

    async def _acquire(self) -> int:
        limit = min(self._config.acquire_batch, self._config.held_max - self._registry.held)
        if self.is_draining or not self._tenure.is_standing or limit <= 0:
            return 0
        await failpoint_async("runs.acquire")
        async with self._reads.connect() as conn:
            await self._hand_over_former(conn)
            taken = await claims.acquire(
                conn,
                token=self._tenure.token,
                ttl_s=self._config.lease_ttl_s,
                limit=limit,
                gone=self.gone(),
            )
        if taken:
            await failpoint_async("runs.acquired")
            self._count(taken)
            self._registry.load([run_id for run_id, _ in taken])
        return len(taken)

    async def _hand_over_former(self, conn: AsyncConnection) -> None:
        """Let go of what we owned under tokens that we have given up."""
        for token in sorted(self._tenure.former):
            await claims.hand_over(conn, token=token)
            self._tenure.former.discard(token)

    def _count(self, taken: Sequence[tuple[str, claims.How]]) -> None:
        steals = sum(how is claims.How.STOLEN for _, how in taken)
        orphans = sum(how is claims.How.ORPHANED for _, how in taken)
        self._stats.runs_acquired += len(taken)
        self._stats.steals += steals
        self._stats.orphans += orphans
        if steals:
            log.info("lease.stolen", runs=steals)
        if orphans:
            log.info("lease.inherited", runs=orphans)

    async def _find_behind(self) -> int:
        async with self._reads.connect() as conn:
            behind = await claims.find_behind(conn, token=self._tenure.token)
        for run_id in behind:
            self._registry.wake(run_id)
        return len(behind)

    async def _settle_lost(self) -> int:
        limit = self._config.deliveries_max
        self._deadline_in_s = math.inf
        async with self._reads.connect() as conn:
            # First: what runs out from here on is either found below or waited for.
            within_s = PAUSE_MAX * self._config.scan_s
            self._deadline_in_s = await claims.next_deadline(conn, within_s=within_s)
            requeued = await claims.requeue_lost(conn, deliveries_max=limit)
            if gone := self.gone():
                requeued += await take_back_from(conn, gone, deliveries_max=limit)
            needs = list(dict.fromkeys(need_of(*each) for each in requeued))
            if needs and self._stats.peers:
                await _tell_of(conn, needs)
            lost = await claims.find_lost(conn, deliveries_max=limit)
            for publish in self.publishers:
                await publish(conn)
        if lost:
            await failpoint_async("tasks.lost")
        if requeued:
            await failpoint_async("tasks.requeued")
            self._stats.tasks_redelivered += len(requeued)
            self._dispatcher.requeued(needs)
        for task in lost:
            self._registry.report(task.namespace, _settlement(task, limit), None)
        return len(requeued)

    async def _guarded(self, look: Callable[[], Awaitable[int]]) -> int:
        try:
            return await look()
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("scan.failed", look=look.__name__, error=str(error).strip())
            await self._ambient.sleep(self._config.poll_s)
            return 0

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        event.clear()


async def _tell_of(conn: AsyncConnection, needs: Sequence[Need]) -> None:
    """Hint at what is queued again; where no hint can be sent, others find it by themselves."""
    try:
        await conn.exec_driver_sql(_TELL_OF_TASKS, {"hint": requeued_hint(needs)})
    except Exception as error:
        if not is_passing(error) or is_connection_loss(error):
            raise
        log.warning("hints.lost", error=str(error).strip())


def _settlement(task: claims.LostTask, deliveries_max: int) -> TaskReport:
    """What the server says of a task that no worker will report."""
    if task.was_cancelled:
        fact = Reported(
            task_id=task.id, outcome=Outcome.CANCELLED, error="stopped", error_code="CANCELLED"
        )
    else:
        fact = Reported(
            task_id=task.id,
            outcome=Outcome.FAILED,
            error=f"the worker fell silent {deliveries_max} times",
            error_code="WORKER_LOST",
            retryable=task.kind == "gate",  # there is always another look
        )
    by_server = task.token is None
    return TaskReport(
        token=task.token or "", fact=fact, digest="settled by the server", by_server=by_server
    )

"""Workers that say which tasks they have: what they lack is handed out again at once.

Until that is done a worker is given nothing, so what is leased to it then was leased before, to a
stream that it has left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from runkon_server.runtime.roster import need_of
from runkon_server.store.arrivals import take_back
from runkon_server.store.database import is_passing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.dispatcher import Dispatcher
    from runkon_server.runtime.sessions import WorkerSession
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats

log = structlog.get_logger(__name__)

WORKERS_MAX: Final = 200
"""Of one statement: when a replica dies, all its workers arrive elsewhere at the same time."""


class Arrivals:
    """The sessions that have told what they have in hand and wait for their first task."""

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        reads: AsyncEngine,
        dispatcher: Dispatcher,
        stats: EngineStats,
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._reads = reads
        self._dispatcher = dispatcher
        self._stats = stats
        self._waiting: list[WorkerSession] = []
        self._wanted = asyncio.Event()

    def add(self, session: WorkerSession) -> None:
        """A worker came that tells what it has."""
        self._waiting.append(session)
        self._wanted.set()

    async def run(self) -> None:
        """See to them, many to a statement."""
        while True:
            await self._wanted.wait()
            sessions = [each for each in self._waiting if not each.is_closed]
            now, self._waiting = sessions[:WORKERS_MAX], sessions[WORKERS_MAX:]
            if not self._waiting:
                self._wanted.clear()
            try:
                await self._see_to(now)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("arrival.failed", error=str(error).strip())
                self._waiting[:0] = now
                self._wanted.set()
                await self._ambient.sleep(self._config.poll_s)

    async def _see_to(self, sessions: Sequence[WorkerSession]) -> None:
        in_hand = {
            (each.namespace, each.worker_id): each.hello.in_hand or frozenset() for each in sessions
        }
        if in_hand:
            async with self._reads.connect() as conn:
                taken = await take_back(
                    conn,
                    in_hand,
                    deliveries_max=self._config.deliveries_max,
                    ttl_s=self._config.task_lease_s,
                )
            if taken.again:
                log.info("tasks.taken_back", tasks=len(taken.again))
                self._stats.tasks_redelivered += len(taken.again)
                self._dispatcher.requeued(need_of(*each) for each in taken.again)
            if taken.over:
                self._dispatcher.unreached()
        for session in sessions:
            session.begin()

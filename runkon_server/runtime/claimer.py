"""Leases what waits in the queue to workers of this replica, on a session of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.failpoints import failpoint_async
from runkon_server.runtime.sessions import EVERYWHERE
from runkon_server.store.claiming import claim_items, claim_tasks, open_claims

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runkon_server.core.decision import TaskKind
    from runkon_server.runtime.sessions import WorkerSession
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.store.claiming import ClaimedTask
    from runkon_server.store.pipeline import Pipeline


class Claimer:
    """One claim at a time: whoever wants the next one waits for the answer to this one.

    Its session does not wait for the disk, and its claims do not wait for those who read.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._session: Pipeline | None = None

    async def take(
        self,
        worker: WorkerSession,
        kind: TaskKind,
        limit: int,
        *,
        named: Collection[tuple[str, str]],
        limited: Sequence[str],
    ) -> list[ClaimedTask]:
        """Lease tasks of one kind to a worker.

        Args:
            named: queue and action of what a fallback leaves to others.
            limited: actions that are handed out under their limits, elsewhere.

        Raises:
            psycopg.Error: what was leased meanwhile comes back when its leases run out.
        """
        names, ttl_s = sorted(worker.offers[kind]), self._config.task_lease_s
        session = self._session = self._session or await self._open()
        try:
            if worker.namespace == EVERYWHERE:
                claimed = await claim_items(
                    session, worker_id=worker.worker_id, names=names, limit=limit, ttl_s=ttl_s
                )
            else:
                claimed = await claim_tasks(
                    session,
                    kind,
                    worker.claimant,
                    names=names,
                    fallback=worker.is_fallback,
                    named=named,
                    limit=limit,
                    ttl_s=ttl_s,
                    limited=limited,
                )
        except BaseException:  # an answer may be on its way that nobody reads
            await self.close()
            raise
        if claimed:
            await failpoint_async("tasks.claimed")
        return claimed

    async def close(self) -> None:
        """End the session; the next claim gets another one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _open(self) -> Pipeline:
        return await open_claims(self._config.session_dsn, self._config.lease_ttl_s)

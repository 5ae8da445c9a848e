"""Removes what is kept no longer: one replica at a time, in small transactions, without hurry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from runkon_server.errors import RunkonError
from runkon_server.store import purging
from runkon_server.store.database import is_passing
from runkon_server.store.retention import read_retention
from runkon_server.store.transactions import in_transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.purging import Place, Purged

    _Step = Callable[[AsyncConnection], Awaitable[int]]

log = structlog.get_logger(__name__)

STEPS_MAX: Final = 500
"""Transactions of one pass: at most some 100,000 runs, then the others have their turn."""
BREATH_S: Final = 0.05
"""Between two transactions."""


class Sweeper:
    """The loop of one replica.

    Args:
        reads: the pool, for short transactions.
    """

    def __init__(
        self, config: EngineConfig, ambient: Ambient, reads: AsyncEngine, stats: EngineStats
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._reads = reads
        self._stats = stats

    async def run(self) -> None:
        """Pass after pass; never returns."""
        while True:
            await self._ambient.sleep(self._config.sweep_s * (0.5 + self._ambient.jitter()))
            try:
                await self.sweep()
            except Exception as error:
                if not isinstance(error, RunkonError) and not is_passing(error):
                    raise
                log.warning("sweep.failed", error=str(error).strip())

    async def sweep(self, *, only: str | None = None, older_than: timedelta | None = None) -> int:
        """One pass; gives the number of runs that were removed.

        Args:
            only: look at this namespace alone.
            older_than: remove what ended so long ago, whatever was set for its namespace.
        """
        removed = 0
        async with self._reads.connect() as conn:
            retention = await read_retention(conn)
            names = await purging.namespaces(conn)
        removed += await self._repeat(_half_gone)
        for namespace in names if only is None else [only]:
            keep_for = retention.of(namespace) if older_than is None else older_than
            if keep_for is not None:
                removed += await self._namespace(namespace, keep_for)
        await in_transaction(self._reads, _leftovers)
        if removed:
            log.info("runs.purged", runs=removed)
        return removed

    async def _namespace(self, namespace: str, keep_for: timedelta) -> int:
        place = purging.BEGINNING
        removed = 0
        for _ in range(STEPS_MAX):
            purged = await in_transaction(
                self._reads, partial(_due, namespace=namespace, keep_for=keep_for, after=place)
            )
            self._stats.runs_purged += purged.runs
            removed += purged.runs
            if purged.place is None:
                break
            place = purged.place
            await self._ambient.sleep(BREATH_S)
        return removed

    async def _repeat(self, step: _Step) -> int:
        removed = 0
        for _ in range(STEPS_MAX):
            number = await in_transaction(self._reads, step)
            self._stats.runs_purged += number
            removed += number
            if not number:
                break
            await self._ambient.sleep(BREATH_S)
        return removed


async def _due(
    conn: AsyncConnection, *, namespace: str, keep_for: timedelta, after: Place
) -> Purged:
    if not await purging.try_sweep_lock(conn):
        return purging.Purged(0, None)
    return await purging.purge_due(conn, namespace, keep_for, after)


async def _half_gone(conn: AsyncConnection) -> int:
    if not await purging.try_sweep_lock(conn):
        return 0
    return await purging.purge_half_gone(conn)


async def _leftovers(conn: AsyncConnection) -> int:
    if not await purging.try_sweep_lock(conn):
        return 0
    return await purging.sweep_leftovers(conn)

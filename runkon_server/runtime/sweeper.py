"""Removes what is kept no longer: one replica at a time, in small transactions, without hurry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from runkon_server.errors import RunkonError
from runkon_server.store import purging
from runkon_server.store.database import is_passing, is_too_slow
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


_Result = TypeVar("_Result")
_Step: TypeAlias = "Callable[..., Awaitable[_Result]]"

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
        self._at_once = purging.RUNS_AT_ONCE
        """Runs of one transaction: fewer, for the rest of a pass, after one that took too long."""

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
        self._at_once = purging.RUNS_AT_ONCE
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
            purged = await self._purge(
                partial(_due, namespace=namespace, keep_for=keep_for, after=place)
            )
            self._stats.runs_purged += purged.runs
            removed += purged.runs
            if purged.place is None:
                break
            place = purged.place
            await self._ambient.sleep(BREATH_S)
        return removed

    async def _purge(self, step: _Step[_Result]) -> _Result:
        """Carry a step out, with as many runs as the database removes in time."""
        while True:
            try:
                return await in_transaction(self._reads, partial(step, limit=self._at_once))
            except DBAPIError as error:
                if self._at_once == 1 or not is_too_slow(error):
                    raise
                self._at_once = max(1, self._at_once // 4)
                log.warning("sweep.too_slow", runs_at_once=self._at_once)

    async def _repeat(self, step: _Step[int]) -> int:
        removed = 0
        for _ in range(STEPS_MAX):
            number = await self._purge(step)
            self._stats.runs_purged += number
            removed += number
            if not number:
                break
            await self._ambient.sleep(BREATH_S)
        return removed


async def _due(
    conn: AsyncConnection, *, namespace: str, keep_for: timedelta, after: Place, limit: int
) -> Purged:
    if not await purging.try_sweep_lock(conn):
        return purging.Purged(0, None)
    return await purging.purge_due(conn, namespace, keep_for, after, limit)


async def _half_gone(conn: AsyncConnection, *, limit: int) -> int:
    if not await purging.try_sweep_lock(conn):
        return 0
    return await purging.purge_half_gone(conn, limit)


async def _leftovers(conn: AsyncConnection) -> int:
    if not await purging.try_sweep_lock(conn):
        return 0
    return await purging.sweep_leftovers(conn)

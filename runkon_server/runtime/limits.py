"""Handing out tasks of limited actions: through the queue only, one replica at a time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from runkon_server import errors
from runkon_server.store.action_limits import lock_allowance, read_limits, spend
from runkon_server.store.claiming import claim_limited
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.transactions import in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.sessions import WorkerSession
    from runkon_server.store.action_limits import ActionLimit
    from runkon_server.store.claiming import ClaimedTask

log = structlog.get_logger(__name__)

READ_S: Final = 1.0
"""How old what is known of the limits may be."""
PAUSE_MIN_S: Final = 0.02


class ActionLimits:
    """The limits of the database as of a second ago.

    Args:
        look: called when an action that was at its limit may have room again.
    """

    def __init__(
        self, ambient: Ambient, reads: AsyncEngine, task_lease_s: float, look: Callable[[], None]
    ) -> None:
        self._ambient = ambient
        self._reads = reads
        self._task_lease_s = task_lease_s
        self._look = look
        self._read_s = -1e9
        self._pauses: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self.known: dict[tuple[str, str], ActionLimit] = {}

    async def refresh(self) -> None:
        """Read them again, if that was long ago."""
        now_s = self._ambient.boottime_s()
        if now_s - self._read_s < READ_S:
            return
        async with self._reads.connect() as conn:
            self.known = await read_limits(conn)
        self._read_s = now_s

    def stop(self) -> None:
        """Look no more."""
        for handle in self._pauses.values():
            handle.cancel()
        self._pauses.clear()

    def limited(self, namespace: str) -> list[str]:
        """The limited actions of a namespace."""
        return [action for in_namespace, action in self.known if in_namespace == namespace]

    def is_at_limit(self, namespace: str, action: str) -> bool:
        """Whether an action is left alone because it can be given no more for now."""
        return (namespace, action) in self._pauses

    def open_to(
        self, session: WorkerSession, named: Collection[tuple[str, str]]
    ) -> list[tuple[str, frozenset[str]]]:
        """Those that a worker serves and that are not known to be at their limits.

        Args:
            named: queue and action, for those that some worker serves by name, so that fallbacks
                leave them alone.

        Returns:
            Each with the queues in which it is to be left alone.
        """
        found: list[tuple[str, frozenset[str]]] = []
        for action in self.limited(session.namespace):
            if (session.namespace, action) in self._pauses:
                continue
            if action in session.offers["action"]:
                found.append((action, frozenset()))
            elif session.is_fallback:
                left = frozenset(queue for queue, name in named if name == action)
                if EVERY_QUEUE not in left:
                    found.append((action, left))
        return found

    def freed(self) -> None:
        """A task was reported; what is limited in number may go on."""
        for key, handle in list(self._pauses.items()):
            limit = self.known.get(key)
            if limit is None or limit.per_s is None:
                handle.cancel()
                del self._pauses[key]
        if self.known:
            self._look()

    async def claim(
        self, session: WorkerSession, action: str, left: Collection[str], wished: int
    ) -> list[ClaimedTask]:
        """Lease as many of an action's tasks to a worker as its limits allow.

        Args:
            left: queues to leave alone.
        """
        body = partial(self._claim, session=session, action=action, left=left, wished=wished)
        try:
            return await in_transaction(self._reads, body)
        except (errors.ConflictError, errors.OutcomeUnknownError) as error:
            # What was leased and is not known of comes back when its leases run out.
            log.warning("claim.failed", action=action, error=error.message)
            self._pause(session.namespace, action)
            return []

    async def _claim(
        self,
        conn: AsyncConnection,
        *,
        session: WorkerSession,
        action: str,
        left: Collection[str],
        wished: int,
    ) -> list[ClaimedTask]:
        namespace = session.namespace
        allowance = await lock_allowance(conn, namespace, action, wished)
        if allowance is None:
            self._pause(namespace, action)
            return []
        claimed: list[ClaimedTask] = []
        if allowance.tasks:
            claimed = await claim_limited(
                conn, session.claimant, action, left=left, limit=allowance.tasks,
                ttl_s=self._task_lease_s,
            )  # fmt: skip
        if claimed and allowance.tokens is not None:
            await spend(conn, namespace, action, allowance.tokens - len(claimed))
        if len(claimed) == allowance.tasks < wished:
            self._pause(namespace, action)
        return claimed

    def _pause(self, namespace: str, action: str) -> None:
        """Leave an action alone until its bucket may hold another task."""
        key = (namespace, action)
        limit = self.known.get(key)
        per_s = limit.per_s if limit is not None else None
        pause_s = READ_S if per_s is None else min(READ_S, max(PAUSE_MIN_S, 1 / per_s))
        if (handle := self._pauses.pop(key, None)) is not None:
            handle.cancel()
        loop = asyncio.get_running_loop()
        self._pauses[key] = loop.call_later(pause_s, self._go_on, key)

    def _go_on(self, key: tuple[str, str]) -> None:
        self._pauses.pop(key, None)
        self._look()

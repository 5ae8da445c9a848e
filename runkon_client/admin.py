"""For operators: limits of actions, replicas, retention; administrators only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_client.calls import admin as calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from runkon_client.transport import AsyncTransport
    from runkon_client.values import ActionLimit, Replica, Retention


class Admin:
    """AdminService, of the client's namespace. Who is no administrator gets ADMIN_REQUIRED."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._namespace = transport.endpoint.namespace

    def limits(self, *, page_size: int = 0) -> AsyncIterator[ActionLimit]:
        """The limited actions by name, fetched page by page as they are taken."""
        return self._transport.pages(
            lambda token: calls.list_limits(self._namespace, page_size=page_size, token=token)
        )

    async def set_limit(
        self,
        action: str,
        *,
        concurrency: int | None = None,
        rate_per_s: float | None = None,
        request_id: str = "",
    ) -> ActionLimit | None:
        """Limit an action, instead of what was set for it; one of the two must be given.

        Gives the limit as it is now, None if a repeated request finds it cleared.

        Args:
            concurrency: tasks that may be with workers at once, 0 to 1,000,000; 0 stops it.
            rate_per_s: tasks that may be handed out in a second, above 0.
        """
        call = calls.set_limit(
            self._namespace,
            action,
            concurrency=concurrency,
            rate_per_s=rate_per_s,
            request_id=request_id,
        )
        return await self._transport.perform(call)

    async def clear_limit(self, action: str, *, request_id: str = "") -> bool:
        """Let an action run without limits; False if none was set."""
        call = calls.clear_limit(self._namespace, action, request_id=request_id)
        return await self._transport.perform(call)

    def replicas(self, *, page_size: int = 0) -> AsyncIterator[Replica]:
        """The servers on the database, newest first."""
        return self._transport.pages(
            lambda token: calls.list_replicas(self._namespace, page_size=page_size, token=token)
        )

    async def retention(self, *, for_all: bool = False) -> Retention:
        """How long runs are kept after their end; `for_all`: the default of all namespaces."""
        return await self._transport.perform(calls.get_retention(self._namespace, for_all=for_all))

    async def set_retention(
        self, keep_for: timedelta | None, *, for_all: bool = False, request_id: str = ""
    ) -> Retention:
        """Keep runs so long after their end; None: for ever."""
        call = calls.set_retention(
            self._namespace, keep_for=keep_for, for_all=for_all, request_id=request_id
        )
        return await self._transport.perform(call)

    async def inherit_retention(self, *, for_all: bool = False, request_id: str = "") -> Retention:
        """Forget what was set, so that the default holds again."""
        call = calls.set_retention(
            self._namespace, inherit=True, for_all=for_all, request_id=request_id
        )
        return await self._transport.perform(call)

    async def count_due(self, older_than: timedelta | None = None) -> int:
        """How many root runs `purge` would remove, if all below them have ended."""
        return await self._transport.perform(
            calls.count_due(self._namespace, older_than=older_than)
        )

    async def purge(self, older_than: timedelta | None = None) -> int:
        """Remove runs that are kept no longer, call after call; gives how many.

        Args:
            older_than: what ended so long ago, whatever the retention says.
        """
        removed = 0
        while batch := await self._transport.perform(
            calls.purge(self._namespace, older_than=older_than)
        ):
            removed += batch
        return removed

"""Mutations in a short transaction of their own; who repeats a request id gets the first answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from runkon_server.api.digests import digest_of
from runkon_server.api.identity import current_principal
from runkon_server.api.parsing.checks import namespace_of
from runkon_server.errors import RequestIdReusedError
from runkon_server.store.transactions import in_transaction
from runkon_server.store.workflows import claim_request, store_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.digests import Mutation
    from runkon_server.api.lookups import Lookups

__all__ = ["Answer", "Once"]

Answer: TypeAlias = dict[str, Any]
"""What is remembered of an answer: plain JSON."""


class _Engine(Protocol):
    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads and short transactions."""


class Once:
    """One request.

    Args:
        engine: where its work is done.
        lookups: finds earlier requests.
        request: its id may be empty; then every time counts.
        method: name of its RPC.
    """

    def __init__(self, engine: _Engine, lookups: Lookups, request: Mutation, method: str) -> None:
        self._engine = engine
        self._lookups = lookups
        self._request_id = request.request_id
        self._method = method
        self.namespace = namespace_of(request.namespace)
        self.principal = current_principal()
        self._digest = ""
        if self._request_id:
            self._digest = digest_of(request, namespace=self.namespace, principal=self.principal)

    async def earlier(self) -> Answer | None:
        """The answer to an earlier request of the same id.

        Raises:
            RequestIdReusedError: that one said something else.
        """
        if not self._request_id:
            return None
        stored = await self._lookups.request(self.namespace, self._request_id)
        if stored is None:
            return None
        if stored.digest != self._digest:
            raise RequestIdReusedError(self._request_id)
        return stored.response

    async def perform(
        self, body: Callable[[AsyncConnection], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        """What `body` answers, once that is committed; True beside an answer that was given before.

        Raises:
            RequestIdReusedError: the id came with another payload.
            ConflictError, OutcomeUnknownError: as `in_transaction` does.
        """
        answer = await self.earlier()
        if answer is not None:
            return answer, True
        answer = await in_transaction(self._engine.reads, lambda conn: self._first(conn, body))
        if answer is not None:
            return answer, False
        # The same request id, at the same moment: it was waited for, and is committed now.
        answer = await self.earlier()
        assert answer is not None
        return answer, True

    async def _first(
        self, conn: AsyncConnection, body: Callable[[AsyncConnection], Awaitable[Answer]]
    ) -> Answer | None:
        """None if another call has the request id."""
        namespace, request_id = self.namespace, self._request_id
        if not request_id:
            return await body(conn)
        if not await claim_request(
            conn,
            namespace=namespace,
            request_id=request_id,
            method=self._method,
            digest=self._digest,
        ):
            return None
        answer = await body(conn)
        await store_response(conn, namespace=namespace, request_id=request_id, response=answer)
        return answer

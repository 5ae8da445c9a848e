"""AdminService: limits of actions, replicas, retention. The guard lets only administrators in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc

from runkon.v1 import admin_pb2, admin_pb2_grpc
from runkon_server.api.once import Once
from runkon_server.api.parsing.checks import namespace_of, page_rows, span_of
from runkon_server.api.render.admin import render_limit, render_replica, render_retention
from runkon_server.store import action_limits, purging
from runkon_server.store.action_limits import ActionLimit
from runkon_server.store.replicas import list_replicas
from runkon_server.store.retention import (
    EVERY_NAMESPACE,
    read_retention,
    set_retention,
    unset_retention,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon_server.api.lookups import Lookups
    from runkon_server.api.once import Answer
    from runkon_server.api.page_tokens import PageTokens
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.retention import Retention

__all__ = ["AdminEngine", "AdminService"]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
PURGE_LOOKS_MAX: Final = 50
"""How often one call looks at further roots where none of those before can go."""


class AdminEngine(Protocol):
    """The part of the engine that AdminService needs."""

    stats: EngineStats

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads and short transactions."""


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Answers those who operate the system.

    Args:
        engine: started before the first call.
        lookups: finds earlier requests.
        tokens: makes and reads page tokens.
    """

    def __init__(self, engine: AdminEngine, lookups: Lookups, tokens: PageTokens) -> None:
        self._engine = engine
        self._lookups = lookups
        self._tokens = tokens

    async def SetActionLimit(
        self, request: admin_pb2.SetActionLimitRequest, context: Context
    ) -> admin_pb2.SetActionLimitResponse:
        """Limit an action, instead of what was set for it."""
        once = Once(self._engine, self._lookups, request, "SetActionLimit")
        limit = ActionLimit(
            request.concurrency if request.HasField("concurrency") else None,
            request.rate_per_second if request.HasField("rate_per_second") else None,
        )

        async def body(conn: AsyncConnection) -> Answer:
            await action_limits.set_limit(conn, once.namespace, request.action, limit)
            return {}

        _, replayed = await once.perform(body)
        response = admin_pb2.SetActionLimitResponse(replayed=replayed)
        async with self._engine.reads.connect() as conn:
            usages = await action_limits.usages_of(conn, once.namespace, [request.action])
        if request.action in usages:  # unless it was cleared meanwhile
            response.limit.CopyFrom(render_limit(once.namespace, usages[request.action]))
        return response

    async def ListActionLimits(
        self, request: admin_pb2.ListActionLimitsRequest, context: Context
    ) -> admin_pb2.ListActionLimitsResponse:
        """A page of the limited actions of a namespace."""
        namespace = namespace_of(request.namespace)
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            page = await action_limits.list_usages(
                conn, namespace, limit=page_rows(request.page_size), after=place[0] if place else ""
            )
        response = admin_pb2.ListActionLimitsResponse(
            limits=[render_limit(namespace, usage) for usage in page.rows]
        )
        if page.more:
            response.next_page_token = await self._tokens.seal(request, [page.rows[-1].action])
        return response

    async def ClearActionLimit(
        self, request: admin_pb2.ClearActionLimitRequest, context: Context
    ) -> admin_pb2.ClearActionLimitResponse:
        """Let an action run without limits."""
        once = Once(self._engine, self._lookups, request, "ClearActionLimit")

        async def body(conn: AsyncConnection) -> Answer:
            cleared = await action_limits.unset_limit(conn, once.namespace, request.action)
            return {"cleared": cleared}

        answer, replayed = await once.perform(body)
        return admin_pb2.ClearActionLimitResponse(cleared=answer["cleared"], replayed=replayed)

    async def ListReplicas(
        self, request: admin_pb2.ListReplicasRequest, context: Context
    ) -> admin_pb2.ListReplicasResponse:
        """A page of the replicas of the database."""
        place = await self._tokens.open(request)
        async with self._engine.reads.connect() as conn:
            page = await list_replicas(
                conn, limit=page_rows(request.page_size), below=place[0] if place else None
            )
        response = admin_pb2.ListReplicasResponse(replicas=map(render_replica, page.rows))
        if page.more:
            response.next_page_token = await self._tokens.seal(request, [page.rows[-1].token])
        return response

    async def GetRetention(
        self, request: admin_pb2.GetRetentionRequest, context: Context
    ) -> admin_pb2.GetRetentionResponse:
        """How long runs are kept."""
        name = _subject(request)
        return admin_pb2.GetRetentionResponse(
            retention=render_retention(name, await self._retention())
        )

    async def SetRetention(
        self, request: admin_pb2.SetRetentionRequest, context: Context
    ) -> admin_pb2.SetRetentionResponse:
        """Say how long runs are kept."""
        once = Once(self._engine, self._lookups, request, "SetRetention")
        name = _subject(request)

        async def body(conn: AsyncConnection) -> Answer:
            match request.WhichOneof("policy"):
                case "keep_for":
                    await set_retention(conn, name, span_of(request.keep_for))
                case "keep_forever":
                    await set_retention(conn, name, None)
                case _:
                    await unset_retention(conn, name)
            return {}

        _, replayed = await once.perform(body)
        return admin_pb2.SetRetentionResponse(
            retention=render_retention(name, await self._retention()), replayed=replayed
        )

    async def PurgeRuns(
        self, request: admin_pb2.PurgeRunsRequest, context: Context
    ) -> admin_pb2.PurgeRunsResponse:
        """Remove some of the runs that are kept no longer."""
        once = Once(self._engine, self._lookups, request, "PurgeRuns")
        if request.HasField("older_than"):
            keep_for: timedelta | None = span_of(request.older_than)
        else:
            keep_for = (await self._retention()).of(once.namespace)
        if request.dry_run:
            due = 0
            if keep_for is not None:
                async with self._engine.reads.connect() as conn:
                    due = await purging.count_due(conn, once.namespace, keep_for)
            return admin_pb2.PurgeRunsResponse(due=due)

        async def body(conn: AsyncConnection) -> Answer:
            return {"removed": await _purge_some(conn, once.namespace, keep_for)}

        answer, replayed = await once.perform(body)
        if not replayed:
            self._engine.stats.runs_purged += answer["removed"]
        return admin_pb2.PurgeRunsResponse(removed=answer["removed"], replayed=replayed)

    async def _retention(self) -> Retention:
        async with self._engine.reads.connect() as conn:
            return await read_retention(conn)


def _subject(request: admin_pb2.GetRetentionRequest | admin_pb2.SetRetentionRequest) -> str:
    """The name under which the retention is stored that is meant."""
    return EVERY_NAMESPACE if request.for_all else namespace_of(request.namespace)


async def _purge_some(conn: AsyncConnection, namespace: str, keep_for: timedelta | None) -> int:
    """Remove the first runs that may go, in this transaction; gives how many, 0 if none is left."""
    await purging.wait_for_sweep_lock(conn)
    removed = 0 if keep_for is None else await _purge_due(conn, namespace, keep_for)
    # Lower parts of trees that were too large for one call come last.
    return removed or await purging.purge_half_gone(conn)


async def _purge_due(conn: AsyncConnection, namespace: str, keep_for: timedelta) -> int:
    place = purging.BEGINNING
    for _ in range(PURGE_LOOKS_MAX):
        purged = await purging.purge_due(conn, namespace, keep_for, place)
        if purged.runs or purged.place is None:
            return purged.runs
        place = purged.place
    return 0

"""grpc.health.v1: whether this replica is ready for calls, and whether its process is alive.

The name "" and the names of the services stand for readiness: NOT_SERVING while the database is
away, before the start and from the beginning of a drain. The name `runkon.liveness` stands for the
process: SERVING as long as it answers, so that nobody restarts a replica because of its database.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from runkon_server.runtime.ambient import Ambient

__all__ = ["LIVENESS", "Health", "ask_health"]

LIVENESS: Final = "runkon.liveness"
_LOOK_S: Final = 0.1

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class Database(Protocol):
    """The part of the engine that is asked."""

    @property
    def database_is_up(self) -> bool:
        """Whether PostgreSQL answered lately."""


class Health(health_pb2_grpc.HealthServicer):
    """The health service of one replica.

    Not the stock servicer: that one holds a lock while it writes to a watcher, so one watcher that
    does not read would stop every change from being seen.

    Args:
        engine: whose database is looked at.
        services: full names of the services that are ready when the replica is.
    """

    def __init__(self, engine: Database, services: Iterable[str] = ()) -> None:
        self._engine = engine
        self._readiness = frozenset(("", *services))
        self._draining = False
        self._started = False
        self._told = False
        self._changed = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether calls are welcome."""
        return self._started and not self._draining and self._engine.database_is_up

    def begin(self) -> None:
        """The replica has started: ready as long as the database is up."""
        self._started = True
        self._tell()

    def drain(self) -> None:
        """Not ready any more, for good."""
        self._draining = True
        self._tell()

    async def watch_database(self, ambient: Ambient) -> None:
        """Tell the watchers when the database goes and comes; never returns."""
        while True:
            await ambient.sleep(_LOOK_S)
            if self.is_ready != self._told:
                self._tell()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """The state now; NOT_FOUND for a name that is not served."""
        status = self._status(request.service)
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: object, context: object) -> object:
        """The state of every name."""
        states = {name: self._status(name) for name in (*self._readiness, LIVENESS)}
        statuses = {
            name: health_pb2.HealthCheckResponse(status=state) for name, state in states.items()
        }
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined] # newer than the type stubs

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state now and after every change."""
        told = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            await changed.wait()

    def _status(self, name: str) -> int:
        if name == LIVENESS:
            return _SERVING
        if name not in self._readiness:
            return _UNKNOWN
        return _SERVING if self.is_ready else _NOT_SERVING

    def _tell(self) -> None:
        self._told = self.is_ready
        self._changed.set()
        self._changed = asyncio.Event()


def ask_health(address: str, service: str = "", *, timeout_s: float) -> str:
    """The name of the state that a server says it is in, such as `SERVING`.

    Raises:
        grpc.RpcError: the server does not answer, or not in time.
    """
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(  # type: ignore[attr-defined] # the type stubs leave the methods out
            health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
        )
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name

"""grpc.health.v1 over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runkon_server.api.health import LIVENESS, Health
from runkon_server.runtime.ambient import SystemAmbient
from support.replicas import FakeReplica, read, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVICE = "runkon.v1.RunService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Bench:
    """A served health service, its engine and its callers."""

    def __init__(self, replica: FakeReplica, health: Health, channel: grpc.aio.Channel) -> None:
        self.replica = replica
        self.health = health
        self._stub: Any = health_pb2_grpc.HealthStub(channel)

    async def check(self, service: str = "") -> int:
        answer = await self._stub.Check(health_pb2.HealthCheckRequest(service=service))
        status: int = answer.status
        return status

    def watch(self, service: str = "") -> Any:
        return self._stub.Watch(health_pb2.HealthCheckRequest(service=service))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    replica = FakeReplica()
    health = Health(replica, [SERVICE])

    def add(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)

    async with serving(add) as channel:
        looking = asyncio.create_task(health.watch_database(SystemAmbient()))
        yield Bench(replica, health, channel)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def test_a_replica_is_alive_before_it_is_ready(bench: Bench) -> None:
    """Ready only from `begin` on; alive all along."""
    before = [await bench.check(name) for name in ("", SERVICE, LIVENESS)]
    bench.health.begin()
    after = [await bench.check(name) for name in ("", SERVICE, LIVENESS)]

    assert before == [NOT_SERVING, NOT_SERVING, SERVING]
    assert after == [SERVING, SERVING, SERVING]


async def test_a_lost_database_is_seen_at_once_and_heals(bench: Bench) -> None:
    """A check looks at the database; a watch is told of both changes."""
    bench.health.begin()
    watch = bench.watch(SERVICE)
    seen = [(await read(watch)).status]

    bench.replica.database_is_up = False
    lost = [await bench.check(name) for name in ("", SERVICE, LIVENESS)]
    seen.append((await read(watch)).status)
    bench.replica.database_is_up = True
    seen.append((await read(watch)).status)

    assert lost == [NOT_SERVING, NOT_SERVING, SERVING]
    assert seen == [SERVING, NOT_SERVING, SERVING]
    assert await bench.check() == SERVING


async def test_a_drain_is_for_good(bench: Bench) -> None:
    """Whatever the database does."""
    bench.health.begin()
    watch = bench.watch()
    await read(watch)

    bench.health.drain()
    drained = (await read(watch)).status
    bench.replica.database_is_up = True

    assert drained == NOT_SERVING
    assert await bench.check() == NOT_SERVING
    assert await bench.check(LIVENESS) == SERVING


async def test_an_unknown_service_is_unknown(bench: Bench) -> None:
    """As the protocol wants it: NOT_FOUND for a check, a state for a watch."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await bench.check("no.such.Service")
    watched = (await read(bench.watch("no.such.Service"))).status

    assert failed.value.code() is grpc.StatusCode.NOT_FOUND
    assert watched == UNKNOWN

"""The whole API on a real engine and a real database, served and called in this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from runkon.v1 import (
    admin_pb2_grpc,
    gates_pb2_grpc,
    runs_pb2_grpc,
    workers_pb2,
    workers_pb2_grpc,
    workflows_pb2_grpc,
)
from runkon_server.api.health import Health
from runkon_server.api.identity import LocalIdentity
from runkon_server.api.open_streams import OpenStreams
from runkon_server.api.server import SERVICES, Parts, bind, build_server
from runkon_server.api.start_inbox import StartInbox
from runkon_server.api.streaming import Streaming
from runkon_server.api.workers import WorkerService
from runkon_server.runtime.engine import Engine
from runkon_server.runtime.settings import EngineConfig
from support.replicas import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from runkon_server.api.identity import Identity


class LiveApi:
    """A replica and stubs to call it."""

    def __init__(self, engine: Engine, channel: grpc.aio.Channel, address: str) -> None:
        self.engine = engine
        self.channel = channel
        self.address = address
        self.runs = runs_pb2_grpc.RunServiceStub(channel)
        self.gates = gates_pb2_grpc.GateServiceStub(channel)
        self.workflows = workflows_pb2_grpc.WorkflowServiceStub(channel)
        self.workers = workers_pb2_grpc.WorkerServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)


@contextlib.asynccontextmanager
async def live_api(
    database: str, *, identity: Identity | None = None, **settings: Any
) -> AsyncIterator[LiveApi]:
    """Serve the database as long as the context lasts; `settings` are those of `EngineConfig`."""
    engine = Engine(EngineConfig(dsn=database, **settings))
    streams = Streaming(engine, OpenStreams(identity or LocalIdentity()))
    health = Health(engine, SERVICES)
    parts = Parts(streams=streams, workers=WorkerService(engine), health=health)
    server = build_server(engine, parts)
    address = f"127.0.0.1:{bind(server, '127.0.0.1:0')}"
    await engine.start()
    await server.start()
    health.begin()
    loops = [
        asyncio.create_task(streams.follow(engine.ambient)),
        asyncio.create_task(StartInbox(engine).follow()),
    ]
    try:
        options = [("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield LiveApi(engine, channel, address)
    finally:
        for loop in loops:
            loop.cancel()
        results = await asyncio.gather(*loops, return_exceptions=True)
        failures = [each for each in results if not isinstance(each, asyncio.CancelledError)]
        await engine.stop()
        await server.stop(0)
        assert not failures, failures


@contextlib.asynccontextmanager
async def worker_stream(api: LiveApi, hello: workers_pb2.WorkerHello) -> AsyncIterator[str]:
    """A worker that says hello and takes nothing; gives the name of its replica."""
    call: Any = api.workers.Work()
    await call.write(workers_pb2.WorkRequest(hello=hello))
    try:
        yield (await read(call)).welcome.replica
    finally:
        call.cancel()


class Refusal:
    """An error as a caller sees it."""

    def __init__(self, error: Any) -> None:
        status: Any = rpc_status.from_call(error)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            for message in (info, bad):
                if detail.Is(message.DESCRIPTOR):
                    detail.Unpack(message)
        self.code = error.code()
        self.message: str = status.message
        self.reason: str = info.reason
        self.metadata = dict(info.metadata)
        self.fields = [violation.field for violation in bad.field_violations]
        self.kinds = {detail.TypeName().rpartition(".")[2] for detail in status.details}


async def refusal(call: Awaitable[Any]) -> Refusal:
    """How a call is refused; fails if it is not."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return Refusal(raised.value)

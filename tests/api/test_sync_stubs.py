"""The server as pytest-grpc's fixtures and a synchronous stub see it.

The plugin knows synchronous servers only, so its server is replaced: the real one runs with its
loop on a thread of its own, and here there is none.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runkon.v1 import gates_pb2, gates_pb2_grpc, runs_pb2, runs_pb2_grpc
from runkon_server.api.server import SERVICES
from support.live_api import Refusal, live_api
from support.postgres import cloned

if TYPE_CHECKING:
    from collections.abc import Iterator

GATED = "workflow gated { call echo gate human_review { name = check } call echo }"


@pytest.fixture(scope="module")
def grpc_addr(postgres_server: str, template_database: str) -> Iterator[str]:
    """The address of a whole replica."""
    started = threading.Event()
    box: dict[str, Any] = {}

    async def serve(database: str) -> None:
        box["loop"], box["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with live_api(database) as api:
            box["address"] = api.address
            started.set()
            await box["stop"].wait()

    with cloned(postgres_server, template_database) as database:
        thread = threading.Thread(target=lambda: asyncio.run(serve(database)), daemon=True)
        thread.start()
        assert started.wait(60)
        yield box["address"]
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(60)


@pytest.fixture(scope="module")
def grpc_server(grpc_addr: str) -> str:
    """Nothing to start: the replica serves."""
    return grpc_addr


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[runs_pb2_grpc.RunServiceStub]:
    return runs_pb2_grpc.RunServiceStub


def test_a_run_from_start_over_its_gate_to_the_end(
    grpc_stub: Any, grpc_channel: grpc.Channel
) -> None:
    """The three calls, and every event once and in order."""
    run = grpc_stub.StartRun(runs_pb2.StartRunRequest(source=GATED)).run
    gates = gates_pb2_grpc.GateServiceStub(grpc_channel)
    seqs: list[int] = []
    end = None
    for frame in grpc_stub.StreamRunEvents(runs_pb2.StreamRunEventsRequest(run_id=run.id)):
        for event in frame.events.events:
            seqs.append(event.seq)
            if event.WhichOneof("payload") == "gate_waiting":
                gates.ResolveGate(
                    gates_pb2.ResolveGateRequest(
                        gate_id=event.gate_waiting.gate.id,
                        decision=gates_pb2.GATE_DECISION_APPROVE,
                    )
                )
        if frame.WhichOneof("frame") == "end":
            end = frame.end

    assert end is not None
    assert end.head_seq == seqs[-1]
    assert seqs == list(range(1, len(seqs) + 1))


def test_errors_reach_a_synchronous_caller_whole(grpc_stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        grpc_stub.GetRun(runs_pb2.GetRunRequest(run_id="nonsense"))
    error = Refusal(raised.value)

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.fields == ["run_id"]


def test_every_service_is_reflected_and_healthy(grpc_channel: grpc.Channel) -> None:
    """What grpcurl asks first; the descriptors are those of the contract."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(grpc_channel)
    wishes = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="runkon.v1.RunService"),
    ]
    listed, described = stub.ServerReflectionInfo(iter(wishes))
    names = {service.name for service in listed.list_services_response.service}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data).name
        for data in described.file_descriptor_response.file_descriptor_proto
    ]
    health: Any = health_pb2_grpc.HealthStub(grpc_channel)

    assert {*SERVICES, "grpc.health.v1.Health"} <= names
    assert "runkon/v1/runs.proto" in files
    for name in ("", *SERVICES):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

"""The gRPC server of a replica: options, services, and where it listens."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runkon.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    gates_pb2,
    gates_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    workers_pb2,
    workers_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)
from runkon_server.api.admin import AdminEngine, AdminService
from runkon_server.api.definitions import Definitions
from runkon_server.api.gates import GateEngine, GateService
from runkon_server.api.interceptor import CallGuard, CallObserver
from runkon_server.api.lookups import Lookups, Reader
from runkon_server.api.page_tokens import PageTokens, stored_key
from runkon_server.api.runs import RunEngine, RunService
from runkon_server.api.workflows import WorkflowService

if TYPE_CHECKING:
    from runkon_server.api.streaming import Streaming

__all__ = ["SERVICES", "AddressError", "Parts", "ServedEngine", "bind", "build_server", "is_local"]

MESSAGE_BYTES: Final = 4 * 1024 * 1024

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # A second process on the port must fail instead of taking a share of the calls.
    ("grpc.so_reuseport", 0),
    # The limit also holds for what a compressed message unpacks to.
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Calls beyond these are dropped as CANCELLED before anybody sees them; the defaults are met
    # by a burst of some 2,000.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # Per connection. Event streams and long polls of a whole program share one, and a call beyond
    # the limit waits in silence.
    ("grpc.max_concurrent_streams", 1_000),
    # A peer that does not answer a ping within the second time is given up. The ping's own
    # timeout decides: keepalive_timeout alone does nothing.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # How often clients may ping; the default of 5 min ends connections of those that do it sooner.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
)

SERVICES: Final[tuple[str, ...]] = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (runs_pb2, "RunService"),
        (gates_pb2, "GateService"),
        (workflows_pb2, "WorkflowService"),
        (workers_pb2, "WorkerService"),
        (admin_pb2, "AdminService"),
    )
)
"""Full names of what a replica serves."""


class AddressError(ValueError):
    """A listener's address cannot be used; the text says why."""


class ServedEngine(RunEngine, GateEngine, AdminEngine, Reader, Protocol):
    """The engine as the services of runs, gates, workflows and administration need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the caller has built before: it also starts and stops them."""

    streams: Streaming
    workers: workers_pb2_grpc.WorkerServiceServicer
    health: health_pb2_grpc.HealthServicer
    observer: CallObserver | None = None


def build_server(
    engine: ServedEngine, parts: Parts, *, with_reflection: bool = True
) -> grpc.aio.Server:
    """A server with every service, not yet bound and not started. Call it in the running loop.

    Args:
        engine: started before the first call comes.
        with_reflection: whether tools such as grpcurl may ask what is served.
    """
    server = grpc.aio.server(
        interceptors=[CallGuard(engine.ambient, parts.observer, parts.streams.open_streams)],
        options=OPTIONS,
        # Sent as they are: an answer that mixes secrets with what a caller wrote leaks by its size.
        compression=grpc.Compression.NoCompression,
    )
    definitions = Definitions()
    lookups = Lookups(engine, definitions)
    tokens = PageTokens(stored_key(engine))
    runs_pb2_grpc.add_RunServiceServicer_to_server(
        RunService(engine, lookups, definitions, tokens, parts.streams), server
    )
    gates_pb2_grpc.add_GateServiceServicer_to_server(
        GateService(engine, lookups, tokens, parts.streams.gates), server
    )
    workflows_pb2_grpc.add_WorkflowServiceServicer_to_server(
        WorkflowService(engine, lookups, definitions, tokens), server
    )
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(engine, lookups, tokens), server)
    workers_pb2_grpc.add_WorkerServiceServicer_to_server(parts.workers, server)
    health_pb2_grpc.add_HealthServicer_to_server(parts.health, server)
    if with_reflection:
        names = (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server


def is_local(address: str) -> bool:
    """Whether only this machine reaches the address: a Unix socket or a loopback one."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(server: grpc.aio.Server, address: str, *, insecure: bool = False) -> int:
    """Listen on `HOST:PORT` (port 0: any that is free) or `unix:PATH`, without TLS.

    Args:
        insecure: also where other machines can reach it, who then are whoever they say.

    Returns:
        The port; 0 or 1 for a Unix socket.

    Raises:
        AddressError: it is no address, taken, or open to other machines without `insecure`.
    """
    if not address.startswith(("unix:", "unix-abstract:")):
        _, _, port = address.rpartition(":")
        if not port.isdecimal() or address.count(":") == 0:
            raise AddressError(f"{address!r} is neither HOST:PORT nor unix:PATH")
    if not insecure and not is_local(address):
        raise AddressError(
            f"{address} can be reached from other machines and has no TLS;"
            " listen on 127.0.0.1 or a Unix socket, or say --insecure"
        )
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {address}: is another process there?") from error

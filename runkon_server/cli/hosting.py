"""A replica as a process: put together, started, watched over, and stopped in good order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click
import structlog
from prometheus_client import start_http_server

from runkon_server import failpoints
from runkon_server.api.health import Health
from runkon_server.api.identity import LocalIdentity
from runkon_server.api.metrics import Metrics
from runkon_server.api.open_streams import OpenStreams, StreamLimits
from runkon_server.api.server import SERVICES, AddressError, Parts, bind, build_server
from runkon_server.api.start_inbox import StartInbox
from runkon_server.api.streaming import Streaming
from runkon_server.api.workers import WorkerService
from runkon_server.cli.collecting import spare_the_loop
from runkon_server.cli.listening import Address, free_unix_path
from runkon_server.cli.stacks import log_stacks_on_signal
from runkon_server.errors import DatabaseUnavailableError
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.engine import Engine
from runkon_server.runtime.settings import EngineConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import grpc

log = structlog.get_logger(__name__)

STOP_GRACE_S: Final = 0.3
"""How long calls may run on after the engine has handed its runs over."""
READY_S: Final = 5.0
READY_LOOK_S: Final = 0.01
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What a replica is told on the command line."""

    dsn: str
    direct_dsn: str | None = None
    listen: tuple[Address, ...]
    metrics_port: int | None = None
    lease_ttl_s: float = 30.0
    task_lease_s: float = 30.0
    reflection: bool = True
    streams: StreamLimits = field(default_factory=StreamLimits)


def run_host(config: HostConfig, tell_ready: Callable[[Sequence[Address]], None]) -> None:
    """Run a replica until SIGTERM or SIGINT.

    Args:
        config: what it is told.
        tell_ready: called once with the addresses it listens on.

    Raises:
        click.ClickException: it could not start, or one of its loops failed.
    """
    host = _Host(config)
    asyncio.run(host.run(tell_ready))
    if host.failed:
        raise click.ClickException("a part of the server failed; the log says how")


class _Host:
    """One replica's parts. Lives in one event loop."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._ambient = SystemAmbient()
        self._stop = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self.failed = False

    async def run(self, tell_ready: Callable[[Sequence[Address]], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if armed := failpoints.fired():
            log.warning("failpoints.armed", points=sorted(armed))
        log_stacks_on_signal(loop)
        ambient = self._ambient
        engine = Engine(self._engine_config(), ambient)
        health = Health(engine, SERVICES)
        streams = Streaming(engine, OpenStreams(LocalIdentity(), self._config.streams))
        metrics = Metrics(engine, streams)
        parts = Parts(
            streams=streams,
            workers=WorkerService(engine),
            health=health,
            observer=metrics,
        )
        server = build_server(engine, parts, with_reflection=self._config.reflection)
        listening = [_bind(server, address) for address in self._config.listen]
        if not await self._start(engine):
            log.info("server.stopped", replica=engine.replica_id, failed=False)
            return
        try:
            self._serve_metrics(metrics, listening[0])
            await server.start()
            self._supervise("engine", engine.wait_failed())
            self._supervise("health", health.watch_database(ambient))
            self._supervise("streams", streams.follow(ambient))
            self._supervise("start inbox", StartInbox(engine).follow())
            self._supervise("metrics", metrics.follow(ambient))
            health.begin()
            await self._await_ready(health)
            spare_the_loop()
            log.info(
                "server.started",
                replica=engine.replica_id,
                listen=[address.target for address in listening],
            )
            failpoints.serving()
            tell_ready(listening)
            await self._stop.wait()
        finally:
            health.drain()
            for task in self._loops:
                task.cancel()
            await engine.stop()
            await server.stop(STOP_GRACE_S)
            log.info("server.stopped", replica=engine.replica_id, failed=self.failed)

    async def _start(self, engine: Engine) -> bool:
        """Start the engine, unless a signal comes first; whether it runs.

        Raises:
            click.ClickException: PostgreSQL does not answer.
        """
        starting = asyncio.create_task(engine.start())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        try:
            await starting
        except DatabaseUnavailableError as error:
            raise click.ClickException(f"cannot start: {error.message}") from None
        except asyncio.CancelledError:
            await engine.stop()
            return False
        return True

    async def _await_ready(self, health: Health) -> None:
        """Wait until calls are welcome, so that `ready` means it; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while not (health.is_ready or self._stop.is_set()):
                    await self._ambient.sleep(READY_LOOK_S)

    def _engine_config(self) -> EngineConfig:
        ttl_s = self._config.lease_ttl_s
        return EngineConfig(
            dsn=self._config.dsn,
            direct_dsn=self._config.direct_dsn,
            lease_ttl_s=ttl_s,
            lease_refresh_s=ttl_s / 3,
            task_lease_s=self._config.task_lease_s,
        )

    def _serve_metrics(self, metrics: Metrics, first: Address) -> None:
        port = self._config.metrics_port
        if port is None:
            return
        host = first.host or LOOPBACK
        try:
            server, _ = start_http_server(port, addr=host, registry=metrics.registry)
        except OSError as reason:
            raise click.ClickException(
                f"cannot serve metrics on {host}:{port}: {reason.strerror}"
            ) from None
        log.info("metrics.started", host=host, port=server.server_port)

    def _supervise(self, name: str, loop: Coroutine[None, None, None]) -> None:
        """Run a loop that is to go on for ever; its end is the server's."""
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._on_loop_end)
        self._loops.append(task)

    def _on_loop_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        log.error("loop.failed", loop=task.get_name(), exc_info=task.exception())
        self.failed = True
        self._stop.set()

    def _on_signal(self, number: int) -> None:
        log.info("server.stopping", signal=signal.Signals(number).name)
        self._stop.set()


def _bind(server: grpc.aio.Server, address: Address) -> Address:
    """Open a listener.

    Raises:
        click.ClickException: the address is taken or not ours.
    """
    if address.path:
        free_unix_path(address.path)
    try:
        # Whether others may reach it was decided before the database was asked for anything.
        port = bind(server, address.target, insecure=True)
    except AddressError as reason:
        raise click.ClickException(str(reason)) from None
    return address.with_port(port)


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    log.error(
        "loop.error",
        reason=context.get("message"),
        exc_info=error if isinstance(error, BaseException) else None,
    )

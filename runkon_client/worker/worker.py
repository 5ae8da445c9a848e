"""The worker: takes tasks over one stream, executes them, reports what came of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import uuid
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeVar

from runkon.v1 import workers_pb2
from runkon_client.channel import WORKER_CHANNEL_OPTIONS, resolve_endpoint
from runkon_client.retry import RetryPolicy
from runkon_client.transport import AsyncTransport
from runkon_client.worker.actions import Actions
from runkon_client.worker.engine import Engine
from runkon_client.worker.ledger import CREDIT_MAX
from runkon_client.worker.script_tasks import serve_scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_client.worker.actions import Action, Middleware
    from runkon_client.worker.gates import GateResolver
    from runkon_client.worker.items import ItemProvider
    from runkon_client.worker.scripts import ScriptRunner

_CLOSE_S: Final = 2.0  # for the server to end a stream that the worker has closed

_A = TypeVar("_A", bound="Action")
_M = TypeVar("_M", bound="Middleware")
_I = TypeVar("_I", bound="ItemProvider")
_G = TypeVar("_G", bound="GateResolver")


class Worker:
    """Executes the work of runs, at most `concurrency` tasks at a time.

    Address, namespace and principal are found as those of `Client`; nothing is connected before
    `run`. It reconnects for ever: tasks in hand go on meanwhile, and their reports follow on the
    next stream. When it is stopped it finishes what it holds for at most `grace`; what is not done
    then is left to other workers, once its lease has run out. A plain function that ignores
    `task.cancelled` keeps the process from ending.

    Args:
        queues: it is given tasks of runs whose label `queue` is one of these; `default` is the
            queue of runs without the label, and the only one if this is empty, `*` is every queue.
            At most 32.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        namespace: str | None = None,
        principal: str | None = None,
        worker_id: str | None = None,
        concurrency: int = 16,
        actions: Actions | None = None,
        grace: timedelta = timedelta(seconds=30),
        queues: Sequence[str] = (),
    ) -> None:
        if isinstance(queues, str):
            raise TypeError(f"queues is a sequence of names, such as [{queues!r}]")
        if not 1 <= concurrency <= CREDIT_MAX:
            raise ValueError(f"concurrency is 1 to {CREDIT_MAX}, not {concurrency}")
        self.worker_id = worker_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.actions = actions or Actions()
        self._endpoint = resolve_endpoint(address, namespace, principal)
        self.queues = tuple(queues)
        self._concurrency = concurrency
        self._grace = grace
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    def action(self, name: str) -> Callable[[_A], _A]:
        """Execute the calls of this name with the decorated function: see `Actions`."""
        return self.actions.action(name)

    def middleware(self, function: _M) -> _M:
        """Run the decorated coroutine function around every task: see `Actions`."""
        return self.actions.middleware(function)

    def fallback(self, function: _A) -> _A:
        """Execute every action that no connected worker names: see `Actions`."""
        return self.actions.fallback(function)

    def items(self, provider: str) -> Callable[[_I], _I]:
        """Find the items of each `foreach` over this provider: see `Actions`."""
        return self.actions.items(provider)

    def gate(self, gate_type: str) -> Callable[[_G], _G]:
        """Look after the gates of this type: see `Actions`."""
        return self.actions.gate(gate_type)

    def scripts(self, runner: ScriptRunner) -> None:
        """Execute scripts, on this machine, with a runner of `runkon_client.worker.scripts`."""
        self.actions.scripts(serve_scripts(runner))

    def stop(self) -> None:
        """Ask the worker to drain and end; from any thread, and more than once."""
        self._is_stopping = True
        loop, stopped = self._loop, self._stopped  # `run` may be ending in its own thread
        if loop is not None and stopped is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stopped.set)

    async def run(self) -> None:
        """Work until `stop`; a worker that was stopped does nothing more.

        Raises:
            RuntimeError: it is at work already.
            ValueError: it has nothing to offer.
            RunkonClientError: the server refuses the worker; it is not tried again.
        """
        if self.actions.is_empty:
            raise ValueError("a worker needs something to offer: an action, for one")
        if self._stopped is not None:
            raise RuntimeError("this worker is at work already: make another one")
        if self._is_stopping:
            return
        self._loop = asyncio.get_running_loop()
        self._stopped = stop = asyncio.Event()
        try:
            await self._work_until(stop)
        finally:
            self._stopped = None

    async def _work_until(self, stop: asyncio.Event) -> None:
        transport = AsyncTransport(self._endpoint, RetryPolicy(), WORKER_CHANNEL_OPTIONS)
        engine = Engine(transport, self._hello(), self.actions)
        serving = asyncio.create_task(engine.serve())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await self._drain(engine, serving)
            if serving.done():
                serving.result()
        finally:
            for task in (serving, stopped):
                task.cancel()
            await engine.abandon()
            await asyncio.gather(serving, stopped, return_exceptions=True)
            await transport.close()
            await self.actions.close()

    def run_forever(self) -> None:
        """Work until SIGTERM or SIGINT, in an event loop of its own; a second signal cuts short.

        Raises:
            RuntimeError: this is not the main thread, which alone is told of signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "signals reach the main thread only: in another one use asyncio.run(worker.run()),"
                " and worker.stop() to end it"
            )
        asyncio.run(self._run_with_signals())

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.current_task()
        assert running is not None

        def on_signal() -> None:
            if self._is_stopping:
                running.cancel()
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        try:
            await self.run()
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _drain(self, engine: Engine, serving: asyncio.Task[None]) -> None:
        draining = asyncio.create_task(engine.drain(self._grace.total_seconds()))
        try:
            # A server that refuses the worker meanwhile ends the wait for it.
            await asyncio.wait({draining, serving}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({serving}, timeout=_CLOSE_S)
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    def _hello(self) -> workers_pb2.WorkerHello:
        return workers_pb2.WorkerHello(
            namespace=self._endpoint.namespace,
            worker_id=self.worker_id,
            actions=self.actions.names,
            item_providers=self.actions.item_providers,
            gate_types=self.actions.gate_types,
            scripts=self.actions.has_scripts,
            concurrency=self._concurrency,
            queues=self.queues,
            client=f"runkon-python/{version('runkon')}",
        )

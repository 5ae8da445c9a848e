"""A whole server inside another process, with a clock that can be moved: for tests of workflows.

Nothing in it is simulated: it is the engine and the API as they are, on a PostgreSQL of its own.
Every instant that matters to runs is the database's, so moving the clock is a matter of one
function there: `clock_timestamp()` is found in a schema of ours before PostgreSQL's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from runkon_server.api.health import Health
from runkon_server.api.identity import LocalIdentity
from runkon_server.api.open_streams import OpenStreams, StreamLimits
from runkon_server.api.server import SERVICES, Parts, bind, build_server
from runkon_server.api.start_inbox import StartInbox
from runkon_server.api.streaming import Streaming
from runkon_server.api.workers import WorkerService
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.engine import Engine
from runkon_server.runtime.settings import EngineConfig
from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.migrations import upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType

_SEARCH_PATH: Final = "runkon_clock,public,pg_catalog"
_CLOCK: Final = """
CREATE SCHEMA runkon_clock;
CREATE UNLOGGED TABLE runkon_clock.shift (by interval NOT NULL);
INSERT INTO runkon_clock.shift VALUES (interval '0');
CREATE FUNCTION runkon_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + (SELECT by FROM runkon_clock.shift)';
"""
_SKIP: Final = (
    "UPDATE runkon_clock.shift SET by = by + %(by)s",
    # What tells whether somebody is alive moves along: nobody has been silent in the meantime.
    "UPDATE workflow_runs SET lease_until = lease_until + %(by)s WHERE lease_until IS NOT NULL",
    "UPDATE tasks SET lease_until = lease_until + %(by)s WHERE lease_until IS NOT NULL",
    "UPDATE workers SET seen_at = seen_at + %(by)s, expires_at = expires_at + %(by)s",
    'SELECT pg_notify(\'runkon\', \'{"s": "", "r": 1}\')',
)
_STOP_GRACE_S: Final = 0.3


class LocalServerFailedError(Exception):
    """A part of the server ended though it should go on for ever; the cause says why."""


class LocalServer:
    """Runs from `start` to `stop`, in a thread and a folder of its own, on a port of loopback.

    The folder and all that is stored are gone in the end. `with LocalServer() as server:` does
    both.
    """

    def __init__(self) -> None:
        self._running = contextlib.ExitStack()
        self._replica: _Replica | None = None
        self._dsn = ""
        self._address = ""
        self._namespaces = itertools.count(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where it listens, `127.0.0.1:PORT`."""
        return self._address

    def start(self) -> None:
        """Start everything and wait until calls are welcome.

        Raises:
            EmbeddedPostgresError: there are no PostgreSQL programs here, or it does not come up.
        """
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="runkon-local-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.chmod(0o711)  # root's PostgreSQL runs as another user
            dsn = stack.enter_context(EmbeddedPostgres(folder / "postgres", fast=True))
            self._dsn = _with_clock(dsn)
            upgrade(self._dsn)
            self._replica = _Replica(self._dsn)
            self._address = stack.enter_context(self._replica)
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Stop everything; nothing is left of it.

        Raises:
            LocalServerFailedError: a part of it had failed before.
        """
        self._running.close()

    def skip(self, by: timedelta) -> None:
        """Move the clock on, at once: timers that are due by then fire, deadlines pass.

        Leases and workers are as alive as before. Does not wait for what follows.

        Raises:
            ValueError: `by` is negative.
            LocalServerFailedError: a part of the server has failed.
        """
        self._require_alive()
        if by.total_seconds() < 0:
            raise ValueError("the clock cannot be turned back")
        with psycopg.connect(self._dsn) as connection:
            for statement in _SKIP:
                connection.execute(statement, {"by": by})

    def now(self) -> datetime:
        """What the server's clock says.

        Raises:
            LocalServerFailedError: a part of the server has failed.
        """
        self._require_alive()
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    def _require_alive(self) -> None:
        if self._replica is not None:
            self._replica.require_alive()

    def new_namespace(self) -> str:
        """The name of a namespace that nobody has used: one for each test."""
        return f"test-{os.getpid()}-{next(self._namespaces)}"


def _with_clock(dsn: str) -> str:
    """Give a database its movable clock; the address under which it is found."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CLOCK)
        # For sessions whose own settings take the place of those in the address.
        database = sql.Identifier(connection.info.dbname)
        path = sql.SQL(_SEARCH_PATH)
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = {}").format(database, path))
    return f"{dsn}?options={quote(f'-c search_path={_SEARCH_PATH}')}"


class _Replica:
    """An engine with its API, in an event loop of its own in a thread of its own."""

    def __init__(self, dsn: str) -> None:
        self._config = EngineConfig(dsn=dsn, scan_s=0.02, poll_s=0.05, linger_s=0.05)
        self._thread = threading.Thread(target=self._run, name="runkon-local", daemon=True)
        self._is_up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._address = ""
        self._failure: BaseException | None = None

    def __enter__(self) -> str:
        self._thread.start()
        self._is_up.wait()
        if self._failure is not None:
            raise self._failure
        return self._address

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has failed
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if kind is None:
            self.require_alive()

    def require_alive(self) -> None:
        """Raise what ended it, if anything did."""
        if self._failure is not None:
            raise LocalServerFailedError(repr(self._failure)) from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the start gets it
            self._failure = error
        finally:
            self._is_up.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with _serving(self._config) as (self._address, loops):
            self._is_up.set()
            stopping = asyncio.create_task(self._stopping.wait())
            ended, _ = await asyncio.wait({stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for each in ended - {stopping}:
                await each
                raise RuntimeError(f"{each.get_name()} has ended")


@contextlib.asynccontextmanager
async def _serving(
    config: EngineConfig,
) -> AsyncIterator[tuple[str, Sequence[asyncio.Task[None]]]]:
    """Its address, and the loops whose end is the server's."""
    ambient = SystemAmbient()
    engine = Engine(config, ambient)
    health = Health(engine, SERVICES)
    streams = Streaming(engine, OpenStreams(LocalIdentity(), StreamLimits()))
    parts = Parts(streams=streams, workers=WorkerService(engine), health=health)
    server = build_server(engine, parts)
    port = bind(server, "127.0.0.1:0", insecure=True)
    await engine.start()
    loops = [
        asyncio.create_task(engine.wait_failed(), name="engine"),
        asyncio.create_task(streams.follow(ambient), name="streams"),
        asyncio.create_task(StartInbox(engine).follow(), name="start inbox"),
    ]
    try:
        await server.start()
        health.begin()
        yield f"127.0.0.1:{port}", loops
    finally:
        health.drain()
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await engine.stop()
        await server.stop(_STOP_GRACE_S)

"""Replicas as processes on one database, workers beside them, and runs as their database has them.

Nothing here stands for anything: the server is `runkon-server serve`, the worker is the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
from psycopg import sql

from runkon.v1 import runs_pb2, runs_pb2_grpc
from runkon_client import Actions, Client, RetryPolicy, Worker
from support.servers import runkon_server

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from runkon_client import Task
    from support.servers import ServerProcess

LEASE_TTL_S = 3
ONCE = RetryPolicy(window_s=0)
"""For calls that are expected to fail: nothing is tried again."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A serving process; `address` is that of its only listener."""

    server: ServerProcess
    address: str

    async def stop(self, number: signal.Signals) -> int:
        """Signal it and wait for its end while the loop runs on; its exit code."""
        return await asyncio.to_thread(self.server.stop, number)


@contextlib.contextmanager
def replicas(
    database: str,
    count: int = 1,
    *options: str,
    listen: str = "127.0.0.1:0",
    environment: Mapping[str, str] | None = None,
) -> Iterator[list[Replica]]:
    """So many `runkon-server serve` on one database, with short leases unless told otherwise."""
    arguments = ["serve", "--listen", listen, "--lease-ttl", str(LEASE_TTL_S), *options]
    told = {"RUNKON_DATABASE_URL": database, **(environment or {})}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(runkon_server(arguments, told)) for _ in range(count)]
        yield [Replica(server, server.started()) for server in servers]


def either(*members: Replica) -> str:
    """A target that stands for all of them: the first that answers serves."""
    return "ipv4:" + ",".join(each.address for each in members)


@contextlib.asynccontextmanager
async def working(
    address: str, actions: Actions, *, namespace: str | None = None, concurrency: int = 16
) -> AsyncIterator[Worker]:
    """A worker in this process; what it holds at the end is dropped."""
    worker = Worker(address, namespace=namespace, actions=actions, concurrency=concurrency)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.contextmanager
def worker_process(address: str, module: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`runkon worker MODULE` as a process of its own."""
    environment = {name: text for name, text in os.environ.items() if "RUNKON_" not in name}
    process = subprocess.Popen(
        [sys.executable, "-m", "runkon_client.cli", "worker", *options, str(module)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"RUNKON_ADDRESS": address},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def hold(task: Task) -> None:
    """An action that ends only when it is cancelled."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError(task)


async def stored_events(address: str, run_id: str) -> list[bytes]:
    """Every event that a replica tells of a run, each as bytes."""
    events: list[bytes] = []
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        while True:
            page = await stub.ListRunEvents(
                runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=len(events), page_size=500)
            )
            events += [event.SerializeToString(deterministic=True) for event in page.events]
            if page.examined_seq >= page.head_seq:
                return events


def rows(database: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a statement finds."""
    with psycopg.connect(database) as conn:
        # The statements are those of tests.
        return conn.execute(statement.encode(), parameters or None).fetchall()


def row_counts(database: str) -> dict[str, int]:
    """How many rows every table has."""
    with psycopg.connect(database) as conn:
        names = conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall()
        counts = {}
        for (name,) in names:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
            found = conn.execute(query).fetchone()
            assert found is not None
            counts[name] = found[0]
    return counts


def impatient(address: str, **options: str) -> Client:
    """A client that tries every call once."""
    return Client(address, retry=ONCE, **options)

"""How long runs stand still when their owner is killed, frozen, or told to stop.

Three replicas on one durable PostgreSQL, workers that know all of them, and runs that take a step
every half second. A replica is harmed, and the clock of the database says when each run that
it owned has its next event under another owner; it is started anew, and the next one is harmed.

Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Actions, Client, RunkonClientError, RunSpec, Worker
from runkon_server.store import migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from runkon_client import StartedRun, Task

REPLICAS: Final = 3
RUNS: Final = 5
"""Of each replica that is killed or stopped."""
STEPS: Final = 300
TICK_S: Final = 0.1
SETTLE_S: Final = 6.0
"""Before the first harm: a replica that is new does not judge others for 5 s."""
LOOK_S: Final = 0.01
KILL_S: Final = 3.0
TERM_S: Final = 1.0
GIVE_UP_S: Final = 60.0
FROZEN_SHARE: Final = 1.5
SOURCE: Final = "workflow busy {\n" + "call tick\n" * STEPS + "}"

OWNERS: Final = "SELECT id, owner_token, generation FROM workflow_runs WHERE id = ANY(%s)"
HELD: Final = "SELECT count(*) FROM workflow_runs WHERE owner_token = %s"
NEXT: Final = """
SELECT u.id, (SELECT min(e.at) FROM run_events e
              WHERE e.run_id = u.id AND e.seq > u.seq AND e.generation > u.generation)
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS u(id, generation, seq)"""
HEADS: Final = (
    "SELECT id, generation, last_seq, clock_timestamp() FROM workflow_runs WHERE id = ANY(%s)"
)


class Replica:
    """One `runkon-server serve` at an address of its own, started again and again."""

    def __init__(self, dsn: str, lease_ttl_s: float) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._lease_ttl_s = lease_ttl_s
        inherited = {name: text for name, text in os.environ.items() if name[:7] != "RUNKON_"}
        self._environment = inherited | {"RUNKON_DATABASE_URL": dsn}
        self._server = _setting.Server(0)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; `wait_started` tells when it serves."""
        command = [sys.executable, "-m", "runkon_server.cli", "serve", "--listen", self.address]
        command += ["--lease-ttl", str(self._lease_ttl_s)]
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        self._server = _setting.Server(self._process.pid)
        log = self._process.stderr
        threading.Thread(target=self._server.read_log, args=(log,), daemon=True).start()

    async def wait_started(self) -> None:
        """Return once it serves.

        Raises:
            SystemExit: it does not.
        """
        is_started = await asyncio.to_thread(self._server.is_started.wait, _setting.START_S)
        if not is_started or not self._server.address:
            raise SystemExit("a replica did not start:\n" + "\n".join(self._server.complaints))

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait_ended(self) -> None:
        """Return once the process is gone."""
        assert self._process is not None
        await asyncio.to_thread(self._process.wait)

    def end(self) -> None:
        """Kill it if it is still there, also if it is frozen."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True)
class Owned:
    """Runs of one replica at the moment it is harmed."""

    ids: Sequence[str]
    token: str


@dataclass(slots=True)
class Figures:
    """What one kind of harm came to."""

    name: str
    limit_s: float
    of_p95: bool
    """Whether the limit is for the 95th percentile; else for the worst."""
    times_s: list[float] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        """Whether the limit is; without a figure it is not."""
        worst = _setting.percentile(self.times_s, 0.95) if self.of_p95 else max(self.times_s)
        return bool(self.times_s) and worst < self.limit_s

    def __str__(self) -> str:
        p50, p95 = (_setting.percentile(self.times_s, share) for share in (0.5, 0.95))
        what = "p95" if self.of_p95 else "worst"
        return (
            f"{self.name:<22} p50 {p50:6.3f} s  p95 {p95:6.3f} s  worst {max(self.times_s):6.3f} s"
            f"  of {len(self.times_s)}  (limit: {what} under {self.limit_s:g} s)"
            f"{'' if self.is_met else '  MISSED'}"
        )


class Rig:
    """The replicas, and how to harm them."""

    def __init__(self, replicas: list[Replica], conn: psycopg.AsyncConnection[Any]) -> None:
        self.replicas = replicas
        self._conn = conn

    async def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a statement finds."""
        return await (await self._conn.execute(statement.encode(), parameters)).fetchall()

    async def own(self, victim: Replica, count: int) -> Owned:
        """Start runs on a replica, and wait until each has taken some steps."""
        async with Client(victim.address) as client:
            outcomes = await client.start_runs([RunSpec("busy")] * count)
        started: list[StartedRun] = []
        for outcome in outcomes:
            if isinstance(outcome, RunkonClientError):
                raise outcome
            started.append(outcome)
        ids = [run.id for run in started]
        while True:
            heads = await self.rows(HEADS, ids)
            if all(seq >= 4 for _, _, seq, _ in heads):
                break
            await asyncio.sleep(LOOK_S)
        tokens = {token for _, token, _ in await self.rows(OWNERS, ids)}
        if len(tokens) != 1 or None in tokens:
            raise SystemExit(f"the runs of {victim.address} are owned by {tokens}")
        return Owned(ids, tokens.pop())

    async def harm(self, owned: Owned, how: Callable[[], None], *, within_s: float) -> list[float]:
        """Seconds from the harm to the next event of each run; infinite if there was none."""
        heads = await self.rows(HEADS, owned.ids)
        harmed_at: datetime = heads[0][3]
        how()
        still = {run_id: (generation, seq) for run_id, generation, seq, _ in heads}
        times_s: list[float] = []
        deadline_s = time.monotonic() + within_s
        while still and time.monotonic() < deadline_s:
            generations, seqs = (list(column) for column in zip(*still.values(), strict=True))
            for run_id, at in await self.rows(NEXT, list(still), generations, seqs):
                if at is not None:
                    times_s.append((at - harmed_at).total_seconds())
                    del still[run_id]
            await asyncio.sleep(LOOK_S)
        return [*times_s, *([float("inf")] * len(still))]

    async def hand_off(self, owned: Owned, how: Callable[[], None]) -> float:
        """Seconds until nothing is owned by the token any more."""
        how()
        began_s = time.monotonic()
        while (await self.rows(HELD, owned.token))[0][0]:
            if time.monotonic() - began_s > GIVE_UP_S:
                return float("inf")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began_s

    async def clear(self, owned: Owned, victim: Replica) -> None:
        """End the runs; they have told what they were for."""
        survivor = next(each for each in self.replicas if each is not victim)
        async with Client(survivor.address) as client:
            for run_id in owned.ids:
                await client.run(run_id).cancel(force=True)

    async def kills(self, count: int) -> Figures:
        """`kill -9`, again and again."""
        figures = Figures("killed, next event", KILL_S, of_p95=True)
        for number in range(count):
            victim = self.replicas[number % REPLICAS]
            owned = await self.own(victim, RUNS)

            def kill(victim: Replica = victim) -> None:
                victim.end()
                victim.start()

            figures.times_s += await self.harm(owned, kill, within_s=GIVE_UP_S)
            await victim.wait_started()
            await self.clear(owned, victim)
        return figures

    async def terms(self, count: int) -> Figures:
        """SIGTERM, again and again."""
        figures = Figures("terminated, handed over", TERM_S, of_p95=False)
        for number in range(count):
            victim = self.replicas[number % REPLICAS]
            owned = await self.own(victim, RUNS)
            figures.times_s.append(await self.hand_off(owned, partial(victim.send, signal.SIGTERM)))
            await victim.wait_ended()
            victim.start()
            await victim.wait_started()
            await self.clear(owned, victim)
        return figures

    async def freeze(self, runs: int, lease_ttl_s: float) -> Figures:
        """SIGSTOP, once: its sessions stay, so nobody knows before its leases run out."""
        limit_s = FROZEN_SHARE * lease_ttl_s
        figures = Figures("frozen, next event", limit_s, of_p95=False)
        victim = self.replicas[0]
        owned = await self.own(victim, runs)
        freeze = partial(victim.send, signal.SIGSTOP)
        figures.times_s += await self.harm(owned, freeze, within_s=2 * limit_s)
        victim.end()
        victim.start()
        await victim.wait_started()
        await self.clear(owned, victim)
        return figures


@contextlib.asynccontextmanager
async def working(replicas: Sequence[Replica]) -> AsyncIterator[None]:
    """Workers, as many as replicas; each prefers another one and knows all."""
    actions = Actions()

    @actions.action("tick")
    async def tick(task: Task) -> None:
        del task
        await asyncio.sleep(TICK_S)

    running = []
    for first in range(len(replicas)):
        order = [*replicas[first:], *replicas[:first]]
        target = "ipv4:" + ",".join(each.address for each in order)
        worker = Worker(target, actions=actions, concurrency=64)
        running.append(asyncio.create_task(worker.run()))
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def tell(figures: Figures) -> bool:
    """Print figures, if there are any; whether no limit was missed."""
    if figures.times_s:
        print(figures, flush=True)
    return not figures.times_s or figures.is_met


async def measure(arguments: argparse.Namespace, dsn: str) -> bool:
    """Do all of it; whether every limit was met."""
    migrations.upgrade(dsn)
    replicas = [Replica(dsn, arguments.lease_ttl) for _ in range(REPLICAS)]
    met: list[bool] = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        rig = Rig(replicas, conn)
        try:
            for replica in replicas:
                replica.start()
            for replica in replicas:
                await replica.wait_started()
            async with Client(replicas[0].address) as client:
                await client.put_workflow(SOURCE)
            async with working(replicas):
                await asyncio.sleep(SETTLE_S)
                met.append(tell(await rig.kills(arguments.kills)))
                met.append(tell(await rig.terms(arguments.terms)))
                if arguments.runs:
                    met.append(tell(await rig.freeze(arguments.runs, arguments.lease_ttl)))
        finally:
            for replica in replicas:
                replica.end()
    return all(met)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench takeover", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--kills", type=int, default=50, help="replicas killed with SIGKILL")
    parser.add_argument("--terms", type=int, default=50, help="replicas stopped with SIGTERM")
    parser.add_argument("--runs", type=int, default=50, help="runs of the replica that is frozen")
    parser.add_argument("--lease-ttl", type=float, default=30.0, help="seconds; at least 2")
    arguments = parser.parse_args()
    with _setting.database(arguments.database_url) as dsn:
        with psycopg.connect(dsn) as conn:
            print(_setting.machine(conn))
        if not asyncio.run(measure(arguments, dsn)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()

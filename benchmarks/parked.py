"""What waiting costs: 10,000 runs parked at a gate, and how soon an approved one goes on.

Prints the server's memory per parked run, its processor time while nothing happens, the leases
held, and the time from ResolveGate to the event of the next step on a stream that is open.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Client, RunkonClientError, RunSpec
from runkon_client.values import EventKind

if TYPE_CHECKING:
    from typing import LiteralString

    from runkon_client import StartedRun

BATCH: Final = 500
WARM_UP: Final = 1_000
SOURCE: Final = 'workflow parked {\n gate human_approval { timeout = "24h" }\n call echo\n}'
OWNED: Final = "SELECT count(*) FROM workflow_runs WHERE owner_token IS NOT NULL"
WAITING: Final = "SELECT count(*) FROM workflow_runs WHERE status = 'waiting'"
SETTLE_S: Final = 5.0


async def park(client: Client, count: int) -> list[StartedRun]:
    """Start so many runs that wait at once."""
    started: list[StartedRun] = []
    for begin in range(0, count, BATCH):
        specs = [RunSpec("parked")] * min(BATCH, count - begin)
        for outcome in await client.start_runs(specs):
            if isinstance(outcome, RunkonClientError):
                raise outcome
            started.append(outcome)
    return started


async def resume_s(run: StartedRun) -> float:
    """Approve a run's gate; how long until the next step's start was told on the stream."""
    began_s = 0.0
    async with run.events(kinds=[EventKind.GATE_WAITING, EventKind.STEP_STARTED]) as events:
        async for event in events:
            if event.kind is EventKind.STEP_STARTED:
                return time.monotonic() - began_s
            began_s = time.monotonic()
            await run.gate("human_approval").approve()
    raise SystemExit(f"run {run.id} ended without a step")


async def measure(
    arguments: argparse.Namespace, server: _setting.Server, conn: psycopg.Connection[Any]
) -> None:
    """Park, look, approve; print."""

    def count(statement: LiteralString) -> int:
        (number,) = conn.execute(statement).fetchone() or (0,)
        return int(number)

    async with Client(server.address) as client:
        await client.put_workflow(SOURCE)
        await park(client, WARM_UP)
        before_kib = _setting.rss_kib(server.pid)
        began_s = time.monotonic()
        runs = await park(client, arguments.runs)
        took_s = time.monotonic() - began_s
        print(
            f"started      {len(runs):,} runs, {len(runs) / took_s:,.0f} runs/s in batches of 500"
        )
        await asyncio.sleep(SETTLE_S)
        grown = (_setting.rss_kib(server.pid) - before_kib) * 1024
        print(f"memory       {grown / len(runs):,.0f} bytes per parked run (at most 1,024)")
        print(f"waiting      {count(WAITING):,} runs, leases held {count(OWNED)} (0)")
        used_s = _setting.cpu_s(server.pid)
        await asyncio.sleep(arguments.idle)
        share = (_setting.cpu_s(server.pid) - used_s) / arguments.idle
        print(f"idle         {share:.2%} of a core over {arguments.idle:.0f} s (at most 2 %)")
        every = max(1, len(runs) // arguments.gates)
        times_s = [await resume_s(run) for run in runs[::every][: arguments.gates]]
        middle_s = _setting.percentile(times_s, 0.5)
        print(
            f"approved     next step seen after p50 {middle_s * 1e3:.1f} ms,"
            f" worst {max(times_s) * 1e3:.1f} ms of {len(times_s)} (at most 100)"
        )


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench parked", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--runs", type=int, default=10_000, help="parked runs")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds without any call")
    parser.add_argument("--gates", type=int, default=50, help="gates that are approved")
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url) as dsn,
        _setting.server(dsn) as server,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        asyncio.run(measure(arguments, server, conn))
        _setting.print_complaints(server)


if __name__ == "__main__":
    main()

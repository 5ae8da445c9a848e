"""How long a committed task is on its way to a worker, with two replicas and 500 steps a second.

Once with the worker and the runs on one replica, then with the worker on the other one, so that
each task is committed by a replica that cannot push it. When a task was committed says PostgreSQL
(`track_commit_timestamp`), just before it writes the commit to disk; the worker reads its own
clock, which here is the same one. What a commit costs on this disk is printed first: the way to the
worker holds one of them on one replica, and two across replicas. Exits non-zero beyond the limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS: Final = 5
WORKFLOW: Final = "workflow dispatched {" + "\n call noop" * STEPS + "\n}"
P50_S: Final = 0.005
P99_S: Final = 0.030
AT_ONCE_MAX: Final = 2_000
"""Starts that may be under way: a service that cannot keep up is told so, not buried."""

# Tasks change, and with them the transaction that is theirs; the events of their steps do not.
COMMITTED: Final = """
SELECT t.id, extract(epoch FROM pg_xact_commit_timestamp(e.xid::xid))::float8
FROM tasks t JOIN run_events e ON e.run_id = t.run_id AND e.kind = 'step_started'
    AND e.payload::json #>> '{step,id}' = t.step_id
WHERE t.created_at >= to_timestamp(%s) AND t.created_at < to_timestamp(%s)"""
COMMITS: Final = 300


async def put(address: str) -> None:
    """Store the workflow."""
    async with Client(address) as client:
        await client.put_workflow(WORKFLOW)


async def offer(address: str, runs_per_s: float, seconds: float) -> None:
    """Start runs at even intervals, whatever becomes of them."""
    async with Client(address) as client:
        under_way: set[asyncio.Task[Any]] = set()
        begun_s = time.monotonic()
        for number in range(int(runs_per_s * seconds)):
            await asyncio.sleep(max(0.0, begun_s + number / runs_per_s - time.monotonic()))
            if len(under_way) >= AT_ONCE_MAX:
                raise SystemExit("the service does not keep up with the starts")
            call = asyncio.ensure_future(client.start_run("dispatched"))
            under_way.add(call)
            call.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)


async def measure(
    arguments: argparse.Namespace, dsn: str, starts_at: str, works_at: str
) -> tuple[list[float], float]:
    """The time from commit to worker of each task in the window, in s, and steps per second."""
    runs_per_s = arguments.rate / STEPS
    with _setting.process("_timed_worker", works_at) as worker:
        _setting.await_line(worker, "ready")
        await offer(starts_at, runs_per_s, arguments.warm_up)
        begun = time.time()
        await offer(starts_at, runs_per_s, arguments.duration)
        ended = time.time()
        await asyncio.sleep(2.0)  # what was begun in the window comes to its end
        worker.terminate()
        arrived: dict[str, float] = json.loads(_setting.await_line(worker))
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        rows = await (await conn.execute(COMMITTED, (begun, ended))).fetchall()
    latencies = [arrived[task_id] - at for task_id, at in rows if task_id in arrived]
    if len(latencies) < len(rows):
        raise SystemExit(f"{len(rows) - len(latencies)} of {len(rows)} tasks never came")
    return latencies, len(rows) / (ended - begun)


def price_of_a_commit(conn: psycopg.Connection[Any]) -> str:
    """What one commit of one small row takes while nothing else happens."""
    conn.execute("CREATE TABLE price_of_a_commit (n integer)")
    taken_s = []
    for number in range(COMMITS):
        begun_s = time.perf_counter()
        conn.execute("INSERT INTO price_of_a_commit VALUES (%s)", (number,))
        taken_s.append(time.perf_counter() - begun_s)
    conn.execute("DROP TABLE price_of_a_commit")
    p50, p99 = (_setting.percentile(taken_s, share) * 1e3 for share in (0.5, 0.99))
    return f"a lone commit takes p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def report(name: str, latencies_s: Sequence[float], steps_per_s: float) -> bool:
    """Print one measurement; True if it is within the limits."""
    p50, p99 = (_setting.percentile(list(latencies_s), share) for share in (0.5, 0.99))
    print(
        f"{name:16}{steps_per_s:6,.0f} steps/s   commit→worker"
        f" p50 {p50 * 1e3:6.1f} ms (limit {P50_S * 1e3:.0f})"
        f"  p99 {p99 * 1e3:6.1f} ms (limit {P99_S * 1e3:.0f})"
        f"  max {max(latencies_s) * 1e3:6.1f} ms"
    )
    return p50 < P50_S and p99 < P99_S


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(prog="dev.py bench dispatch", description=__doc__)
    parser.add_argument(
        "--database-url",
        help="with track_commit_timestamp; default: a durable PostgreSQL of its own",
    )
    parser.add_argument("--duration", type=float, default=15.0, help="seconds measured")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before that")
    parser.add_argument("--rate", type=float, default=500.0, help="steps per second")
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url, track_commit_timestamp="on") as dsn,
        _setting.server(dsn) as one,
        _setting.server(dsn) as other,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        print(price_of_a_commit(conn))
        asyncio.run(put(one.address))
        are_good = []
        for name, works_at in (("same replica", one), ("other replica", other)):
            figures = asyncio.run(measure(arguments, dsn, one.address, works_at.address))
            are_good.append(report(name, *figures))
        _setting.print_complaints(one)
        _setting.print_complaints(other)
    sys.exit(0 if all(are_good) else 1)


if __name__ == "__main__":
    main()

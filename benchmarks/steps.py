"""Steps and starts per second: 64 runs at a time, 10 no-op steps each, in-process and by a worker.

Server, load and worker are processes of their own on this machine, PostgreSQL is durable. The
floors are printed beside the figures and not asserted: what else runs on a machine moves them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STEPS: Final = 10
FLOORS: Final = {"inside": 3_000, "remote": 1_000}

WORKFLOWS: Final = (
    "workflow inside {" + "\n call echo" * STEPS + "\n}",
    "workflow remote {" + "\n call noop" * STEPS + "\n}",
    "workflow parked {\n gate human_approval { }\n call echo\n}",
)
BATCHES: Final = "runkon_commit_batch_entries_count"
ENTRIES: Final = "runkon_commit_batch_entries_sum"
COMMIT_S: Final = "runkon_commit_duration_seconds_sum"
COUNTERS: Final = (BATCHES, ENTRIES, COMMIT_S)

# Rows are stamped by the database's clock, which `instant` reads as well.
ENDED: Final = """
SELECT extract(epoch FROM r.ended_at - r.created_at)::float8
FROM workflow_runs r
WHERE r.workflow_name = %s AND r.status = 'completed' AND r.ended_at >= %s AND r.ended_at < %s"""
STEPS_ENDED: Final = """
SELECT count(*) FROM workflow_run_steps s JOIN workflow_runs r ON r.id = s.workflow_run_id
WHERE r.workflow_name = %s AND s.status = 'completed' AND s.ended_at >= %s AND s.ended_at < %s"""


@dataclass(slots=True)
class Bench:
    """What every measurement needs."""

    arguments: argparse.Namespace
    dsn: str
    conn: psycopg.Connection[Any]
    server: _setting.Server
    others: dict[str, int] = field(default_factory=dict)
    """Names and ids of processes beside server and load."""

    def instant(self) -> Any:  # noqa: ANN401 - a datetime of the database, handed back to it
        """Now, by the clock that stamps the rows."""
        row = self.conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return row[0]

    def load(self, workflow: str, observe: str) -> tuple[Window, list[float]]:
        """Run the load in a process of its own.

        Returns:
            What the measured window was like, and the latencies that the load saw in it, in s.
        """
        arguments = self.arguments
        with _setting.process(
            "_load", self.server.address, self.dsn, workflow,
            "--observe", observe, "--runs", str(arguments.runs),
            "--warm-up", str(arguments.warm_up), "--duration", str(arguments.duration),
        ) as running:  # fmt: skip
            _setting.await_line(running, "begin")
            processes = {"server": self.server.pid, "load": running.pid}
            window = Window(self, processes | self.others)
            _setting.await_line(running, "end")
            window.close()
            return window, json.loads(_setting.await_line(running))["latencies_s"]


class Window:
    """Counters of the server and the machine over a measured window."""

    def __init__(self, bench: Bench, processes: Mapping[str, int]) -> None:
        self._bench = bench
        self._processes = processes
        self._metrics = bench.server.metrics()
        self._cores = self._cpu_s()
        self.begun_at = bench.instant()

    def _cpu_s(self) -> dict[str, float]:
        used = {name: _setting.cpu_s(pid) for name, pid in self._processes.items()}
        if (pid := _setting.postmaster(self._bench.conn)) is not None:
            used["database"] = _setting.family_cpu_s(pid)
        return used | {"everything": _setting.busy_s()}

    def close(self) -> None:
        """End it."""
        self.ended_at = self._bench.instant()
        self.seconds = (self.ended_at - self.begun_at).total_seconds()
        used_s, after = self._cpu_s(), self._bench.server.metrics()
        self._cores = {name: (used_s[name] - self._cores[name]) / self.seconds for name in used_s}
        self._metrics = {name: after[name] - self._metrics[name] for name in COUNTERS}

    def __str__(self) -> str:
        """One line on commits and one on processors."""
        batches = self._metrics[BATCHES]
        per_batch = self._metrics[ENTRIES] / max(1.0, batches)
        commit_ms = self._metrics[COMMIT_S] / max(1.0, batches) * 1e3
        cores = ", ".join(f"{name} {cores:.2f}" for name, cores in self._cores.items())
        return (
            f"{'':10}{batches / self.seconds:.0f} commits/s of {per_batch:.1f} changes,"
            f" {commit_ms:.1f} ms each\n{'':10}cores: {cores}"
        )


def measure_steps(bench: Bench, workflow: str) -> None:
    """Steps per second of one workflow."""
    window, seen_s = bench.load(workflow, bench.arguments.observe)
    key = (workflow, window.begun_at, window.ended_at)
    (steps,) = bench.conn.execute(STEPS_ENDED, key).fetchone() or (0,)
    runs_s = [row[0] for row in bench.conn.execute(ENDED, key)]
    print(
        f"{workflow:10}{steps / window.seconds:7,.0f} steps/s (floor {FLOORS[workflow]:,})"
        f"  {len(runs_s) / window.seconds:5,.0f} runs/s"
        f"  start→finish p50 {_ms(runs_s, 0.5)} p99 {_ms(runs_s, 0.99)},"
        f" as a caller sees it p50 {_ms(seen_s, 0.5)} p99 {_ms(seen_s, 0.99)}"
    )
    print(window)


def measure_starts(bench: Bench) -> None:
    """StartRun calls per second, of runs that wait at a gate at once."""
    window, calls_s = bench.load("parked", "none")
    print(
        f"{'StartRun':10}{len(calls_s) / window.seconds:7,.0f} calls/s"
        f"  p50 {_ms(calls_s, 0.5)} p99 {_ms(calls_s, 0.99)}"
    )
    print(window)


def _ms(seconds: list[float], share: float) -> str:
    return f"{_setting.percentile(seconds, share) * 1e3:.0f} ms"


async def put_workflows(address: str) -> None:
    """Store what the runs are of."""
    async with Client(address) as client:
        for source in WORKFLOWS:
            await client.put_workflow(source)


@contextlib.contextmanager
def worker(bench: Bench) -> Iterator[None]:
    """One worker process."""
    options = ("--concurrency", str(bench.arguments.runs))
    with _setting.process("_noop_worker", bench.server.address, *options) as running:
        _setting.await_line(running, "ready")
        bench.others["worker"] = running.pid
        yield
        del bench.others["worker"]


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench steps", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds measured")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before that")
    parser.add_argument("--runs", type=int, default=64, help="runs, or callers, at a time")
    parser.add_argument(
        "--observe",
        choices=["rows", "await"],
        default="rows",
        help="how the load notices that a run ended: few looks at the rows, or AwaitRun per run",
    )
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url) as dsn,
        _setting.server(dsn) as server,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        print(f"{arguments.runs} runs at a time, {STEPS} steps each, ends by `{arguments.observe}`")
        asyncio.run(put_workflows(server.address))
        bench = Bench(arguments, dsn, conn, server)
        measure_steps(bench, "inside")
        with worker(bench):
            measure_steps(bench, "remote")
        measure_starts(bench)
        _setting.print_complaints(server)


if __name__ == "__main__":
    main()

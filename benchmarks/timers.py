"""100,000 pending timers on two replicas: what they cost, how late they fire, 10,000 at once.

The timers are those of runs that begin later; their rows are copies of one that the server made.
Lateness is the time of the event `run_started` minus the due time, both by the database's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Client

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE: Final = 'workflow timed {\n gate human_approval { timeout = "720h" }\n}'
COPY: Final = """
CREATE TEMPORARY TABLE copies AS
SELECT %(model)s AS model, '01TMR' || lpad(n::text, 21, '0') AS id,
    clock_timestamp() + interval '1 day' + n * interval '1 ms' AS due_at
FROM generate_series(1, %(count)s) AS n;
INSERT INTO workflow_runs SELECT (jsonb_populate_record(r, jsonb_build_object('id', c.id,
    'ready_at', c.due_at))).* FROM copies c JOIN workflow_runs r ON r.id = c.model;
INSERT INTO run_details SELECT (jsonb_populate_record(d, jsonb_build_object('run_id', c.id,
    'scheduled_at', c.due_at))).* FROM copies c JOIN run_details d ON d.run_id = c.model;
INSERT INTO timers SELECT (jsonb_populate_record(t, jsonb_build_object('run_id', c.id,
    'id', c.id || ':start', 'due_at', c.due_at))).*
FROM copies c JOIN timers t ON t.run_id = c.model;
VACUUM ANALYZE workflow_runs, run_details, timers"""
# The next of them in the order of their ids are due from then on, evenly over so many seconds.
SCHEDULE: Final = """
WITH chosen AS (
    SELECT c.id, %(begin)s + (row_number() OVER (ORDER BY c.id) - 1)
        * make_interval(secs => %(spread)s::float8 / %(count)s) AS due_at
    FROM copies c ORDER BY c.id OFFSET %(skip)s LIMIT %(count)s
), runs AS (
    UPDATE workflow_runs r SET ready_at = h.due_at FROM chosen h WHERE r.id = h.id
), due AS (
    UPDATE copies c SET due_at = h.due_at FROM chosen h WHERE c.id = h.id
)
UPDATE timers t SET due_at = h.due_at FROM chosen h WHERE t.run_id = h.id"""
FIRED: Final = """
SELECT extract(epoch FROM e.at - c.due_at)::float8, r.generation
FROM (SELECT * FROM copies ORDER BY id OFFSET %(skip)s LIMIT %(count)s) c
JOIN run_events e ON e.run_id = c.id AND e.kind = 'run_started'
JOIN workflow_runs r ON r.id = c.id"""
WAITING: Final = "SELECT count(*) FROM workflow_runs WHERE status = 'waiting'"
LEAD_S: Final = 3.0
"""Between scheduling and the first due time."""
LATE_S_MAX: Final = 1.0
IDLE_MAX: Final = 0.03
DRAIN_PER_S_MIN: Final = 500
CALL_S_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What the figures are measured on."""

    conn: psycopg.Connection[Any]
    servers: Sequence[_setting.Server]
    postmaster: int | None

    def used_s(self) -> tuple[float, float]:
        """Processor time of the replicas and of PostgreSQL so far."""
        replicas = sum(_setting.cpu_s(server.pid) for server in self.servers)
        return replicas, _setting.family_cpu_s(self.postmaster) if self.postmaster else 0.0


class Limits:
    """What was promised and is not so."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def hold(self, what: str, *, is_kept: bool) -> None:
        """Note a promise that is not kept."""
        if not is_kept:
            self.broken.append(what)


async def fill(setting: Setting, client: Client, count: int) -> None:
    """Start one run for tomorrow and copy it."""
    await client.put_workflow(SOURCE)
    model = await client.start_run("timed", start_delay=timedelta(days=1))
    began_s = time.monotonic()
    for statement in COPY.split(";"):
        setting.conn.execute(statement.encode(), {"model": model.id, "count": count})
    print(f"pending      {count:,} timers, copied in {time.monotonic() - began_s:.1f} s")


async def idle(setting: Setting, limits: Limits, seconds: float) -> None:
    """What it costs that they are there."""
    await asyncio.sleep(2)
    before = setting.used_s()
    await asyncio.sleep(seconds)
    replicas, database = (
        (after - was) / seconds for after, was in zip(setting.used_s(), before, strict=True)
    )
    print(
        f"idle         {replicas:.2%} of a core for {len(setting.servers)} replicas,"
        f" {database:.2%} for PostgreSQL, over {seconds:.0f} s (at most {IDLE_MAX:.0%} each)"
    )
    limits.hold("idle cost", is_kept=max(replicas, database) <= IDLE_MAX * len(setting.servers))


async def fire(
    setting: Setting, client: Client, limits: Limits, *, name: str, skip: int, count: int,
    spread_s: float,
) -> list[float]:  # fmt: skip
    """Let some come due, start runs meanwhile, and wait until all have fired; their lateness."""
    row = setting.conn.execute("SELECT clock_timestamp() + interval '3 s'").fetchone()
    assert row is not None
    portion = {"begin": row[0], "spread": spread_s, "skip": skip, "count": count}
    setting.conn.execute(SCHEDULE.encode(), portion)
    before = setting.used_s()
    calls_s: list[float] = []
    fired: list[tuple[float, int]] = []
    began_s = time.monotonic()
    while time.monotonic() - began_s < LEAD_S + spread_s + 120:
        called_s = time.monotonic()
        await client.start_run("timed")
        calls_s.append(time.monotonic() - called_s)
        await asyncio.sleep(0.1)
        fired = setting.conn.execute(FIRED.encode(), portion).fetchall()
        if len(fired) == count:
            break
    late_s = [late for late, _ in fired]
    replicas, database = (a - b for a, b in zip(setting.used_s(), before, strict=True))
    p50, p99, worst = (_setting.percentile(late_s, share) for share in (0.5, 0.99, 1))
    print(
        f"{name:<12} {len(late_s):,} fired: p50 {p50:.3f} s, p99 {p99:.3f} s, last {worst:.3f} s"
        f" late, earliest {min(late_s, default=0):+.4f} s;"
        f" {(replicas + database) / max(1, count) * 1e3:.2f} ms of processor each"
        f" (replicas {replicas:.1f} s, PostgreSQL {database:.1f} s)"
    )
    print(
        f"             StartRun meanwhile: p50 {_setting.percentile(calls_s, 0.5) * 1e3:.0f} ms,"
        f" worst {max(calls_s) * 1e3:.0f} ms of {len(calls_s)} (at most {CALL_S_MAX:.0f} s)"
    )
    twice = sum(generation != 1 for _, generation in fired)
    limits.hold(f"{name}: {count - len(late_s)} never fired", is_kept=len(late_s) == count)
    limits.hold(f"{name}: some fired early", is_kept=min(late_s, default=-1) >= 0)
    limits.hold(f"{name}: {twice} were taken more than once", is_kept=not twice)
    limits.hold(f"{name}: a call took {max(calls_s):.1f} s", is_kept=max(calls_s) <= CALL_S_MAX)
    return late_s


async def measure(arguments: argparse.Namespace, setting: Setting) -> Limits:
    """Fill, rest, fire evenly, fire at once."""
    limits = Limits()
    addresses = ",".join(server.address for server in setting.servers)
    async with Client(f"ipv4:{addresses}") as client:
        await fill(setting, client, arguments.timers)
        await idle(setting, limits, arguments.idle)
        count = int(arguments.rate * arguments.seconds)
        late_s = await fire(
            setting, client, limits,
            name="evenly", skip=0, count=count, spread_s=arguments.seconds,
        )  # fmt: skip
        p99 = _setting.percentile(late_s, 0.99)
        limits.hold(f"evenly: p99 is {p99:.2f} s late", is_kept=p99 <= LATE_S_MAX)
        late_s = await fire(
            setting, client, limits,
            name="at once", skip=count, count=arguments.herd, spread_s=0,
        )  # fmt: skip
        rate = len(late_s) / max(late_s, default=1)
        print(f"             drained at {rate:,.0f} per second (at least {DRAIN_PER_S_MIN})")
        limits.hold("at once: drained too slowly", is_kept=rate >= DRAIN_PER_S_MIN)
    return limits


def main() -> None:
    """Measure everything; exit code 1 beyond a limit."""
    parser = argparse.ArgumentParser(prog="dev.py bench timers", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--timers", type=int, default=100_000, help="pending at the start")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without a due timer")
    parser.add_argument("--rate", type=float, default=200.0, help="timers due per second, evenly")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long so")
    parser.add_argument("--herd", type=int, default=10_000, help="timers due at one instant")
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url) as dsn,
        _setting.server(dsn) as first,
        _setting.server(dsn) as second,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        setting = Setting(conn, (first, second), _setting.postmaster(conn))
        limits = asyncio.run(measure(arguments, setting))
        _setting.print_complaints(first)
        _setting.print_complaints(second)
    for promise in limits.broken:
        print(f"BEYOND ITS LIMIT: {promise}")
    sys.exit(1 if limits.broken else 0)


if __name__ == "__main__":
    main()

"""Streams: how late events are, what idle ones cost, what a reader survives, replay.

Parts: 1 latency and 100 watchers, 2 idle streams, 4 reconnects, 5 without NOTIFY, replay. Each
prints its figures with the limits beside them; the exit code says whether all were kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import psycopg

from benchmarks import _setting
from runkon_client import Client, RunSpec

if TYPE_CHECKING:
    import subprocess

STEPS: Final = "workflow steps {" + "\n call echo" * 10 + "\n}"
SLOW_STEPS: Final = (
    "workflow slow_steps { inputs { seconds required }" + "\n call sleep" * 10 + "\n}"
)
STEP_S: Final = 0.1
KNOWN_S: Final = 3.0
"""Until replicas that are up know of each other, and send notices; before, there is the poll."""
PARKED: Final = "workflow parked { gate human_approval { } }"
LONG: Final = "workflow long {" + "\n call echo" * 1_000 + "\n}"
WATCHERS: Final = 100
PARTS: Final = ("1", "2", "4", "5", "replay")
COUNT: Final = """
SELECT count(*) FROM run_events e JOIN workflow_runs r ON r.id = e.run_id
WHERE r.workflow_name = 'steps' AND e.at >= %s"""
COMMITS: Final = """
SELECT run_id, seq, extract(epoch FROM pg_xact_commit_timestamp(xid::xid))::float8
FROM run_events WHERE run_id = ANY (%s)"""
DROP_NOTIFY: Final = """
CREATE SCHEMA deaf;
CREATE FUNCTION deaf.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''"""
DEAF_PATH: Final = "-c search_path=deaf,pg_catalog,public"
"""Sessions with these options find a function of the same name first, which tells nobody."""
RESTORE_NOTIFY: Final = "DROP SCHEMA deaf CASCADE"


@dataclass(slots=True)
class Bench:
    """What every part needs."""

    arguments: argparse.Namespace
    dsn: str
    conn: psycopg.Connection[Any]
    server: _setting.Server
    missed: int = 0

    def tell(self, what: str, value: float, limit: float, unit: str, *, low: bool = True) -> None:
        """Print a figure with its limit, and remember whether it was kept."""
        kept = value <= limit if low else value >= limit
        self.missed += not kept
        bound = "at most" if low else "at least"
        mark = "" if kept else "   MISSED"
        print(f"  {what:44}{value:12,.2f} {unit:9} {bound} {limit:,g}{mark}", flush=True)

    def now(self) -> Any:  # noqa: ANN401 - a datetime of the database, handed back to it
        """Now, by the clock that stamps events."""
        row = self.conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return row[0]

    def events_since(self, begun_at: Any) -> int:  # noqa: ANN401 - as above
        """How many events the load has made."""
        row = self.conn.execute(COUNT, (begun_at,)).fetchone()
        assert row is not None
        count: int = row[0]
        return count


def finish(watching: subprocess.Popen[str]) -> dict[str, Any]:
    """End a process of watchers; what it saw."""
    assert watching.stdin is not None
    watching.stdin.close()
    seen: dict[str, Any] = json.loads(_setting.await_line(watching))
    return seen


def load(address: str, seconds: float, count: int = 64) -> None:
    """So many runs at a time for a while, and until the last of them has ended."""

    async def callers() -> None:
        until_s = time.monotonic() + seconds
        async with Client(address) as client:

            async def one() -> None:
                while time.monotonic() < until_s:
                    await (await client.start_run("steps")).wait()

            await asyncio.gather(*(one() for _ in range(count)))

    asyncio.run(callers())
    time.sleep(2.5)  # the poll interval twice over: what has not come by then is lost


def measure_latency(bench: Bench) -> None:
    """Part 1: 64 callers that follow the runs they start; then 100 watchers of all events."""
    alone_ms = [each * 1e3 for each in time_lone_commits(bench.conn)]
    p50, p99 = (_setting.percentile(alone_ms, share) for share in (0.5, 0.99))
    print("1. 64 concurrent runs, each followed from its start")
    print(f"  a commit alone, of nothing, takes p50 {p50:.2f} ms, p99 {p99:.2f} ms on this disk")
    print(f"  steps of {STEP_S:g} s")
    tell_latency(bench, "--step-s", str(STEP_S))
    print("  steps of no time: the replica has more to do than it can")
    tell_latency(bench)
    with _setting.server(bench.dsn) as other:
        time.sleep(KNOWN_S)
        print(f"  steps of {STEP_S:g} s, followed on another replica")
        tell_latency(bench, "--step-s", str(STEP_S), other=other)
        print("  steps of no time, followed on another replica")
        tell_latency(bench, other=other)
    print(f"  {WATCHERS} watchers of all events of 64 concurrent runs")
    with _setting.process(
        "_watchers", bench.server.address, "--count", str(WATCHERS), is_told_when_to_end=True
    ) as watching:
        _setting.await_line(watching, "ready")
        begun_at = bench.now()
        load(bench.server.address, bench.arguments.duration)
        seen = finish(watching)
    made = bench.events_since(begun_at)
    lost = sum(abs(made - count) for count in seen["events"])
    print(f"  {made:,} events to each of them; {seen['broken'] or 'no gaps'}")
    bench.tell("events lost, or seen twice", lost + len(seen["broken"]), 0, "events")


def time_lone_commits(conn: psycopg.Connection[Any]) -> list[float]:
    """What the database and its disk take for a commit while nothing else is done, in s."""
    seconds = []
    for _ in range(200):
        began_s = time.perf_counter()
        conn.execute("SELECT pg_logical_emit_message(true, 'bench', '')")
        seconds.append(time.perf_counter() - began_s)
    return seconds


def tell_latency(bench: Bench, *options: str, other: _setting.Server | None = None) -> None:
    """Print how late events come to callers that follow their runs.

    Args:
        options: of `_followers`.
        other: the replica that streams; default: the one that does the rest.
    """
    late_s, is_from_commit = follow_own(bench, *options, other=other)
    ms = [each * 1e3 for each in late_s]
    begin = "commit" if is_from_commit else "decision"
    bench.tell(f"{begin} to subscriber, p50", _setting.percentile(ms, 0.5), 5, "ms")
    bench.tell(f"{begin} to subscriber, p99", _setting.percentile(ms, 0.99), 50, "ms")


def follow_own(
    bench: Bench, *options: str, other: _setting.Server | None
) -> tuple[list[float], bool]:
    """How late each event was, in s, and whether that was counted from its commit.

    It is where the database keeps the times of commits; else from the instant that the transaction
    was given, before its commit, so the commit itself is in it.
    """
    seconds = bench.arguments.duration
    pids = {"server": bench.server.pid}
    if other is not None:
        pids["other"] = other.pid
        options = (*options, "--follow-at", other.address)
    with _setting.process(
        "_followers", bench.server.address, "--seconds", str(seconds), *options
    ) as following:
        cores = _cores_of(pids | {"followers": following.pid}, seconds)
        events: list[list[Any]] = json.loads(_setting.await_line(following))
    setting = bench.conn.execute("SHOW track_commit_timestamp").fetchone()
    is_from_commit = setting is not None and setting[0] == "on"
    committed: dict[tuple[str, int], float] = {}
    if is_from_commit:
        runs = list({run_id for run_id, *_ in events})
        committed = {(row[0], row[1]): row[2] for row in bench.conn.execute(COMMITS, (runs,))}
    late_s = []
    for run_id, seq, opened_s, decided_s, received_s in events:
        begun_s = committed.get((run_id, seq), decided_s)
        if begun_s >= opened_s:  # those before are replay
            late_s.append(received_s - begun_s)
    print(
        f"  {len(events) / seconds:,.0f} events/s, {len(late_s):,} of {len(events):,}"
        f" to streams that were open already; cores: {cores}"
    )
    return late_s, is_from_commit


def _cores_of(pids: dict[str, int], seconds: float) -> str:
    """What processes and the whole machine use over some time from now on."""
    used_s = {name: -_setting.cpu_s(pid) for name, pid in pids.items()}
    used_s["everything"] = -_setting.busy_s()
    time.sleep(seconds)
    used_s["everything"] += _setting.busy_s()
    for name, pid in pids.items():
        used_s[name] += _setting.cpu_s(pid)
    return ", ".join(f"{name} {each / seconds:.2f}" for name, each in used_s.items())


def measure_idle(bench: Bench) -> None:
    """Part 2: what 1,000 streams cost on which nothing happens."""
    count = bench.arguments.idle

    async def park() -> list[str]:
        async with Client(bench.server.address) as client:
            started = await client.start_runs([RunSpec("parked")] * min(count, 500))
            return [each.id for each in started if not isinstance(each, Exception)]

    run_ids = asyncio.run(park())
    time.sleep(5)
    idle_cores = _cores(bench.server.pid, 10)
    each_kib, cores = hold_idle(bench.server.pid, bench.server.address, count, run_ids, 30)
    cores -= idle_cores
    with _setting.process("_bare_server", is_told_when_to_end=True) as bare:
        address = _setting.await_line(bare)
        hold_idle(bare.pid, address, 30, run_ids[:1], 0)  # its first streams load code
        floor_kib, _ = hold_idle(bare.pid, address, count, run_ids[:1], 0)
        assert bare.stdin is not None
        bare.stdin.close()
    print(f"2. {count:,} idle streams")
    bench.tell("memory of each", each_kib, 20, "KiB")
    print(f"  {'of that, a server with nothing behind it':44}{floor_kib:12,.2f} KiB")
    bench.tell("processor of all", cores * 100, 3, "% of one")


def hold_idle(
    pid: int, address: str, count: int, run_ids: list[str], seconds: float
) -> tuple[float, float]:
    """Open idle streams for a while; memory of each in KiB, cores that the process used."""
    before_kib = _setting.rss_kib(pid)
    with _setting.process(
        "_watchers", address, "--kind", "idle",
        "--count", str(count), "--runs", ",".join(run_ids), is_told_when_to_end=True,
    ) as watching:  # fmt: skip
        _setting.await_line(watching, "ready")
        time.sleep(5)
        cores = _cores(pid, seconds) if seconds else 0.0
        each_kib = (_setting.rss_kib(pid) - before_kib) / count
        finish(watching)
    return each_kib, cores


def _cores(pid: int, seconds: float) -> float:
    began_s, used_s = time.monotonic(), _setting.cpu_s(pid)
    time.sleep(seconds)
    return (_setting.cpu_s(pid) - used_s) / (time.monotonic() - began_s)


def measure_reconnects(bench: Bench) -> None:
    """Part 4: streams are closed, cut and moved during the load; each sees 1 to n of every run."""
    seconds, cuts = bench.arguments.reconnect_seconds, 200
    print(f"4. {cuts} forced reconnects in {seconds:g} s of load, two replicas")
    with (
        _setting.server(bench.dsn) as other,
        _setting.process(
            "_cut_watchers", bench.server.address, other.address,
            "--cuts", str(cuts), "--seconds", str(seconds * 0.95), is_told_when_to_end=True,
        ) as watching,
    ):  # fmt: skip
        _setting.await_line(watching, "ready")
        begun_at = bench.now()
        load(bench.server.address, seconds, 16)
        seen = finish(watching)
        made = bench.events_since(begun_at)
    feeds, harms = seen["events"], seen["harms"]
    print(f"  {len(feeds)} subscribers of the namespace, {made:,} events to each")
    print(
        f"  {seen['followers']} of single runs, {seen['followed']:,} events of {seen['runs']} runs"
    )
    print("  " + ", ".join(f"{count} streams {harm}" for harm, count in sorted(harms.items())))
    for error in seen["errors"]:
        print(f"  {error}")
    bench.tell("reconnects", sum(harms.values()), cuts, "times", low=False)
    bench.tell("gaps", seen["gaps"], 0, "events")
    bench.tell("events seen twice", seen["doubles"], 0, "events")
    lost = sum(abs(made - got) for got in feeds)
    bench.tell("more or fewer events than in the table", lost + len(seen["errors"]), 0, "events")
    print(f"  longest pause of a stream over a reconnect: {seen['pause_s'] * 1e3:,.0f} ms")


def measure_without_notify(bench: Bench) -> None:
    """Part 5: watchers on a second replica, to which no NOTIFY comes."""
    print("5. NOTIFY dropped entirely: another replica's watchers live on the poll")
    bench.conn.execute(DROP_NOTIFY)
    deaf = f"{bench.dsn}{'&' if '?' in bench.dsn else '?'}options={quote(DEAF_PATH)}"
    with (
        psycopg.connect(bench.dsn, autocommit=True) as ear,
        _setting.server(deaf) as loaded,
        _setting.server(deaf) as watched,
        _setting.process(
            "_watchers", watched.address, "--count", "4", is_told_when_to_end=True
        ) as watching,
    ):
        _setting.await_line(watching, "ready")
        ear.execute("LISTEN runkon")
        begun_at = bench.now()
        load(loaded.address, bench.arguments.duration, 8)
        seen = finish(watching)
        made = bench.events_since(begun_at)
        heard = sum(1 for _ in ear.notifies(timeout=0))
    bench.conn.execute(RESTORE_NOTIFY)
    bench.tell("notifications heard", heard, 0, "times")
    worst = max(seen["latencies_s"], default=float("nan")) * 1e3
    bench.tell("commit to subscriber, worst", worst, 1_500, "ms")
    lost = sum(abs(made - count) for count in seen["events"])
    bench.tell("events lost, or seen twice", lost + len(seen["broken"]), 0, "events")


def measure_replay(bench: Bench) -> None:
    """History to a reader in a process of its own that looks at no frame but the last."""

    async def play() -> list[str]:
        async with Client(bench.server.address) as client:
            started = await client.start_runs([RunSpec("long")] * 20)
            runs = [each for each in started if not isinstance(each, Exception)]
            for run in runs:
                await run.wait()
            return [run.id for run in runs]

    run_ids = asyncio.run(play())
    # A server of its own: the other one still has in memory what it has just done.
    with _setting.server(bench.dsn) as fresh:
        for what in ("from PostgreSQL", "from memory"):
            used_s = _setting.cpu_s(fresh.pid)
            with _setting.process("_replayer", fresh.address, *run_ids) as reading:
                events, seconds = json.loads(_setting.await_line(reading))
            each_us = (_setting.cpu_s(fresh.pid) - used_s) / events * 1e6
            print(f"replay of {events:,} events of 20 runs {what}, {each_us:.1f} us of processor")
            bench.tell("replayed by one replica", events / seconds, 60_000, "events/s", low=False)


MEASURES: Final = {
    "1": measure_latency,
    "2": measure_idle,
    "4": measure_reconnects,
    "5": measure_without_notify,
    "replay": measure_replay,
}


async def put_workflows(address: str) -> None:
    """Store what the runs are of."""
    async with Client(address) as client:
        for source in (STEPS, SLOW_STEPS, PARKED, LONG):
            await client.put_workflow(source)


def main() -> None:
    """Measure what the arguments choose."""
    parser = argparse.ArgumentParser(prog="dev.py bench streams", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--part", action="append", choices=PARTS, help="repeat it; default: all")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds of load")
    parser.add_argument("--reconnect-seconds", type=float, default=120.0, help="of part 4")
    parser.add_argument("--idle", type=int, default=1_000, help="streams of part 2")
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url, track_commit_timestamp="on") as dsn,
        _setting.server(dsn) as server,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        asyncio.run(put_workflows(server.address))
        bench = Bench(arguments, dsn, conn, server)
        for part in arguments.part or PARTS:
            MEASURES[part](bench)
        _setting.print_complaints(server)
    sys.exit(1 if bench.missed else 0)


if __name__ == "__main__":
    main()

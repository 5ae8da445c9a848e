"""One foreach of 10,000 items, 256 at a time, each a child run with one no-op step.

Server and worker are processes of their own on this machine, PostgreSQL is durable. Printed are the
time to the end, the child runs per second, and the server's memory after the first tenth and at the
end: what has finished must leave nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks import _setting
from runkon_client import Client

if TYPE_CHECKING:
    from runkon_client import StartedRun

MAX_PARALLEL: Final = 256
LIMIT_S: Final = 60
LEAF: Final = "workflow leaf {\n call noop\n}"
FAN: Final = f"""workflow fan {{
 foreach each {{ over = numbers workflow = leaf max_parallel = {MAX_PARALLEL} }}
}}"""
ENDED: Final = """
SELECT fan_out_completed, fan_out_total FROM workflow_run_steps
WHERE workflow_run_id = %s AND role = 'foreach'"""
LOOK_S: Final = 0.5


async def follow(
    run: StartedRun, server: _setting.Server, conn: psycopg.Connection[Any]
) -> tuple[int, int]:
    """Wait for the end; the server's memory after a tenth of the items, and at the end, in KiB."""
    early = 0
    while True:
        row = conn.execute(ENDED, (run.id,)).fetchone()
        completed, total = row if row is not None and row[1] else (0, 1)
        if not early and completed * 10 >= total:
            early = _setting.rss_kib(server.pid)
        if completed >= total:
            break
        if (await run.get()).ended_at is not None:
            raise SystemExit(f"the run ended early: {(await run.get()).error}")
        await asyncio.sleep(LOOK_S)
    ended = await run.wait()
    if ended.status.value != "completed":
        raise SystemExit(f"the run {ended.status.value}: {ended.error}")
    return early, _setting.rss_kib(server.pid)


async def measure(
    arguments: argparse.Namespace, server: _setting.Server, conn: psycopg.Connection[Any]
) -> None:
    """Run it; print."""
    async with Client(server.address) as client:
        for source in (LEAF, FAN):
            await client.put_workflow(source)
        used_s, began_s = _setting.cpu_s(server.pid), time.monotonic()
        run = await client.start_run("fan")
        early, late = await follow(run, server, conn)
        took_s = time.monotonic() - began_s
        share = (_setting.cpu_s(server.pid) - used_s) / took_s
    count = arguments.items
    print(
        f"{count:,} items   {took_s:.1f} s (limit {LIMIT_S} for 10,000),"
        f" {count / took_s:,.0f} child runs/s, server at {share:.2f} core"
    )
    print(f"memory         {early / 1024:.0f} MiB after a tenth, {late / 1024:.0f} MiB at the end")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench foreach", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--items", type=int, default=10_000)
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url) as dsn,
        _setting.server(dsn) as server,
        psycopg.connect(dsn, autocommit=True) as conn,
        _setting.process("_fan_worker", server.address, "--items", str(arguments.items)) as worker,
    ):
        _setting.await_line(worker, "ready")
        print(_setting.machine(conn))
        asyncio.run(measure(arguments, server, conn))
        _setting.print_complaints(server)


if __name__ == "__main__":
    main()

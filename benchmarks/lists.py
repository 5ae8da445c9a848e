"""Lists among 1,000,000 runs: any page of filtered lists, counts, and what they cost StartRun.

Two databases of one PostgreSQL take turns for StartRun, an empty one and the full one, so that the
machine's moods meet both. Ends with code 1 when a limit is missed, that of lists for any filter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import _many_runs, _setting
from runkon_client import Client
from runkon_client.calls.runs import list_runs
from runkon_server.store.migrations import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST_LIMIT_MS: Final = 50.0
COUNT_LIMIT_MS: Final = 50.0
START_LIMIT: Final = 0.20
PAGES: Final = 25
"""Of 50 runs, from the newest run on."""
PAGES_ELSEWHERE: Final = 10
"""As many again from far down the list, and from the oldest run on."""
SKIPPED: Final = 20
"""Pages of 500 runs, behind which is far down."""
COUNTS: Final = 30
CALLERS: Final = 16
ROUNDS: Final = 5
SOURCE: Final = "workflow started { call echo }"
FULL, EMPTY = "runkon_bench_full", "runkon_bench_empty"
FILTERS: Final = (
    'status = "waiting" AND workflow = "workflow-3" AND labels.team = "team-2"',
    "status = waiting",
    "status = failed AND workflow = workflow-7",
    "(status = running OR status = waiting) AND (workflow = workflow-1 OR workflow = workflow-2)",
    "status = waiting AND labels.team = team-5",
    "status = completed AND labels.rare = yes",
    "status = waiting AND labels.rare = yes",
    "labels.rare = yes",
    "labels.team = team-1 AND labels.region = r1 AND NOT status = completed",
    "labels.team = team-1 AND labels.region = r2 AND status = completed AND workflow = workflow-2",
    "labels.team = team-1 AND labels.team = team-2",
    "labels.rare = yes OR labels.team = team-3",
    "labels.rare = yes OR labels.rare = no",
    "NOT labels.team = team-1 AND NOT status = completed",
    "workflow = workflow-11 AND create_time < now-14d",
    "status = completed AND create_time > now-7d AND create_time < now-6d",
    "start_time > now-1h",
    "trigger = nothing-has-this",
    "trigger = nothing-has-this AND labels.region = r1 AND status = completed",
    "workflow = nothing-has-this",
    "",
)
"""With an index that finds them, with several that meet too much, with none, and in vain."""


@contextlib.contextmanager
def databases(url: str) -> Iterator[tuple[str, str]]:
    """The full and the empty database, migrated and still both empty; dropped in the end."""
    names = (FULL, EMPTY)
    with psycopg.connect(url, autocommit=True) as conn:
        for name in names:
            conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
            conn.execute(f'CREATE DATABASE "{name}"'.encode())
        dsns = [make_conninfo(url, dbname=name) for name in names]
        try:
            for dsn in dsns:
                upgrade(_url_of(dsn))
            yield _url_of(dsns[0]), _url_of(dsns[1])
        finally:
            for name in names:
                conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _url_of(conninfo: str) -> str:
    """The same as a URL, which is what servers are given."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    name = parts.pop("dbname")
    options = "&".join(f"{key}={value}" for key, value in parts.items())
    return f"postgresql:///{name}?{options}"


class Pages:
    """The pages of one filtered list, turned over one by one."""

    def __init__(self, client: Client, filter_text: str, *, oldest_first: bool = False) -> None:
        self._client = client
        self._filter = filter_text
        self._oldest_first = oldest_first
        self._token = ""
        self.is_over = False
        self.found = 0
        self.times_ms: list[float] = []

    async def turn(self, pages: int, size: int = 50) -> Pages:
        """Fetch so many further pages, if there are."""
        for _ in range(pages):
            if self.is_over:
                break
            call = list_runs(
                "default",
                self._filter,
                oldest_first=self._oldest_first,
                page_size=size,
                token=self._token,
            )
            began_s = time.perf_counter()
            page = await self._client._transport.perform(call)  # noqa: SLF001 - one page alone
            self.times_ms.append((time.perf_counter() - began_s) * 1e3)
            self.found += len(page.items)
            self._token = page.next_token
            self.is_over = not self._token
        return self


async def page_times(client: Client, filter_text: str) -> tuple[list[float], int]:
    """How long pages in several places of a list took, in ms, and how many runs were on them."""
    newest = await Pages(client, filter_text).turn(PAGES)
    deep = await Pages(client, filter_text).turn(SKIPPED, 500)
    skipped = len(deep.times_ms), deep.found
    await deep.turn(PAGES_ELSEWHERE)
    oldest = await Pages(client, filter_text, oldest_first=True).turn(PAGES_ELSEWHERE)
    times_ms = newest.times_ms + deep.times_ms[skipped[0] :] + oldest.times_ms
    return times_ms, newest.found + deep.found - skipped[1] + oldest.found


async def measure_lists(client: Client) -> bool:
    """Print the times of every filter's pages; whether each is within the limit."""
    every_ms: list[float] = []
    slowest_ms = 0.0
    print("ListRuns        p50    p95  worst  pages   runs  of pages of 50 runs, in ms")
    for text in FILTERS:
        await page_times(client, text)
        times_ms, found = await page_times(client, text)
        every_ms += times_ms
        p95_ms = _setting.percentile(times_ms, 0.95)
        slowest_ms = max(slowest_ms, p95_ms)
        print(
            f"             {_setting.percentile(times_ms, 0.5):6.1f} {p95_ms:6.1f}"
            f" {max(times_ms):6.1f} {len(times_ms):6} {found:6,}  {text or '(no filter)'}"
        )
    print(
        f"ListRuns     p95 {_setting.percentile(every_ms, 0.95):.1f} ms over {len(every_ms)} pages,"
        f" {slowest_ms:.1f} ms of the slowest filter (under {LIST_LIMIT_MS:g})"
    )
    return slowest_ms < LIST_LIMIT_MS


async def measure_counts(client: Client) -> bool:
    """Print how long it takes to count the waiting runs; whether that is within the limit."""
    times_ms = []
    counted = await client.count_runs("status = waiting")
    for _ in range(COUNTS):
        began_s = time.perf_counter()
        counted = await client.count_runs("status = waiting")
        times_ms.append((time.perf_counter() - began_s) * 1e3)
    p95_ms = _setting.percentile(times_ms, 0.95)
    print(
        f"CountRuns    {counted.count:,} waiting runs, exact: {counted.is_exact};"
        f" p95 {p95_ms:.1f} ms (under {COUNT_LIMIT_MS:g})"
    )
    return p95_ms < COUNT_LIMIT_MS


async def started_per_s(client: Client, duration_s: float) -> float:
    """Runs per second that some callers start together, each with two labels."""
    started, end_s = 0, time.monotonic() + duration_s

    async def caller() -> None:
        nonlocal started
        while time.monotonic() < end_s:
            await client.start_run(
                "started",
                labels={"team": "team-1", "region": "r1"},
                start_delay=timedelta(hours=1),
            )
            started += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return started / duration_s


async def measure_starts(full: Client, empty: Client, duration_s: float) -> bool:
    """Print how StartRun fares in both databases; whether they are close enough."""
    rates: dict[Client, list[float]] = {full: [], empty: []}
    for client in rates:
        await client.put_workflow(SOURCE)
        await started_per_s(client, duration_s / 2)
    for number in range(ROUNDS * 2):
        client = (full, empty)[number % 2]
        rates[client].append(await started_per_s(client, duration_s))
    of_full, of_empty = (statistics.median(each) for each in rates.values())
    slower = 1 - of_full / of_empty
    print(
        f"StartRun     {of_full:,.0f}/s in the full table, {of_empty:,.0f}/s in the empty one:"
        f" {slower:+.0%} slower (at most {START_LIMIT:.0%})"
    )
    return slower <= START_LIMIT


async def measure(full: str, empty: str, arguments: argparse.Namespace) -> bool:
    """Measure everything; whether every limit was kept."""
    async with Client(full) as of_full, Client(empty) as of_empty:
        kept = [await measure_lists(of_full), await measure_counts(of_full)]
        kept.append(await measure_starts(of_full, of_empty, arguments.duration))
    return all(kept)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench lists", description=__doc__)
    parser.add_argument("--database-url", help="default: a durable PostgreSQL of its own")
    parser.add_argument("--runs", type=int, default=1_000_000, help="runs in the full table")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds per round of starts")
    arguments = parser.parse_args()
    with (
        _setting.database(arguments.database_url) as url,
        databases(url) as (full, empty),
        psycopg.connect(full, autocommit=True) as conn,
    ):
        print(_setting.machine(conn))
        began_s = time.monotonic()
        _many_runs.fill(conn, arguments.runs)
        print(f"filled       {arguments.runs:,} runs in {time.monotonic() - began_s:.0f} s")
        with _setting.server(full) as of_full, _setting.server(empty) as of_empty:
            kept = asyncio.run(measure(of_full.address, of_empty.address, arguments))
            for each in (of_full, of_empty):
                _setting.print_complaints(each)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()

"""The load: keeps runs of one workflow going for a while.

Prints `begin` and `end` at the ends of the measured window, then what it saw as one JSON object.

How ends are noticed is a choice, for it costs as well:

* `rows` asks the database how many runs are under way, every few milliseconds, and starts as many
  as are missing with one call;
* `await` is what callers do: each one starts a run and waits for its end;
* `none` starts runs, one after the other, and never looks back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from runkon_client import Client, RunSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOK_S: Final = 0.004

# Runs under way are the owned ones. The planner has no statistics yet and would read the table.
UNDER_WAY: Final = "SELECT count(*) FROM workflow_runs WHERE owner_token IS NOT NULL"
PLANS: Final = "-c enable_seqscan=off -c enable_bitmapscan=off"


@dataclass(slots=True)
class Seen:
    """What the load saw within the measured window."""

    begin_s: float
    end_s: float
    latencies_s: list[float] = field(default_factory=list)

    def add(self, began_s: float, ended_s: float) -> None:
        """Count an operation that ended within the window."""
        if self.begin_s <= ended_s < self.end_s:
            self.latencies_s.append(ended_s - began_s)

    @property
    def is_over(self) -> bool:
        """Whether the window is over."""
        return time.monotonic() >= self.end_s


async def announce(seen: Seen) -> None:
    """Print where the window begins and ends, when it does."""
    for word, at_s in (("begin", seen.begin_s), ("end", seen.end_s)):
        await asyncio.sleep(at_s - time.monotonic())
        print(word, flush=True)


async def callers(count: int, seen: Seen, operate: Callable[[], Awaitable[object]]) -> None:
    """So many callers at once, each of which does the same again and again."""

    async def one() -> None:
        while not seen.is_over:
            began_s = time.monotonic()
            await operate()
            seen.add(began_s, time.monotonic())

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())


async def refill(client: Client, dsn: str, workflow: str, count: int, seen: Seen) -> None:
    """Keep so many runs going, and know it from the rows."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, options=PLANS, prepare_threshold=0
    ) as conn:
        while not seen.is_over:
            row = await (await conn.execute(UNDER_WAY)).fetchone()
            missing = count - (row[0] if row else 0)
            if missing > 0:
                await client.start_runs([RunSpec(workflow)] * missing)
            await asyncio.sleep(LOOK_S)


async def load(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the load; what it saw."""
    async with Client(arguments.address) as client:
        begin_s = time.monotonic() + arguments.warm_up
        seen = Seen(begin_s, begin_s + arguments.duration)

        announcing = asyncio.create_task(announce(seen))

        async def start() -> None:
            await client.start_run(arguments.workflow)

        async def start_and_wait() -> None:
            await (await client.start_run(arguments.workflow)).wait()

        match arguments.observe:
            case "rows":
                refilling = refill(
                    client, arguments.dsn, arguments.workflow, arguments.runs - 1, seen
                )
                # One caller among them measures what a caller sees.
                await asyncio.gather(refilling, callers(1, seen, start_and_wait))
            case "await":
                await callers(arguments.runs, seen, start_and_wait)
            case _:
                await callers(arguments.runs, seen, start)
        await announcing
    return {"latencies_s": seen.latencies_s}


def main() -> None:
    """Run the load that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("dsn")
    parser.add_argument("workflow")
    parser.add_argument("--observe", choices=["rows", "await", "none"], default="rows")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--duration", type=float, default=15.0)
    print(json.dumps(asyncio.run(load(parser.parse_args()))))


if __name__ == "__main__":
    main()

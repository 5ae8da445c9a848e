"""The API: random requests to a real server, in search of answers that are bugs of ours.

Requests are made from the descriptors of every service. The same seed makes the same ones but for
the ids and tokens, which are those of the server's own runs, gates and tasks. A call must not end
as a bug of ours, nor without telling what is wrong with the request, nor take long; nothing may
leave a traceback in the log; at the end the server still brings a run to its end. What fails is
made smaller and printed as text proto. Exits with 1 if anything did.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from benchmarks import _setting
from fuzz._api_calls import LIMIT_S, Outcome, complaints, perform
from fuzz._api_requests import METHODS, Call, make_call
from fuzz._api_shrinking import shown, shrink
from fuzz._api_sql import fuzz_sql
from fuzz._api_world import World, poll, refresh
from runkon.v1 import admin_pb2, runs_pb2, types_pb2, workers_pb2
from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.migrations import upgrade
from support.live_api import live_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from support.live_api import LiveApi

AT_ONCE: Final = 24
REFRESH_EVERY: Final = 250
OK_MIN: Final = 0.2
"""The least share of calls that have to succeed: otherwise nothing behind validation is tried."""
TRIED_MIN: Final = 60
"""Calls of a method from which on some of them have to succeed."""
AGAIN_MAX: Final = 4
PAUSE_S: Final = 2.0
SHOWN: Final = 20
SQL_SHARE: Final = 50
"""For so many calls one is made in SQL."""
ELSEWHERE: Final = "fuzz-end"
"""A namespace that no request names."""


@dataclass(slots=True)
class Findings:
    """What came of the calls."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many ended so, by method and code; calls that were still open say `open`."""
    failures: dict[str, tuple[int, Call]] = field(default_factory=dict)
    """Complaint → number and call that it was first made of."""
    told: Counter[str] = field(default_factory=Counter)
    logged: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    in_sql: list[str] = field(default_factory=list)
    """What was wrong with calls of `runkon.start_run()`."""
    aftermath: str = ""
    """What the server could no longer do after it all."""

    @property
    def is_any(self) -> bool:
        """Whether there is something to mend."""
        return bool(self.failures or self.logged or self.in_sql or self.aftermath)

    @property
    def succeeded(self) -> float:
        """The share of calls that did what they asked for."""
        ok = sum(n for (_, code), n in self.codes.items() if code in ("OK", "open"))
        return ok / max(1, self.codes.total())

    def never(self) -> list[str]:
        """The methods that never did what was asked for, though often called."""
        tried: Counter[str] = Counter()
        done: Counter[str] = Counter()
        for (name, code), number in self.codes.items():
            tried[name] += number
            done[name] += number if code in ("OK", "open") else 0
        return [
            name for name, number in sorted(tried.items()) if number >= TRIED_MIN and not done[name]
        ]

    def note(self, index: int, call: Call, outcome: Outcome) -> None:
        """Count a call, and keep it if it is the first with its fault."""
        code = "open" if outcome.is_open and not outcome.answers else outcome.code.name
        self.codes[call.method.name, code] += 1
        if not outcome.is_open:
            self.slowest = max(self.slowest, (outcome.took_s, call.method.name))
        for complaint in complaints(call, outcome):
            self.told[complaint] += 1
            self.failures.setdefault(complaint, (index, call))


async def fuzz(api: LiveApi, seed: int, calls: Sequence[int]) -> Findings:
    """Make the calls with these numbers, many at a time."""
    found, world, numbers = Findings(), World(), shown_progress(calls)
    await refresh(api, world)

    async def caller() -> None:
        for index in numbers:
            if index % REFRESH_EVERY == REFRESH_EVERY - 1:
                with contextlib.suppress(grpc.aio.AioRpcError):  # a busy machine; later, then
                    await refresh(api, world)
            call = make_call(seed, index, world)
            outcome = await perform(api.channel, call)
            found.note(index, call, outcome)
            request = None if isinstance(call.messages[0], bytes) else call.messages[0]
            for answer in outcome.answers:
                world.learn(request, answer)

    with listening(found.logged):
        in_sql = fuzz_sql(api.engine.config.dsn, seed, len(calls) // SQL_SHARE)
        _, found.in_sql = await asyncio.gather(
            asyncio.gather(*(caller() for _ in range(AT_ONCE))), in_sql
        )
        found.aftermath = await finish_a_run(api)
    return found


async def finish_a_run(api: LiveApi) -> str:
    """Bring a run to its end by a worker of its own; what went wrong, if anything."""
    await api.admin.SetRetention(admin_pb2.SetRetentionRequest(for_all=True, keep_forever=True))
    start = runs_pb2.StartRunRequest(namespace=ELSEWHERE, source="workflow last { call work }")
    run_id = (await api.runs.StartRun(start)).run.id
    leases = (await api.workers.PollTasks(poll("last", ELSEWHERE, wait_s=50), timeout=60)).leases
    for lease in leases:
        done = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token)
        done.result.SetInParent()
        request = workers_pb2.ReportTaskRequest(namespace=ELSEWHERE, report=done)
        await api.workers.ReportTask(request)
    wait = runs_pb2.AwaitRunRequest(namespace=ELSEWHERE, run_id=run_id)
    answer = await api.runs.AwaitRun(wait, timeout=60)
    is_done = answer.run.status == types_pb2.RUN_STATUS_COMPLETED
    return "" if is_done else f"afterwards a run does not end: {answer}"


@contextlib.contextmanager
def listening(logged: list[str]) -> Iterator[None]:
    """Collect what the server in this process logs of failures, tracebacks above all."""

    def take(_logger: object, level: str, record: Any) -> Any:
        if record.get("exc_info") or level in ("error", "critical", "exception"):
            logged.append(str(structlog.processors.format_exc_info(None, level, record)))
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(self.format(record))

    before, handler = structlog.get_config(), Handler(logging.ERROR)
    structlog.configure(processors=[take])
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        structlog.configure(**before)


async def judge_again(api: LiveApi, found: Findings) -> None:
    """Make what failed smaller, and forget what was slow because others were busy."""
    for complaint, (index, call) in list(found.failures.items()):

        async def fails(candidate: Call, complaint: str = complaint) -> bool:
            return complaint in complaints(candidate, await perform(api.channel, candidate))

        is_back = False
        for _ in range(AGAIN_MAX):
            is_back = await fails(call)
            if is_back or f"{LIMIT_S:g} s" not in complaint:
                break
            await asyncio.sleep(PAUSE_S)
        if is_back:
            found.failures[complaint] = (index, await shrink(call, fails))
        elif f"{LIMIT_S:g} s" in complaint:
            del found.failures[complaint]


def report(found: Findings, arguments: argparse.Namespace, took_s: float) -> None:
    """Print what was found."""
    total = found.codes.total()
    print(
        f"requests     {total:,} of seed {arguments.seed} in {took_s:,.0f} s,"
        f" {total / took_s:,.0f}/s; {found.succeeded:.0%} of them succeeded (at least {OK_MIN:.0%})"
    )
    by_code = Counter(code for (_, code), n in found.codes.items() for _ in range(n))
    print(f"codes        {', '.join(f'{code} {n:,}' for code, n in by_code.most_common())}")
    print(f"slowest      {found.slowest[1]} {found.slowest[0]:.1f} s")
    print(f"never OK     {', '.join(found.never()) or 'none'}")
    if arguments.methods:
        for method in METHODS:
            ends = {
                code: n for (name, code), n in sorted(found.codes.items()) if name == method.name
            }
            print(f"  {method.name:22} {ends}")
    print(f"log          {len(found.logged)}")
    for text in found.logged[:SHOWN]:
        print(f"  {text[-6_000:]}")
    print(f"in SQL       {len(found.in_sql)}")
    for text in found.in_sql:
        print(f"  {text}")
    print(f"afterwards   {found.aftermath or 'a run was brought to its end'}")
    print(f"failures     {len(found.failures)}")
    for complaint, (index, call) in list(found.failures.items())[:SHOWN]:
        print(f"\n  request {index}: {complaint} ({found.told[complaint]} times)\n{shown(call)}")


async def run(arguments: argparse.Namespace, dsn: str) -> Findings:
    """Fuzz a server of our own."""
    calls: Sequence[int] = range(arguments.count)
    if arguments.only is not None:
        calls = [arguments.only]
    async with live_api(dsn) as api:
        found = await fuzz(api, arguments.seed, calls)
        await judge_again(api, found)
    return found


def shown_progress(indexes: Iterable[int]) -> Iterator[int]:
    """The same, with a dot for each thousand."""
    for index in indexes:
        if index % 1_000 == 999:
            print(".", end="", file=sys.stderr, flush=True)
        yield index
    print(file=sys.stderr)


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="dev.py fuzz api", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="N", help="make request N only")
    parser.add_argument("--methods", action="store_true", help="print how calls ended, by method")
    arguments = parser.parse_args()
    print(_setting.host())
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="runkon-fuzz-") as folder:
        Path(folder).chmod(0o711)  # root's server runs as another user
        with EmbeddedPostgres(Path(folder) / "postgres", fast=True) as dsn:
            upgrade(dsn)
            found = asyncio.run(run(arguments, dsn))
    report(found, arguments, time.monotonic() - began_s)
    is_vain = arguments.only is None and (found.succeeded < OK_MIN or bool(found.never()))
    return 1 if found.is_any or is_vain else 0


if __name__ == "__main__":
    sys.exit(main())

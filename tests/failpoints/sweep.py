"""Ends a server at every failpoint, or loses an answer there: whatever was asked for is done.

Every point is struck at in a server process of its own on a real PostgreSQL, while it executes a
program that passes the point; another replica takes over. Afterwards the database has to hold
exactly one outcome of everything. A point that was not reached fails the sweep.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from failpoints import _check
from failpoints._cases import Case, cases, unknown
from failpoints._plays import PATIENT, Stage
from runkon_client import Client
from runkon_server.failpoints import EXIT_CODE, POINTS
from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.migrations import upgrade
from support.clusters import Replica, either
from support.postgres import dsn_of
from support.servers import runkon_server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from runkon_client.values import RunStatus
    from support.servers import ServerProcess

START_S: Final = 120.0
CASE_S: Final = 300.0
EXIT_S: Final = 60.0
"""After which a case has failed: the machine may be busy."""
LOOK_S: Final = 0.02
TEMPLATE: Final = "sweep_template"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a case."""

    case: Case
    problems: Sequence[str]
    took_s: float


@contextlib.asynccontextmanager
async def replica(dsn: str, armed: str = "") -> AsyncIterator[Replica]:
    """`runkon-server serve` with the shortest leases it takes."""
    arguments = ["serve", "--listen", "127.0.0.1:0", "--lease-ttl", "2", "--task-lease", "2"]
    environment = {"RUNKON_DATABASE_URL": dsn, "RUNKON_FAILPOINTS": armed}
    with runkon_server(arguments, environment) as server:
        yield Replica(server, await asyncio.to_thread(server.started, START_S))


@contextlib.asynccontextmanager
async def database(server: str, name: str) -> AsyncIterator[str]:
    """A copy of the template."""
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as conn:
        await conn.execute(copy.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
        try:
            yield dsn_of(server, name)
        finally:
            await conn.execute(drop.format(sql.Identifier(name)))


@dataclass(slots=True)
class Arena:
    """A database and the replica that survives, for one case after the other."""

    dsn: str
    survivor: Replica
    expected: dict[str, RunStatus] = field(default_factory=dict)
    effects: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


@contextlib.asynccontextmanager
async def arena(server: str, name: str) -> AsyncIterator[Arena]:
    """One, as long as the context lasts."""
    async with database(server, name) as dsn, replica(dsn) as survivor:
        yield Arena(dsn, survivor)


async def judge(where: Arena, case: Case) -> Verdict:
    """Play one case. Its points count from the moment at which the server serves."""
    began_s = time.monotonic()
    async with replica(where.dsn, case.armed) as victim:
        client = Client(either(victim, where.survivor), retry=PATIENT)
        stage = Stage(where.dsn, victim, where.survivor, client, where.expected, where.effects)
        watching = asyncio.create_task(_thaw_when_struck(stage, case))
        problems: list[str] = []
        try:
            async with asyncio.timeout(CASE_S), client:
                await case.play(stage)
                while _is_unstruck(victim.server, case):  # some points come with time
                    await case.play(stage)
        except TimeoutError:
            problems.append(f"not over within {CASE_S:g} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the case has failed
            problems.append(f"the play failed: {error!r}")
        finally:
            watching.cancel()
            stage.thaw()
        problems += _unfired(victim.server, case)
        ended = await asyncio.to_thread(_ending, victim.server, case)
        if case.action == "exit" and ended != EXIT_CODE:
            problems.append(f"it ended with {ended}, not {EXIT_CODE}")
        if not problems:
            await _settled(where.dsn)
            problems += _check.problems(where.dsn, where.expected, where.effects)
        if problems:
            problems += _last_words(victim.server)
    return Verdict(case, problems, time.monotonic() - began_s)


async def _thaw_when_struck(stage: Stage, case: Case) -> None:
    """The survivor may act as soon as every point was struck at, or the server is gone."""
    server = stage.victim.server

    async def is_struck() -> bool:
        return not _is_unstruck(server, case)

    await eventually(is_struck, "every point is struck at", within_s=CASE_S)
    stage.thaw()


def _is_unstruck(server: ServerProcess, case: Case) -> bool:
    """Whether a server lives that some point of a case still has to strike."""
    return server.process.poll() is None and bool(_unfired(server, case))


def _ending(server: ServerProcess, case: Case) -> int | None:
    """The exit code; of one that has said that it exits, which takes a moment, once it has."""
    if case.action == "exit" and not _unfired(server, case):
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(EXIT_S)
    return server.process.poll()


def _unfired(server: ServerProcess, case: Case) -> list[str]:
    """The points of a case that the server never came to, in words."""
    fired = {record["point"] for record in server.records("failpoint.fired")}
    return [f"{point} was never reached" for point in case.points if point not in fired]


def _last_words(server: ServerProcess) -> list[str]:
    """What a server said at the end."""
    records = [f"  log: {record}" for record in server.log if record["level"] != "info"]
    return [*server.said[-6:], *records[-6:]]


async def _settled(dsn: str) -> None:
    """Wait until parents are told and ended runs are left: what follows the end a caller sees."""
    busy = (
        "SELECT count(*) FROM workflow_runs WHERE ended_at IS NULL OR NOT parent_notified"
        " OR owner_token IS NOT NULL"
    )
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:

        async def is_settled() -> bool:
            cursor = await conn.execute(busy)
            return await cursor.fetchone() == (0,)

        with contextlib.suppress(AssertionError):  # the queries say what is left
            await eventually(is_settled, "everything is settled")


async def sweep(server: str, chosen: Sequence[Case], jobs: int) -> list[Verdict]:
    """Judge every case, in so many arenas at a time; a case that fails gets the last of its own."""
    waiting = deque(chosen)
    verdicts: list[Verdict] = []
    numbers = itertools.count()

    async def work() -> None:
        while waiting:
            async with arena(server, f"sweep_{next(numbers)}") as where:
                while waiting:
                    verdict = await judge(where, waiting.popleft())
                    _print(verdict)
                    verdicts.append(verdict)
                    if verdict.problems:
                        break

    await asyncio.gather(*(work() for _ in range(jobs)))
    return verdicts


def _print(verdict: Verdict) -> None:
    word = "FAILED" if verdict.problems else "ok"
    print(f"{word:<7}{verdict.took_s:5.1f} s  {verdict.case.name}", flush=True)
    for problem in verdict.problems:
        print(f"         {problem}", flush=True)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of the sweep's own with a migrated template; a superuser's URL."""
    folder = Path(tempfile.mkdtemp(prefix="runkon-sweep-"))
    folder.chmod(0o711)
    try:
        with EmbeddedPostgres(folder / "postgres", fast=True) as dsn:
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
            upgrade(dsn_of(dsn, TEMPLATE))
            yield dsn
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Sweep, print a line for each case and what was reached; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="dev.py failpoints", description=__doc__)
    parser.add_argument("points", nargs="*", help="only these; default: every registered point")
    parser.add_argument(
        "--jobs", type=int, default=2 * (os.cpu_count() or 1), help="cases at a time"
    )
    parser.add_argument("--list", action="store_true", help="only list the points")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:<22} {meaning}" for name, meaning in POINTS.items()))
        return
    if wrong := unknown(arguments.points):
        parser.error(f"no such failpoint: {', '.join(wrong)}")
    chosen = cases(arguments.points or POINTS)
    began_s = time.monotonic()
    with postgres() as dsn:
        verdicts = asyncio.run(sweep(dsn, chosen, arguments.jobs))
    failed = [verdict for verdict in verdicts if verdict.problems]
    struck = {(point, v.case.action) for v in verdicts for point in v.case.points}
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used_s = sum(each.ru_utime + each.ru_stime for each in used)
    print(
        f"\n{len(struck)} pairs of point and action ({len(arguments.points or POINTS)} points) in"
        f" {len(verdicts)} servers, {len(failed)} failed,"
        f" {time.monotonic() - began_s:.0f} s, {used_s:.0f} s of processor time without PostgreSQL"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

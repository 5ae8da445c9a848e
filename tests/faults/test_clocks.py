"""The clock of PostgreSQL is set, by an hour, while runs are under way."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon_client import Actions, Client, RunSpec, StartedRun
from runkon_client.values import RunStatus
from runkon_server.store.migrations import upgrade
from support.clusters import either, replicas, rows, working
from support.postmasters import running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client import Task
    from runkon_client.handles import RunHandle
    from support.postmasters import Postmaster

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(FAKETIME is None, reason="no libfaketime here: apt install faketime"),
]

STEPS: Final = 20
SOURCE: Final = "workflow busy {\n" + "call tick\n" * STEPS + "}"
FALLING: Final = """
SELECT count(*) FROM (
    SELECT generation < lag(generation) OVER (PARTITION BY run_id ORDER BY seq) AS falls
    FROM run_events) e WHERE falls"""
DONE: Final = "SELECT count(*) FROM run_events WHERE kind = 'step_completed'"
ROWS: Final = "SELECT count(*) FROM workflow_run_steps"
CHANGED: Final = "SELECT count(DISTINCT run_id) FROM run_events WHERE generation > 1"


class Clock:
    """The wall clock of a server: how far it is off, read by every session whenever it looks.

    What measures spans goes on undisturbed, as it does when an operator sets a clock.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.variables = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """Such as `+1h`."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{offset}\n")
        draft.replace(self._file)


@pytest.fixture
def clock(session_folder: Path) -> Clock:
    made = Clock(session_folder / "clock")
    made.set("+0")
    return made


@pytest.fixture
def postmaster(session_folder: Path, clock: Clock) -> Iterator[Postmaster]:
    """A server that goes by the test's clock, with a migrated database `template`."""
    with running(session_folder / "clocks", clock.variables) as server:
        server.execute("CREATE DATABASE template")
        upgrade(server.dsn("template"))
        yield server


class Work:
    """Counts what was executed."""

    def __init__(self) -> None:
        self.actions = Actions()
        self.done = 0

        @self.actions.action("tick")
        async def tick(task: Task) -> None:
            await asyncio.sleep(0.05)
            self.done += 1

    async def more(self, number: int) -> None:
        """Return when so many more were executed."""
        wanted = self.done + number

        async def are_done() -> bool:
            return self.done >= wanted

        await eventually(are_done, f"{number} more steps are executed")


async def begin(client: Client, number: int = 3) -> list[RunHandle]:
    """So many busy runs."""
    started = await client.start_runs([RunSpec(source=SOURCE)] * number)
    return [client.run(run.id) for run in started if isinstance(run, StartedRun)]


async def test_27_a_clock_that_is_set_changes_no_winner(database: str, clock: Clock) -> None:
    """Forward all leases run out at once, back none does; meanwhile an owner is killed."""
    work = Work()
    with replicas(database, 2) as (one, other):
        async with (
            Client(either(one, other)) as client,
            Client(other.address) as survivor,
            working(either(other, one), work.actions),
        ):
            runs = await begin(client)
            await work.more(6)
            clock.set("+1h")
            await work.more(12)
            clock.set("-1h")
            await work.more(12)
            runs += await begin(client)
            await work.more(6)
            await one.stop(signal.SIGKILL)
            ended = [await survivor.run(run.id).wait() for run in runs]
            numbers = [[event.seq async for event in survivor.run(run.id).events()] for run in runs]

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert numbers == [[*range(1, run.last_seq + 1)] for run in ended]
    assert rows(database, FALLING) == [(0,)]
    assert rows(database, DONE) == rows(database, ROWS) == [(STEPS * len(runs),)]
    assert rows(database, CHANGED)[0][0] >= 1

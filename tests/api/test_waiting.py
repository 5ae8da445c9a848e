"""Waiting for the end of a run: woken by what is told, guaranteed by looking."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import update

from runkon_server import errors
from runkon_server.api import waiting
from runkon_server.api.definitions import Definitions
from runkon_server.api.lookups import Lookups
from runkon_server.api.waiting import EndOfRuns
from runkon_server.runtime.commands import EventRecord
from runkon_server.store import tables
from support.replicas import FakeReplica
from support.rows import NOON, add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RUN = ulid(1)


class Place:
    """A replica that tells what the test says, and those who wait on it."""

    def __init__(self, replica: FakeReplica) -> None:
        self.replica = replica
        self.ends = EndOfRuns(replica, Lookups(replica, Definitions()), replica.ambient)

    async def end(self) -> None:
        """The run ends, in its row only."""
        async with self.replica.reads.connect() as conn:
            await conn.execute(update(tables.runs).values(status="completed", ended_at=NOON))

    async def is_awaited(self) -> bool:
        return RUN in self.ends._waiting


@pytest_asyncio.fixture
async def place(database: str) -> AsyncIterator[Place]:
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            await add_run(conn, RUN)
        yield Place(FakeReplica(engine))


def told(kind: str) -> list[EventRecord]:
    return [EventRecord(RUN, 1, 1, kind, NOON, 1, "{}")]


@pytest.mark.parametrize("notice", ["the final event", "read the table", "every run"])
async def test_any_notice_of_the_end_wakes(
    place: Place, monkeypatch: pytest.MonkeyPatch, notice: str
) -> None:
    """The look that would find it anyway is put off for ever."""
    monkeypatch.setattr(waiting, "LOOK_S", 1000)
    waits = asyncio.create_task(place.ends.wait("default", RUN, timeout_s=100))
    await eventually(place.is_awaited, "somebody waits")
    await place.end()
    if notice == "every run":
        place.replica.tell("*", None)
    else:
        place.replica.tell(RUN, told("run_finished") if notice == "the final event" else None)

    assert (await waits).status == "completed"


async def test_an_end_that_nobody_told_of_is_found(place: Place) -> None:
    waits = asyncio.create_task(place.ends.wait("default", RUN, timeout_s=100))
    await eventually(place.is_awaited, "somebody waits")
    await place.end()

    assert (await waits).ended_at == NOON


async def test_when_the_time_is_over_the_run_is_shown_as_it_is(place: Place) -> None:
    run = await place.ends.wait("default", RUN, timeout_s=0.01)

    assert (run.status, run.ended_at) == ("running", None)


async def test_a_draining_replica_lets_nobody_wait(place: Place) -> None:
    """One who waits already, and one who comes then; an ended run is still told."""
    waits = asyncio.create_task(place.ends.wait("default", RUN, timeout_s=100))
    await eventually(place.is_awaited, "somebody waits")
    place.replica.drain()

    with pytest.raises(errors.DrainingError):
        await waits
    with pytest.raises(errors.DrainingError):
        await place.ends.wait("default", RUN, timeout_s=100)
    await place.end()
    assert (await place.ends.wait("default", RUN, timeout_s=100)).status == "completed"


async def test_nothing_is_kept_of_those_who_went_away(place: Place) -> None:
    waits = [asyncio.create_task(place.ends.wait("default", RUN, timeout_s=100)) for _ in range(3)]
    await eventually(place.is_awaited, "somebody waits")
    for each in waits:
        each.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

    assert place.ends._waiting == {}

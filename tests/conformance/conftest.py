"""Both stages for every statement: in memory, and live on PostgreSQL through gRPC."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.engines import SHORT, be_patient_with_locks
from support.live_api import live_api
from support.postgres import cloned
from support.stage_live import LiveStage
from support.stage_memory import MemoryStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from support.stage import Stage

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Served:
    """A replica in this process, and its database."""

    channel: grpc.aio.Channel
    database: str


@pytest.fixture(autouse=True)
def patient_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement is about replicas that lose the lock which shows them to be alive."""
    be_patient_with_locks(monkeypatch)


@pytest_asyncio.fixture(scope="package")
async def served(postgres_server: str, template_database: str) -> AsyncIterator[Served]:
    """One replica for all statements, with times that let a test see what takes long.

    No longer than that: its event loop stands still while tests without one run.
    """
    with cloned(postgres_server, template_database) as database:
        async with live_api(database, **SHORT) as api:
            yield Served(api.channel, database)


@pytest_asyncio.fixture(params=["memory", "live"])
async def stage(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[Stage]:
    """The stage on which a statement is shown, twice."""
    if request.param == "memory":
        yield MemoryStage()
        return
    namespace = f"stage-{next(_numbers)}"
    async with LiveStage(served.channel, served.database, namespace) as live:
        yield live

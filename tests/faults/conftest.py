"""One server per file that its tests may harm; each test has a database of its own there."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

from runkon_server.store.migrations import upgrade
from support.engines import rogue_on
from support.postmasters import Postmaster, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.engines import Rogue

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def postmaster(session_folder: Path) -> Iterator[Postmaster]:
    """A server with a migrated database `template`."""
    with running(session_folder / f"faults-{next(_numbers)}") as server:
        server.execute("CREATE DATABASE template")
        upgrade(server.dsn("template"))
        yield server


@pytest.fixture
def database(postmaster: Postmaster) -> Iterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    if not postmaster.is_running:
        postmaster.start()
    name = f"test_{next(_numbers)}"
    postmaster.execute("CREATE DATABASE {} TEMPLATE template", name)
    yield postmaster.dsn(name)
    if postmaster.is_running:
        postmaster.execute("DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside the replicas."""
    async with rogue_on(database) as session:
        yield session


@pytest.fixture
def administrator(postmaster: Postmaster, database: str) -> Iterator[psycopg.Connection]:
    """A superuser's session in another database of the server."""
    with psycopg.connect(postmaster.dsn(), autocommit=True) as conn:
        yield conn

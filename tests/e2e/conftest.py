"""One replica for all tests that do not harm theirs; each test has a namespace of its own there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runkon_client import Client
from support.clusters import Replica, replicas
from support.postgres import cloned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test may work: a replica's address, and a namespace that is the test's own."""

    address: str
    namespace: str


@pytest.fixture(scope="session")
def shared_replica(postgres_server: str, template_database: str) -> Iterator[Replica]:
    """A replica that no test stops."""
    with cloned(postgres_server, template_database) as database, replicas(database) as (one,):
        yield one


@pytest.fixture
def place(shared_replica: Replica) -> Place:
    return Place(shared_replica.address, f"test-{next(_numbers)}")


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Client]:
    """A client of the shared replica, in the test's own namespace."""
    async with Client(place.address, namespace=place.namespace, principal="ann") as made:
        yield made

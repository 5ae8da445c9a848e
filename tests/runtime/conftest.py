"""What tests of the engine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.engines import be_patient_with_locks, engine_on, rogue_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue


@pytest.fixture(autouse=True)
def patient_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but those of `test_takeover` is about replicas that lose theirs."""
    be_patient_with_locks(monkeypatch)


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside the engines."""
    async with rogue_on(database) as session:
        yield session


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    """A replica with short times."""
    async with engine_on(database) as replica:
        yield replica

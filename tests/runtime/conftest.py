"""What tests of the engine share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from runkon_server.runtime import tenure
from support.engines import engine_on, rogue_on
from support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue


@pytest.fixture(autouse=True)
def patient_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no replica lose its runs because the machine held its listener up for a second.

    `test_takeover` is about those who do.
    """
    monkeypatch.setattr(tenure, "RELOCK_S", PATIENCE_S)
    monkeypatch.setattr(tenure, "ABSENT_S", PATIENCE_S)


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

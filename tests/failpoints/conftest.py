"""What tests of failpoints share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from support.engines import engine_on, rogue_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue


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

"""What the tests of the API share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from support.live_api import LiveApi, live_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def api(database: str) -> AsyncIterator[LiveApi]:
    """A replica of this test's own."""
    async with live_api(database) as served:
        yield served

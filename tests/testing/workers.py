"""Workers for tests of the client's testing package."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runkon_client import Worker


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    """A worker that runs as long as the block."""
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running

"""Standard input: the rig says what to do next, and by closing it, or by dying, that it is over."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def orders() -> AsyncIterator[str]:
    """The words that arrive on standard input, until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while line := await reader.readline():
            yield line.decode().strip()
    finally:
        transport.close()


async def until_stdin_ends() -> None:
    """Wait for it."""
    async for _ in orders():
        pass

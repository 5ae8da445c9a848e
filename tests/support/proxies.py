"""A TCP proxy before PostgreSQL that loses what it is told to lose."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMITTER = b"plan_cache_mode"
"""In the startup packet of the committer's connections, and of no other."""
CHUNK = 1 << 16
LATE_S = 1.0


class Loss(Enum):
    """What is lost of the next COMMIT."""

    ANSWER = "answer"
    REQUEST = "request"
    LATE = "late"
    """The answer; the request itself arrives `LATE_S` after the client has lost its connection."""


class Proxy:
    """Forwards bytes; `lose` cuts the committer's connection at its next COMMIT."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._armed: Loss | None = None
        self.losses = 0

    def lose(self, what: Loss) -> None:
        """Lose the next COMMIT on its way, or only its answer."""
        self._armed = what

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one client."""
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        down = asyncio.create_task(self._copy(server_reader, writer))
        try:
            await self._up(reader, writer, server_reader, server_writer, down)
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            for each in (writer, server_writer):
                each.close()

    async def _up(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        down: asyncio.Task[None],
    ) -> None:
        is_committer = False
        while data := await reader.read(CHUNK):
            is_committer = is_committer or COMMITTER in data
            loss = self._armed if is_committer and b"COMMIT" in data else None
            if loss is None:
                server_writer.write(data)
                await server_writer.drain()
                continue
            self._armed = None
            self.losses += 1
            if loss is not Loss.REQUEST:
                down.cancel()
                await asyncio.gather(down, return_exceptions=True)
                if loss is Loss.LATE:
                    client.close()
                    await asyncio.sleep(LATE_S)
                server_writer.write(data)
                await server_reader.read(CHUNK)
            return

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy_before(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy and the URL by which the database is reached through it."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 5432)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await proxy.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    account = parts.netloc.rpartition("@")[0]
    try:
        yield proxy, urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}"))
    finally:
        server.close()

"""A TCP forwarder before a server, whose connections a test cuts when it likes."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHUNK = 1 << 16


class Forwarder:
    """Forwards bytes between programs and the server."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._open: set[asyncio.StreamWriter] = set()
        self._marker: bytes | None = None
        self.connections = 0
        """How many were made so far."""
        self.is_holding_back = False
        """Whether `hold_back_answers` has found its request, and `cut` was not called since."""

    def hold_back_answers(self, marker: bytes) -> None:
        """From the next request that contains these bytes on, nothing comes back until `cut`."""
        self._marker = marker

    def cut(self) -> None:
        """Reset every connection; new ones are forwarded."""
        self.is_holding_back = False
        for writer in list(self._open):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        self.connections += 1
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        mine = {writer, server_writer}
        self._open |= mine
        try:
            async with asyncio.TaskGroup() as copies:
                copies.create_task(self._copy(reader, server_writer, is_request=True))
                copies.create_task(self._copy(server_reader, writer, is_request=False))
        finally:
            self._open -= mine
            for each in mine:
                each.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        while data := await reader.read(CHUNK):
            if is_request and self._marker is not None and self._marker in data:
                self._marker, self.is_holding_back = None, True
            if is_request or not self.is_holding_back:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError  # one side is enough: the other has nobody to talk to


@asynccontextmanager
async def forwarding_to(target: str) -> AsyncIterator[tuple[Forwarder, str]]:
    """A forwarder on loopback, and its address."""
    forwarder = Forwarder(target)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await forwarder.serve(reader, writer)
            except* ConnectionError:
                pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield forwarder, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        forwarder.cut()

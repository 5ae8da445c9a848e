"""An address before PostgreSQL that can be pointed at another server, as a virtual IP or DNS is.

It has a thread of its own, for tests that start processes behind it keep their event loop busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

ResultT = TypeVar("ResultT")
CHUNK = 1 << 16


class Forwarder:
    """Passes bytes on to a port of this machine; while it is cut, nobody gets through."""

    def __init__(self, target: int) -> None:
        self._target: int | None = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._within(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def dsn(self, database: str) -> str:
        """The URL of a database behind it."""
        return f"postgresql://runkon@127.0.0.1:{self.port}/{database}"

    def cut(self) -> None:
        """Break every connection and accept no other."""
        self._within(self._lead(None))

    def point_at(self, target: int) -> None:
        """Break every connection; new ones lead to another port."""
        self._within(self._lead(target))

    def close(self) -> None:
        """End it and its thread."""
        self._within(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _within(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _lead(self, target: int | None) -> None:
        self._target = target
        for writer in self._open:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._lead(None)
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        if others:
            await asyncio.wait(others, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one client."""
        if self._target is not None:
            with contextlib.suppress(OSError):
                onward, back = await asyncio.open_connection("127.0.0.1", self._target)
                self._open |= {writer, back}
                try:
                    await asyncio.gather(self._copy(reader, back), self._copy(onward, writer))
                finally:
                    self._open -= {writer, back}
        writer.transport.abort()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def forwarder_to(target: int) -> Iterator[Forwarder]:
    """A forwarder that listens as long as the context lasts."""
    forwarder = Forwarder(target)
    try:
        yield forwarder
    finally:
        forwarder.close()

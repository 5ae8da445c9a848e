"""A TCP proxy that does to connections what bad networks do, in each direction apart.

It stands before PostgreSQL, where it can also read along far enough to lose what it is told to lose
(`Trap`, `mute`), and before the replicas. Nothing here decides when: the nemesis does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from runkon_server.verify.chaos.pgwire import NotificationSieve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHUNK: Final = 1 << 16
ANSWER_S: Final = 5.0
"""How long the answer to a trapped request is waited for."""
LATE_S: Final = 1.0
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes go."""

    UP = "towards the server"
    DOWN = "towards the client"


BOTH: Final = (Direction.UP, Direction.DOWN)


class Catch(Enum):
    """What a trap does with the request that it was set for."""

    LOSE_REQUEST = "cut the connection before it"
    LOSE_ANSWER = "let it through and cut the connection before the answer"
    LATE = "cut the connection, and let it through a second later"
    HOLD_ANSWER = "let it through and hold the answer back until told otherwise"


@dataclass(slots=True)
class Trap:
    """Waits for one request that holds `pattern`, on a connection that once sent `tag`."""

    pattern: bytes
    tag: bytes
    catch: Catch
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends a HOLD_ANSWER."""


class Weather:
    """How bytes travel in one direction."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        """None: as fast as it goes."""
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Let nothing through; what is under way is kept, as TCP would by sending it again."""
        self._open.clear()

    def clear(self) -> None:
        """Fine weather again."""
        self.delay_s = 0.0
        self.bytes_per_s = None
        self._open.set()

    async def admit(self, size: int) -> None:
        """Wait as long as so many bytes take."""
        pause_s = self.delay_s + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        if pause_s:
            await asyncio.sleep(pause_s)
        await self._open.wait()


class ChaosProxy:
    """Forwards connections to the first of its targets that answers, in turn.

    Args:
        targets: hosts and ports; may be changed at any time, for connections to come.
        reads_postgres: understand the messages of PostgreSQL, for `mute`.
    """

    def __init__(self, targets: Sequence[tuple[str, int]], *, reads_postgres: bool = False) -> None:
        self.targets = list(targets)
        self.weather = {direction: Weather() for direction in BOTH}
        self.is_mute = False
        """Lose notifications, and nothing else."""
        self.connections = 0
        """Counter."""
        self.notifications_lost = 0
        """Counter."""
        self.reads_postgres = reads_postgres
        self._trap: Trap | None = None
        self._links: set[_Link] = set()
        self._turn = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on 127.0.0.1; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Cut everything and listen no more."""
        if self._server is not None:
            self._server.close()
        self.reset()

    def hold(self, directions: Iterable[Direction] = BOTH) -> None:
        """Let nothing through any more; connections stay open."""
        for direction in directions:
            self.weather[direction].hold()

    def delay(self, seconds: float, directions: Iterable[Direction] = BOTH) -> None:
        """Let everything arrive late."""
        for direction in directions:
            self.weather[direction].delay_s = seconds

    def throttle(self, bytes_per_s: float, directions: Iterable[Direction] = BOTH) -> None:
        """Let only so much through."""
        for direction in directions:
            self.weather[direction].bytes_per_s = bytes_per_s

    def heal(self) -> None:
        """Forward as if nothing had been."""
        for weather in self.weather.values():
            weather.clear()
        self.is_mute = False
        if self._trap is not None:
            self._trap.release.set()
            self._trap = None

    def reset(self) -> None:
        """Cut every connection with RST."""
        for link in list(self._links):
            link.abort()

    def half_close(self, direction: Direction) -> None:
        """Tell one side of every connection that the other has nothing more to say."""
        for link in list(self._links):
            link.half_close(direction)

    def set(self, trap: Trap) -> None:
        """Wait for a request; there is one trap at a time."""
        self._trap = trap

    def spring(self, data: bytes, link: _Link) -> Trap | None:
        """The trap that these bytes of this connection have run into."""
        trap = self._trap
        if trap is None or trap.pattern not in data or not link.has_sent(trap.tag):
            return None
        self._trap = None
        trap.sprung.set()
        return trap

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server = await self._connect()
        if server is None:
            writer.close()
            return
        link = _Link(self, (reader, writer), server)
        self._links.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await link.run()
        finally:
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        for number in range(len(self.targets)):
            target = self.targets[(self._turn + number) % len(self.targets)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(*target, limit=CHUNK)
        return None


class _Link:
    """One connection through the proxy: a client's half and a server's half."""

    def __init__(
        self,
        proxy: ChaosProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._server_reader, self._server_writer = server
        self._sieve = NotificationSieve() if proxy.reads_postgres else None
        self._head = b""
        self._held: Trap | None = None

    def has_sent(self, tag: bytes) -> bool:
        """Whether the first bytes of the client held `tag`."""
        return tag in self._head

    async def run(self) -> None:
        """Forward until both sides are done, or one breaks."""
        pumps = {asyncio.ensure_future(self._up()), asyncio.ensure_future(self._down())}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._client_writer.close()
            self._server_writer.close()

    def abort(self) -> None:
        """Cut both halves with RST."""
        self._cut(self._client_writer)
        self._cut(self._server_writer)

    def half_close(self, direction: Direction) -> None:
        """Send FIN one way."""
        writer = self._server_writer if direction is Direction.UP else self._client_writer
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        found: socket.socket | None = writer.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        writer.transport.abort()

    async def _up(self) -> None:
        while data := await self._client_reader.read(CHUNK):
            if len(self._head) < CHUNK and not self._head:
                self._head = data
            await self._proxy.weather[Direction.UP].admit(len(data))
            trap = self._proxy.spring(data, self)
            if trap is not None and await self._is_cut(trap, data):
                raise ConnectionResetError
            if trap is None or trap.catch is Catch.HOLD_ANSWER:
                await self._send(self._server_writer, data)
        await self._finish(self._server_writer)

    async def _is_cut(self, trap: Trap, data: bytes) -> bool:
        """Do what the trap says; whether the connection is over."""
        match trap.catch:
            case Catch.LOSE_REQUEST:
                self.abort()
            case Catch.LOSE_ANSWER:
                self._held = trap
                await self._send(self._server_writer, data)
                # The request has to be done, not only begun, when the connection is cut.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await trap.release.wait()
                self.abort()
            case Catch.LATE:
                self._cut(self._client_writer)
                await asyncio.sleep(LATE_S)
                await self._send(self._server_writer, data)
                await asyncio.sleep(LATE_S)
                self.abort()
            case Catch.HOLD_ANSWER:
                self._held = trap
                return False
        return True

    async def _down(self) -> None:
        while data := await self._server_reader.read(CHUNK):
            await self._proxy.weather[Direction.DOWN].admit(len(data))
            held = self._held
            if held is not None:
                if held.catch is Catch.LOSE_ANSWER:
                    held.release.set()  # the answer is there, and nobody will hear it
                    continue
                await held.release.wait()
                self._held = None
            await self._send(self._client_writer, self._sifted(data))
        await self._finish(self._client_writer)

    def _sifted(self, data: bytes) -> bytes:
        if self._sieve is None:
            return data
        kept, lost = self._sieve.sift(data, drops=self._proxy.is_mute)
        self._proxy.notifications_lost += lost
        return kept

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            writer.write(data)
            await writer.drain()

    @staticmethod
    async def _finish(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()

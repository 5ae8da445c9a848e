"""The chaos proxy: what it does to bytes, before a server that echoes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from runkon_server.verify.chaos.pgwire import NotificationSieve
from runkon_server.verify.chaos.proxies import Catch, ChaosProxy, Direction, Trap
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TAG = b"tag"


class Echo:
    """A server that answers everything with itself, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard = b""

    async def hears(self, what: bytes) -> None:
        """Wait until it was heard."""

        async def is_heard() -> bool:
            return what in self.heard

        await eventually(is_heard, f"{what!r} arrives")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Echo, ChaosProxy, int]]:
    """An echo server, a proxy before it, and the proxy's port."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = ChaosProxy([("127.0.0.1", server.sockets[0].getsockname()[1])])
    try:
        yield echo, proxy, await proxy.start()
    finally:
        await proxy.stop()
        server.close()


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has sent the tag and heard it back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(TAG)
    assert await reader.readexactly(len(TAG)) == TAG
    return reader, writer


async def test_what_is_held_arrives_when_it_is_healed() -> None:
    """A partition delays bytes, as TCP does; it loses none."""
    async with proxied() as (echo, proxy, port):
        reader, writer = await opened(port)
        proxy.hold([Direction.UP])
        writer.write(b"late")
        await writer.drain()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        assert echo.heard == TAG

        proxy.heal()

        assert await reader.readexactly(4) == b"late"
        writer.close()


async def test_a_one_way_partition_lets_requests_through() -> None:
    async with proxied() as (echo, proxy, port):
        reader, writer = await opened(port)
        proxy.hold([Direction.DOWN])
        writer.write(b"done")

        await echo.hears(TAG + b"done")
        proxy.heal()
        assert await reader.readexactly(4) == b"done"
        writer.close()


async def test_a_reset_is_seen_as_one() -> None:
    async with proxied() as (_, proxy, port):
        reader, _writer = await opened(port)

        proxy.reset()

        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_half_closed_up_the_server_hears_the_end_and_may_still_answer() -> None:
    async with proxied() as (echo, proxy, port):
        reader, writer = await opened(port)

        proxy.half_close(Direction.UP)

        assert await reader.read() == b""
        assert echo.heard == TAG
        writer.close()


@pytest.mark.parametrize(
    ("catch", "arrives"),
    [(Catch.LOSE_REQUEST, False), (Catch.LOSE_ANSWER, True), (Catch.LATE, True)],
)
async def test_14_a_trapped_request_loses_its_connection(
    catch: Catch,
    arrives: bool,  # noqa: FBT001 - a case
) -> None:
    """Fault 14: lost before, lost after, or carried out when nobody listens any more."""
    async with proxied() as (echo, proxy, port):
        reader, writer = await opened(port)
        trap = Trap(b"COMMIT", TAG, catch)
        proxy.set(trap)
        writer.write(b"COMMIT")

        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert trap.sprung.is_set()
        if arrives:
            await echo.hears(b"COMMIT")
        else:
            assert b"COMMIT" not in echo.heard


async def test_a_trap_waits_for_its_own_kind_of_connection() -> None:
    async with proxied() as (_, proxy, port):
        reader, writer = await opened(port)
        trap = Trap(b"COMMIT", b"another tag", Catch.LOSE_REQUEST)
        proxy.set(trap)
        writer.write(b"COMMIT")

        assert await reader.readexactly(6) == b"COMMIT"
        assert not trap.sprung.is_set()
        writer.close()


async def test_an_answer_is_held_until_the_trap_is_released() -> None:
    async with proxied() as (echo, proxy, port):
        reader, writer = await opened(port)
        trap = Trap(b"BEGIN", TAG, Catch.HOLD_ANSWER)
        proxy.set(trap)
        writer.write(b"BEGIN")
        await echo.hears(b"BEGIN")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)

        trap.release.set()

        assert await reader.readexactly(5) == b"BEGIN"
        writer.close()


async def test_a_new_connection_takes_the_next_target_that_answers() -> None:
    async with proxied() as (_, proxy, port):
        proxy.targets.append(("127.0.0.1", 1))  # nobody listens there

        for _ in range(3):
            _reader, writer = await opened(port)
            writer.close()

        assert proxy.connections == 3


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_24_notifications_are_lost_and_nothing_else(size: int) -> None:
    """Fault 24, however the bytes are cut."""
    row, note = message(b"D", b"x" * 20), message(b"A", b"hint" * 5)
    stream = row + note + note + row + message(b"Z", b"I")
    sieve = NotificationSieve()

    sifted = [sieve.sift(stream[at : at + size], drops=True) for at in range(0, len(stream), size)]

    assert b"".join(kept for kept, _ in sifted) == row + row + message(b"Z", b"I")
    assert sum(lost for _, lost in sifted) == 2


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_without_the_fault_every_byte_passes_and_is_kept_count_of(size: int) -> None:
    row, note = message(b"D", b"x" * 20), message(b"A", b"hint")
    sieve = NotificationSieve()
    stream = row + note + row

    kept = [
        sieve.sift(stream[at : at + size], drops=False)[0] for at in range(0, len(stream), size)
    ]

    assert b"".join(kept) == stream
    assert sieve.sift(note + row, drops=True) == (row, 1)

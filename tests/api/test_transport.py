"""Peers that speak HTTP/2 badly, or too much: they lose their connection, nobody else notices.

Frames are written by hand, since no client library would send them.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
import pytest_asyncio

from runkon.v1 import runs_pb2
from runkon_server.api import server
from support.live_api import live_api
from support.rows import ulid
from support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from support.live_api import LiveApi

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
ENHANCE_YOUR_CALM: Final = 11
PINGS_MS: Final = 100
RESOURCE_EXHAUSTED: Final = b"grpc-status\x018"
DEADLINE_EXCEEDED: Final = b"grpc-status\x014"
"""As gRPC writes them into the last headers of a call, each text behind its length."""
CALL: Final = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/runkon.v1.RunService/GetRun",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def encoded(headers: dict[str, str]) -> bytes:
    """Headers as HPACK has them without any compression; none is longer than 126 bytes."""
    return b"".join(
        bytes([0, len(name)]) + name.encode() + bytes([len(text)]) + text.encode()
        for name, text in headers.items()
    )


def opened(stream: int, **further: str) -> bytes:
    """The beginning of a call whose message is still to come."""
    headers = CALL | {name.replace("_", "-"): text for name, text in further.items()}
    return frame(HEADERS, END_HEADERS, stream, encoded(headers))


def half_sent(stream: int, length: int, **further: str) -> bytes:
    """A call that announces a message of a length, and does not send it."""
    return opened(stream, **further) + frame(DATA, 0, stream, struct.pack(">BI", 0, length))


def frames(received: bytes) -> Iterable[tuple[int, bytes]]:
    """Kind and payload of each whole frame."""
    at = 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3])
        yield received[at + 3], received[at + 9 : at + 9 + length]
        at += 9 + length


class Peer:
    """The other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""

    async def send(self, pieces: Iterable[bytes]) -> None:
        """Send all, unless the connection is closed meanwhile."""
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
        except ConnectionError:
            return

    async def hear(self, what: bytes) -> None:
        """Read until something comes; fails if the connection ends before it does."""
        async with asyncio.timeout(PATIENCE_S):
            while what not in self.received:
                piece = await self._reader.read(65_536)
                assert piece, self.received
                self.received += piece

    async def ended(self) -> None:
        """Read until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while piece := await self._reader.read(65_536):
                    self.received += piece
            except ConnectionError:
                return


@pytest_asyncio.fixture
async def api(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveApi]:
    """A replica that waits a second for the beginning of a connection, not five.

    And peers may ping it each tenth of a second, not each five.
    """
    quick = dict(server.OPTIONS) | {
        "grpc.server_handshake_timeout_ms": 1_000,
        "grpc.http2.min_ping_interval_without_data_ms": PINGS_MS,
    }
    assert len(quick) == len(server.OPTIONS)
    monkeypatch.setattr(server, "OPTIONS", tuple(quick.items()))
    async with live_api(database) as served:
        yield served


@asynccontextmanager
async def peer_of(api: LiveApi, *, greets: bool = True) -> AsyncIterator[Peer]:
    host, _, port = api.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    peer = Peer(reader, writer)
    try:
        if greets:
            await peer.send([PREFACE, frame(SETTINGS, 0, 0)])
            await peer.hear(frame(SETTINGS, ACK, 0))
        yield peer
    finally:
        writer.close()


async def serves_others(api: LiveApi) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=ulid(1)), timeout=PATIENCE_S)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_3_a_message_that_is_too_long_is_refused_by_its_length(api: LiveApi) -> None:
    """Two gibibytes are announced; not one byte of them has to come."""
    async with peer_of(api) as peer:
        await peer.send([half_sent(1, 2**31)])
        await peer.hear(RESOURCE_EXHAUSTED)
        await serves_others(api)


async def test_8_too_much_metadata_is_refused(api: LiveApi) -> None:
    call = api.runs.GetRun(
        runs_pb2.GetRunRequest(run_id=ulid(1)), metadata=(("x-much", "x" * 20_000),)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await serves_others(api)


async def test_8_headers_that_do_not_end_hold_nobody_up(api: LiveApi) -> None:
    """A call begins with 5 MiB of headers; others are served before the last one comes, too.

    Whether that call is refused, or its connection ends with a ping that nobody answers, half a
    minute later, is gRPC's affair.
    """
    more = frame(CONTINUATION, 0, 1, encoded({"x": "y" * 100}) * 150)
    async with peer_of(api) as peer:
        await peer.send([frame(HEADERS, 0, 1, encoded(CALL)), *[more] * 320])
        await serves_others(api)
        await peer.send([frame(CONTINUATION, END_HEADERS, 1, encoded({"x": "y"}))])
        await serves_others(api)


@pytest.mark.parametrize(
    "beginning", [b"", PREFACE[:10], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01" * 50]
)
async def test_51_who_does_not_begin_to_speak_http_2_is_hung_up_on(
    api: LiveApi, beginning: bytes
) -> None:
    """Silence, half a preface, another protocol, the beginning of TLS."""
    async with peer_of(api, greets=False) as peer:
        await peer.send([beginning])
        await peer.ended()
        await serves_others(api)


async def test_50_a_flood_of_pings_costs_the_connection(api: LiveApi) -> None:
    """It is told why, within the first twenty."""
    async with peer_of(api) as peer:
        await peer.send([frame(PING, 0, 0, bytes(8)) * 20])
        await peer.ended()
        await serves_others(api)

    farewells = [body for kind, body in frames(peer.received) if kind == GOAWAY]
    reasons = [struct.unpack_from(">I", body, 4)[0] for body in farewells]
    assert ENHANCE_YOUR_CALM in reasons


async def test_pings_as_often_as_they_may_come_are_answered(api: LiveApi) -> None:
    """Nothing else is sent; by default the third ping within five minutes ends a connection."""
    async with peer_of(api) as peer:
        for number in range(6):
            await asyncio.sleep(2 * PINGS_MS / 1_000)
            payload = bytes([number]) * 8
            await peer.send([frame(PING, 0, 0, payload)])
            await peer.hear(frame(PING, ACK, 0, payload))

    assert GOAWAY not in [kind for kind, _ in frames(peer.received)]


async def test_50_calls_that_are_taken_back_at_once_hold_nobody_up(api: LiveApi) -> None:
    """Two thousand calls, each reset right behind its beginning, and calls of others between."""
    reset = struct.pack(">I", 8)
    async with peer_of(api) as peer:
        flood = asyncio.create_task(
            peer.send(
                opened(stream) + frame(RST_STREAM, 0, stream, reset)
                for stream in range(1, 4_001, 2)
            )
        )
        for _ in range(20):
            await serves_others(api)
        flood.cancel()


async def test_52_calls_that_are_half_sent_hold_nobody_up(api: LiveApi) -> None:
    """As many as a connection may have open; the deadline of a call ends it all the same."""
    at_once = dict(server.OPTIONS)["grpc.max_concurrent_streams"]
    async with peer_of(api) as peer:
        await peer.send(half_sent(2 * number + 1, 100) for number in range(at_once - 1))
        await serves_others(api)
        await peer.send([half_sent(2 * at_once + 1, 100, grpc_timeout="200m")])
        await peer.hear(DEADLINE_EXCEEDED)
        await serves_others(api)


async def test_54_what_is_not_offered_is_unimplemented(api: LiveApi) -> None:
    """What looks into the process of a server is for nobody."""
    call: Any = api.channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", timeout=PATIENCE_S)

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

"""The subscribers of `bench streams --part 4`: all the time streams are closed, cut and moved.

Most follow the namespace, some start runs and follow each to its end. Every one has a connection
of its own to both replicas, by a relay that can cut it. Prints `ready` when all follow; ends when
its standard input does, and prints what it saw as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import grpc

from benchmarks._watchers import OPTIONS
from runkon.v1 import events_pb2, runs_pb2, runs_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

HARMS: Final = ("closed", "cut", "moved")
RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: a connection that is closed is reset."""


class Relay:
    """A port that leads to a replica, until the connections through it are cut."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = host, int(port)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._leading: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Begin; the address."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return "127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())

    def cut(self) -> None:
        """Reset what is connected."""
        for writer in self._open:
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._lead(reader, writer))
        self._leading.add(task)
        task.add_done_callback(self._leading.discard)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        ends = {writer, there_writer}
        for end in ends:
            connection: socket.socket = end.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._open |= ends
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        self._open -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


class Subscriber:
    """One reader: where it is, and what it found wrong."""

    def __init__(self, relays: list[Relay], stubs: list[runs_pb2_grpc.RunServiceAsyncStub]) -> None:
        self.relays = relays
        self.stubs = stubs
        self.replica = 0
        self.is_reading = False
        """Events have come on this stream, and nothing is about to be done to it."""
        self.harm = ""
        self.harms: Counter[str] = Counter()
        self.last: dict[str, int] = {}
        """By run, the newest sequence."""
        self.events = self.gaps = self.doubles = self.runs = 0
        self.pause_s = 0.0
        """Longest time from the events before a harm to those after it."""
        self._seen_s = 0.0
        self._is_back = True

    def do_harm(self, harm: str) -> None:
        """Have the stream end, in a way that `HARMS` names."""
        self.is_reading, self.harm = False, harm
        if harm == "cut":
            self.relays[self.replica].cut()

    async def frames(self, method: str, request: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - of either stream
        """The frames of one stream, until it ends or is harmed; to be read to its end."""
        call = getattr(self.stubs[self.replica], method)(request)
        is_harmed = False
        try:
            async for frame in call:
                yield frame
                if self.harm in ("closed", "moved"):
                    is_harmed = True
                    break
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            is_harmed = bool(self.harm)
            await asyncio.sleep(0.05)
        call.cancel()
        self.is_reading = False
        if is_harmed:
            self.harms[self.harm] += 1
            self.replica ^= self.harm == "moved"
            self._is_back = False
        self.harm = ""

    def note(self, events: Iterable[events_pb2.RunEvent]) -> None:
        """Hold events to those before them."""
        now_s = time.monotonic()
        if not self._is_back:
            self.pause_s = max(self.pause_s, now_s - self._seen_s)
        self._is_back, self._seen_s = True, now_s
        self.is_reading = not self.harm
        for event in events:
            last = self.last.get(event.run_id, 0)
            self.events += 1
            self.gaps += event.seq > last + 1
            self.doubles += event.seq <= last
            self.last[event.run_id] = max(last, event.seq)


class Watching:
    """All subscribers, over both replicas."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._ready = asyncio.Semaphore(0)
        self._begun = asyncio.Event()
        self.feeds: list[Subscriber] = []
        self.followers: list[Subscriber] = []

    async def run(self) -> list[BaseException]:
        """Subscribe, do harm, end with standard input; gives what went wrong."""
        arguments = self._arguments
        self.feeds = [await self._subscriber() for _ in range(arguments.feeds)]
        self.followers = [await self._subscriber() for _ in range(arguments.followers)]
        following = [asyncio.create_task(self._follow_runs(each)) for each in self.followers]
        tasks = [asyncio.create_task(self._follow_feed(each)) for each in self.feeds]
        for _ in tasks:
            await self._ready.acquire()
        print("ready", flush=True)
        harming = asyncio.create_task(self._do_harm())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in (*tasks, harming):
            task.cancel()
        ended = await asyncio.gather(*tasks, *following, harming, return_exceptions=True)
        return [
            each
            for each in ended
            if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError)
        ]

    async def _subscriber(self) -> Subscriber:
        relays = [Relay(address) for address in self._arguments.addresses]
        channels = [
            grpc.aio.insecure_channel(await relay.open(), options=OPTIONS) for relay in relays
        ]
        return Subscriber(relays, [runs_pb2_grpc.RunServiceStub(each) for each in channels])

    async def _follow_feed(self, subscriber: Subscriber) -> None:
        cursor = ""
        while True:
            where: dict[str, Any] = {"cursor": cursor} if cursor else {"from_now": True}
            request = runs_pb2.StreamNamespaceEventsRequest(**where)
            async for frame in subscriber.frames("StreamNamespaceEvents", request):
                if frame.HasField("header"):
                    if not cursor:
                        self._ready.release()
                    cursor = frame.header.cursor
                elif frame.HasField("events"):
                    self._begun.set()
                    subscriber.note(each.event for each in frame.events.events)
                    cursor = frame.events.cursor

    async def _follow_runs(self, subscriber: Subscriber) -> None:
        await self._begun.wait()
        until_s = time.monotonic() + self._arguments.seconds
        while time.monotonic() < until_s:
            start = runs_pb2.StartRunRequest(workflow="steps")
            run_id = (await subscriber.stubs[0].StartRun(start, wait_for_ready=True)).run.id
            await self._follow_run(subscriber, run_id)
            subscriber.runs += 1

    async def _follow_run(self, subscriber: Subscriber, run_id: str) -> None:
        head_seq = 0
        while not head_seq:
            request = runs_pb2.StreamRunEventsRequest(
                run_id=run_id, after_seq=subscriber.last.get(run_id, 0)
            )
            async for frame in subscriber.frames("StreamRunEvents", request):
                if frame.HasField("events"):
                    subscriber.note(frame.events.events)
                elif frame.HasField("end"):
                    head_seq = frame.end.head_seq
        subscriber.gaps += head_seq != subscriber.last[run_id]

    async def _do_harm(self) -> None:
        everybody = self.feeds + self.followers
        pause_s = self._arguments.seconds / self._arguments.cuts
        await self._begun.wait()
        harms = itertools.cycle(HARMS)
        while sum(each.harms.total() for each in everybody) < self._arguments.cuts:
            await asyncio.sleep(random.uniform(0.4, 1.4) * pause_s)
            reading = [each for each in everybody if each.is_reading]
            if reading:
                random.choice(reading).do_harm(next(harms))


async def watch(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was seen until standard input ended."""
    watching = Watching(arguments)
    errors = await watching.run()
    everybody = watching.feeds + watching.followers
    return {
        "harms": sum((each.harms for each in everybody), Counter()),
        "events": [each.events for each in watching.feeds],
        "followed": sum(each.events for each in watching.followers),
        "followers": len(watching.followers),
        "runs": sum(each.runs for each in watching.followers),
        "gaps": sum(each.gaps for each in everybody),
        "doubles": sum(each.doubles for each in everybody),
        "pause_s": max(each.pause_s for each in everybody),
        "errors": [repr(each) for each in errors][:5],
    }


def main() -> None:
    """Watch as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs=2, help="of two replicas")
    parser.add_argument("--feeds", type=int, default=20, help="subscribers of the namespace")
    parser.add_argument("--followers", type=int, default=4, help="subscribers of single runs")
    parser.add_argument("--cuts", type=int, default=200, help="streams to end by force")
    parser.add_argument("--seconds", type=float, default=60.0, help="over so long a time")
    print(json.dumps(asyncio.run(watch(parser.parse_args()))))


if __name__ == "__main__":
    main()

"""The readers of `bench streams`: raw frames, so that the server is measured and not the reader.

Prints `ready` when all streams are open; ends when its standard input does, and prints what it saw
as one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from runkon.v1 import runs_pb2, runs_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

PER_CONNECTION: Final = 30
OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
]


class Watchers:
    """Streams over as many connections as their limit asks for."""

    def __init__(self, address: str, count: int) -> None:
        self.channels = [
            grpc.aio.insecure_channel(address, options=OPTIONS)
            for _ in range(-(-count // PER_CONNECTION))
        ]
        self.ready = asyncio.Semaphore(0)
        self.latencies_s: list[float] = []
        self.events: list[int] = [0] * count
        self.broken: list[str] = []

    def stub(self, number: int) -> runs_pb2_grpc.RunServiceAsyncStub:
        """The service on the connection of a watcher."""
        return runs_pb2_grpc.RunServiceStub(self.channels[number // PER_CONNECTION])

    async def idle(self, number: int, run_id: str) -> None:
        """Follow a run where nothing happens."""
        call = self.stub(number).StreamRunEvents(
            runs_pb2.StreamRunEventsRequest(run_id=run_id, from_now=True)
        )
        async for frame in call:
            if frame.HasField("header"):
                self.ready.release()

    async def feed(self, number: int) -> None:
        """Follow the namespace, and note by run whether its sequences are 1 to n."""
        cursor = ""
        last: dict[str, int] = {}
        while True:
            where: dict[str, Any] = {"cursor": cursor} if cursor else {"from_now": True}
            call = self.stub(number).StreamNamespaceEvents(
                runs_pb2.StreamNamespaceEventsRequest(**where)
            )
            try:
                async for frame in call:
                    if frame.HasField("header"):
                        if not cursor:
                            self.ready.release()
                        cursor = frame.header.cursor
                    elif frame.HasField("events"):
                        cursor = frame.events.cursor
                        self._note(number, frame.events.events, last)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
            finally:
                call.cancel()

    def _note(
        self, number: int, events: Sequence[runs_pb2.NamespaceEvent], last: dict[str, int]
    ) -> None:
        now_s = time.time()
        self.events[number] += len(events)
        for each in events:
            event = each.event
            if event.seq != last.get(event.run_id, 0) + 1:
                self.broken.append(f"{event.run_id}: {event.seq} after {last.get(event.run_id, 0)}")
            last[event.run_id] = event.seq
        if number == 0:
            at = events[0].event.time
            self.latencies_s.append(now_s - at.seconds - at.nanos / 1e9)


async def watch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the watchers until standard input ends."""
    watchers = Watchers(arguments.address, arguments.count)
    run_ids = arguments.runs.split(",") if arguments.runs else []
    tasks = []
    for number in range(arguments.count):
        match arguments.kind:
            case "idle":
                work = watchers.idle(number, run_ids[number % len(run_ids)])
            case _:
                work = watchers.feed(number)
        tasks.append(asyncio.create_task(work))
    for _ in tasks:
        await watchers.ready.acquire()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    watchers.broken += [repr(each) for each in ended if isinstance(each, Exception)]
    return {
        "latencies_s": watchers.latencies_s,
        "events": watchers.events,
        "broken": watchers.broken[:5],
    }


def main() -> None:
    """Watch as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--kind", choices=["idle", "feed"], default="feed")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--runs", default="", help="ids of the runs to follow")
    print(json.dumps(asyncio.run(watch(parser.parse_args()))))


if __name__ == "__main__":
    main()

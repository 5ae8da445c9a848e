"""The callers of `bench streams`: each starts a run, follows it to its end, and begins again.

What comes is stamped and put aside, and decoded when all is over: the server is measured, not the
reader. Prints one line, a JSON list of `[run_id, seq, opened_s, decided_s, received_s]` for every
event; an event that is older than its stream was not waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING

import grpc

from benchmarks._watchers import OPTIONS, PER_CONNECTION
from runkon.v1 import runs_pb2, runs_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

STREAM = "/runkon.v1.RunService/StreamRunEvents"


async def follow(address: str, count: int, seconds: float) -> list[list[tuple[float, bytes]]]:
    """Of each stream the frames as they came, each with its time in seconds since 1970."""
    streams: list[list[tuple[float, bytes]]] = []
    until_s = time.monotonic() + seconds

    async def one(channel: grpc.aio.Channel) -> None:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        stream: Callable[..., AsyncIterable[bytes]] = channel.unary_stream(
            STREAM, request_serializer=runs_pb2.StreamRunEventsRequest.SerializeToString
        )
        while time.monotonic() < until_s:
            started = await stub.StartRun(runs_pb2.StartRunRequest(workflow="steps"))
            frames: list[tuple[float, bytes]] = []
            streams.append(frames)
            async for frame in stream(runs_pb2.StreamRunEventsRequest(run_id=started.run.id)):
                frames.append((time.time(), frame))  # noqa: PERF401 - stamped one by one

    channels = [
        grpc.aio.insecure_channel(address, options=OPTIONS)
        for _ in range(-(-count // PER_CONNECTION))
    ]
    await asyncio.gather(*(one(channels[number % len(channels)]) for number in range(count)))
    for channel in channels:
        await channel.close()
    return streams


def events_of(frames: list[tuple[float, bytes]]) -> list[tuple[str, int, float, float, float]]:
    """What the frames of one stream hold; the first one is its header."""
    opened_s, _ = frames[0]
    return [
        (event.run_id, event.seq, opened_s, event.time.seconds + event.time.nanos / 1e9, received_s)
        for received_s, frame in frames
        for event in runs_pb2.StreamRunEventsResponse.FromString(frame).events.events
    ]


def main() -> None:
    """Follow as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=64, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    streams = asyncio.run(follow(arguments.address, arguments.count, arguments.seconds))
    print(json.dumps([event for frames in streams for event in events_of(frames)]))


if __name__ == "__main__":
    main()

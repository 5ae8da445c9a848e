"""The callers of `bench streams`: each starts a run, follows it to its end, and begins again.

So as many runs are in flight as there are callers. What comes is stamped and put aside, and decoded
when all is over: the server is measured, not the reader. Prints one line, a JSON list of `[run_id,
seq, opened_s, decided_s, received_s]` for every event; an event that is older than its stream was
not waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import TYPE_CHECKING

import grpc

from benchmarks._watchers import OPTIONS, PER_CONNECTION
from runkon.v1 import runs_pb2, runs_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

STREAM = "/runkon.v1.RunService/StreamRunEvents"


async def follow(arguments: argparse.Namespace) -> list[list[tuple[float, bytes]]]:
    """Of each stream the frames as they came, each with its time in seconds since 1970."""
    streams: list[list[tuple[float, bytes]]] = []
    until_s = time.monotonic() + arguments.seconds
    start = runs_pb2.StartRunRequest(workflow="steps")
    if arguments.step_s:
        start = runs_pb2.StartRunRequest(workflow="slow_steps")
        start.inputs["seconds"] = str(arguments.step_s)

    async def one(starting: grpc.aio.Channel, following: grpc.aio.Channel) -> None:
        stub = runs_pb2_grpc.RunServiceStub(starting)
        stream: Callable[..., AsyncIterable[bytes]] = following.unary_stream(
            STREAM, request_serializer=runs_pb2.StreamRunEventsRequest.SerializeToString
        )
        while time.monotonic() < until_s:
            started = await stub.StartRun(start)
            frames: list[tuple[float, bytes]] = []
            streams.append(frames)
            async for frame in stream(runs_pb2.StreamRunEventsRequest(run_id=started.run.id)):
                frames.append((time.time(), frame))  # noqa: PERF401 - stamped one by one

    starting = _channels(arguments.address, arguments.count)
    following = _channels(arguments.follow_at, arguments.count) if arguments.follow_at else starting
    await asyncio.gather(
        *(
            one(starting[number % len(starting)], following[number % len(following)])
            for number in range(arguments.count)
        )
    )
    for channel in {*starting, *following}:
        await channel.close()
    return streams


def _channels(address: str, count: int) -> list[grpc.aio.Channel]:
    return [
        grpc.aio.insecure_channel(address, options=OPTIONS)
        for _ in range(-(-count // PER_CONNECTION))
    ]


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
    parser.add_argument("--step-s", type=float, help="how long a step takes; default: no time")
    parser.add_argument("--follow-at", help="address of another replica, which streams")
    arguments = parser.parse_args()
    # A reader that stops to look for garbage would be measured as well.
    gc.freeze()
    gc.disable()
    streams = asyncio.run(follow(arguments))
    print(json.dumps([event for frames in streams for event in events_of(frames)]))


if __name__ == "__main__":
    main()

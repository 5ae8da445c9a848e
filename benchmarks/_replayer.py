"""The reader of `bench streams --part replay`: takes the frames of one run after the other.

It decodes the last one of each only, which says how many events there were. Prints the number of
events and the seconds as a JSON list.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from typing import TYPE_CHECKING

import grpc

from benchmarks._followers import STREAM
from benchmarks._watchers import OPTIONS
from runkon.v1 import runs_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def replay(address: str, run_ids: list[str]) -> tuple[int, float]:
    """How many events there were, and how long they took, in s."""
    events = 0
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        grpc.channel_ready_future(channel).result()
        stream: Callable[..., Iterable[bytes]] = channel.unary_stream(
            STREAM, request_serializer=runs_pb2.StreamRunEventsRequest.SerializeToString
        )
        began_s = time.monotonic()
        for run_id in run_ids:
            frames = collections.deque(stream(runs_pb2.StreamRunEventsRequest(run_id=run_id)), 1)
            events += runs_pb2.StreamRunEventsResponse.FromString(frames[0]).end.head_seq
        return events, time.monotonic() - began_s


if __name__ == "__main__":
    print(json.dumps(replay(sys.argv[1], sys.argv[2:])))

"""The floor of `bench streams --part 2`: gRPC's own server with our options and nothing behind it.

Each stream is sent a header and kept open. Prints its address; ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, TypeAlias

import grpc

from runkon.v1 import runs_pb2, runs_pb2_grpc
from runkon_server.api.server import OPTIONS

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class _Runs(runs_pb2_grpc.RunServiceServicer):
    """The one method that is called."""

    async def StreamRunEvents(  # type: ignore[override]  # noqa: N802 - it writes; gRPC's name
        self, request: runs_pb2.StreamRunEventsRequest, context: Context
    ) -> None:
        """A header, then silence."""
        header = runs_pb2.StreamHeader(head_seq=1, after_seq=1, replica=request.run_id)
        await context.write(runs_pb2.StreamRunEventsResponse(header=header))
        await asyncio.get_running_loop().create_future()


async def serve() -> None:
    """Serve until standard input ends."""
    server = grpc.aio.server(options=OPTIONS)
    runs_pb2_grpc.add_RunServiceServicer_to_server(
        _Runs(),  # type: ignore[abstract] # the other methods are not called
        server,
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())

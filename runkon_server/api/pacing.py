"""How a stream writes: each frame is taken in time, and one comes at least every so often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from runkon_server.api.waking import BEAT_S
from runkon_server.errors import SlowConsumerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc
    from google.protobuf.message import Message

    from runkon_server.api.waking import Wake

__all__ = ["WRITE_S", "Pace"]

WRITE_S: Final = 30.0
"""How long a frame may wait to be taken before its reader is given up."""


class Pace:
    """The writing end of one stream.

    There is no queue: the next frame is built when the one before was taken, so a reader that does
    not read holds one frame and what fits into the connection's windows.

    Args:
        context: of the call.
        heartbeat_s: most time without a frame.
        write_s: how long a frame may wait to be taken.
        place: what a reader that is given up has to know to go on.
    """

    __slots__ = ("_context", "_due", "_heartbeat_s", "_loop", "_place", "_write_s")

    def __init__(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        *,
        heartbeat_s: float,
        write_s: float,
        place: Callable[[], Mapping[str, str]],
    ) -> None:
        self._context = context
        self._heartbeat_s = heartbeat_s
        self._write_s = write_s
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        """When the next heartbeat is due, on the loop's clock."""

    @property
    def is_due(self) -> bool:
        """Whether it is time for a heartbeat."""
        return self._loop.time() >= self._due - BEAT_S

    async def write(self, frame: Message | bytes) -> None:
        """Write a frame, encoded or not.

        Raises:
            SlowConsumerError: nobody took it in time.
        """
        try:
            async with asyncio.timeout(self._write_s):
                await self._context.write(frame)
        except TimeoutError:
            raise SlowConsumerError(**self._place()) from None
        self._due = self._loop.time() + self._heartbeat_s

    def rest(self, woken: Wake) -> asyncio.Future[None]:
        """Done when there may be something new, or a heartbeat is due."""
        return woken.wait(self._due)

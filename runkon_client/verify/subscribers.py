"""A subscriber: follows the events of a run to its end and writes down each one as it came."""

from __future__ import annotations

import asyncio
import random
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_client.errors import RunkonClientError
from runkon_client.verify.histories import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.handles import RunHandle
    from runkon_client.values import RunEvent
    from runkon_client.verify.histories import History

HEARTBEAT: Final = timedelta(seconds=1)


class Subscriber:
    """Follows one run, over as many streams as it takes."""

    def __init__(self, history: History, name: str) -> None:
        self._history = history
        self._name = name

    async def follow(self, run: RunHandle, react: Callable[[RunEvent], None] | None) -> None:
        """Follow the run to its end; `react` is told each event after it was written down."""
        args = {"run_id": run.id, "subscriber": self._name}
        after_seq = 0
        disconnects = 0
        while True:
            stream = run.events(after_seq, heartbeat=HEARTBEAT)
            try:
                async with stream:
                    async for event in stream:
                        after_seq = event.seq
                        self._history.see("Event", args, _head(event))
                        if react is not None:
                            react(event)
            except RunkonClientError as error:
                self._history.see("StreamFailed", args, {"code": error.code, "why": str(error)})
                if kind_of(error) == "fail":
                    return
            else:
                disconnects += stream.disconnects
                self._history.see("StreamEnded", args, {"disconnects": disconnects})
                return
            disconnects += stream.disconnects + 1
            await asyncio.sleep(0.1 + 0.2 * random.random())  # noqa: S311 - spreads reconnects


def _head(event: RunEvent) -> dict[str, object]:
    """What is kept of an event, and a checksum of all of it."""
    return {
        "seq": event.seq,
        "kind": event.kind,
        "epoch": event.epoch,
        "generation": event.generation,
        "crc": f"{zlib.crc32(repr(event).encode()):08x}",
    }

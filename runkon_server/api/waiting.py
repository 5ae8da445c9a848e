"""Waiting for the end of runs, for callers that cannot hold a stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from runkon_server.errors import DrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runkon_server.api.lookups import Lookups
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import EventRecord
    from runkon_server.store.rows import RunRow

__all__ = ["EndOfRuns", "EventTeller"]

LOOK_S: Final = 1.0
"""What the engine tells is a short cut; the guarantee is a look this often."""
EVERY_RUN: Final = "*"
ENDING: Final = "run_finished"


class EventTeller(Protocol):
    """The part of the engine that tells of events."""

    def on_events(
        self, listener: Callable[[str, Sequence[EventRecord] | None], None]
    ) -> Callable[[], None]:
        """Call `listener` with new events of a run; None instead of events: read the table."""

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica starts to drain."""


class EndOfRuns:
    """Those who wait on this replica, by the run they wait for.

    Args:
        engine: tells what is committed.
        lookups: where runs are looked up.
        ambient: the clock.
    """

    def __init__(self, engine: EventTeller, lookups: Lookups, ambient: Ambient) -> None:
        self._lookups = lookups
        self._ambient = ambient
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._is_draining = False
        engine.on_events(self._on_events)
        engine.on_drain(self._on_drain)

    async def wait(self, namespace: str, run_id: str, *, timeout_s: float) -> RunRow:
        """The run when it has ended, or as it is when the time is over.

        Raises:
            RunNotFoundError: the namespace has no such run.
            DrainingError: the replica goes away.
        """
        until_s = self._ambient.boottime_s() + timeout_s
        with self._wakeup(run_id) as woken:
            while True:
                woken.clear()
                run = await self._lookups.run(namespace, run_id)
                left_s = until_s - self._ambient.boottime_s()
                if run.ended_at is not None or left_s <= 0:
                    return run
                if self._is_draining:
                    raise DrainingError
                # Not `wait_for`: on Python 3.11 it loses a cancel that comes with the wake-up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_S, left_s)):
                        await woken.wait()

    @contextlib.contextmanager
    def _wakeup(self, run_id: str) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(woken)
        try:
            yield woken
        finally:
            others = self._waiting[run_id]
            others.discard(woken)
            if not others:
                del self._waiting[run_id]

    def _on_events(self, run_id: str, events: Sequence[EventRecord] | None) -> None:
        if run_id == EVERY_RUN:
            self._wake_all()
        elif events is None or any(event.kind == ENDING for event in events):
            for woken in self._waiting.get(run_id, ()):
                woken.set()

    def _on_drain(self) -> None:
        self._is_draining = True
        self._wake_all()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()

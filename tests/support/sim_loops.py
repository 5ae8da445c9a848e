"""An event loop without a clock or sockets of its own: it turns when it is told to."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import base_events, events
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        return []


class TurnedLoop(base_events.BaseEventLoop):
    """Runs what is ready, once around, per `turn`; time is what `clock` says.

    The order in which things run depends on nothing but what was asked of the loop, so neither does
    anything that happens in it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock_of_world = clock
        self._selector = _NoSelector()
        self._clock_resolution = 1e-9
        self.failures: list[dict[str, Any]] = []
        """What the loop was told of and nobody handled."""
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        """Seconds by the clock of the replica."""
        return self._clock_of_world()

    def _process_events(self, event_list: list[Any]) -> None:
        return

    def _write_to_self(self) -> None:
        return

    def turn(self, times: int = 1) -> None:
        """Run what is ready now, so many times around."""
        events._set_running_loop(self)
        try:
            for _ in range(times):
                self._run_once()  # type: ignore[attr-defined]  # a part of BaseEventLoop
                if not self.is_busy:
                    return
        finally:
            events._set_running_loop(None)

    @property
    def is_busy(self) -> bool:
        """Whether something is ready to run, or due."""
        if self._ready:  # type: ignore[attr-defined]
            return True
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return bool(scheduled) and scheduled[0].when() <= self.time() + self._clock_resolution

    def abandon(self) -> None:
        """Run nothing any more: what kill -9 does. What is suspended stays where it is."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            work = task.get_coro()
            if (
                inspect.iscoroutine(work)
                and inspect.getcoroutinestate(work) == inspect.CORO_CREATED
            ):
                work.close()  # it never began, and Python would complain

    def __del__(self) -> None:
        """There is nothing to close."""

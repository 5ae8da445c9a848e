"""Timers of runs in memory that went off: fired in portions, in the order in which they did."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

DUE_AT_ONCE = 64
"""So many timers fire in one turn of the event loop, others have their turn in between."""


class Alarms:
    """Thousands of timers may be due at one instant; the loop must not stall over them.

    Args:
        fire: takes the run, the timer and its kind; what it raises costs no other its turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fire: Callable[[str, str, str], None]
    ) -> None:
        self._loop = loop
        self._fire = fire
        self._due: deque[tuple[str, str, str]] = deque()

    def went_off(self, run_id: str, timer_id: str, kind: str) -> None:
        """A timer is due by this process's clock."""
        self._due.append((run_id, timer_id, kind))
        if len(self._due) == 1:
            self._loop.call_soon(self._fire_due)

    def _fire_due(self) -> None:
        try:
            for _ in range(min(DUE_AT_ONCE, len(self._due))):
                self._fire(*self._due.popleft())
        finally:
            if self._due:
                self._loop.call_soon(self._fire_due)

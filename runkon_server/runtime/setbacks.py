"""Pauses before something that could not be read is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runkon_server.runtime.ambient import Ambient

FIRST_S: Final = 5.0
"""Pause after the first time; it doubles, …"""
LONGEST_S: Final = 300.0
"""… up to this."""
REMEMBERED_MAX: Final = 10_000


class Setbacks:
    """How often each run could not be read, of the last `REMEMBERED_MAX` such runs."""

    def __init__(self, ambient: Ambient) -> None:
        self._ambient = ambient
        self._times: dict[str, int] = {}

    def pause_s(self, run_id: str) -> float:
        """Count one more; gives how long to wait, up to half as long again or shorter."""
        times = self._times.pop(run_id, 0)
        self._times[run_id] = times + 1
        if len(self._times) > REMEMBERED_MAX:
            del self._times[next(iter(self._times))]
        # A power that has no bound is too large for a float one day.
        pause_s = min(LONGEST_S, FIRST_S * 2.0 ** min(times, 32))
        return pause_s * (0.5 + self._ambient.jitter())

    def forget(self, run_id: str) -> None:
        """It could be read."""
        self._times.pop(run_id, None)

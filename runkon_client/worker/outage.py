"""What a worker says of a server that is away: the first failure, then a line now and then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_log: Final = logging.getLogger("runkon_client.worker")

AGAIN_S: Final = 60.0
"""From the first line to the second; each pause after that is twice the one before, …"""
AGAIN_S_MAX: Final = 1800.0
"""… up to this."""


class Outage:
    """Keeps the log short while the server cannot be reached.

    Args:
        target: the server, for the log.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, target: str, now: Callable[[], float]) -> None:
        self._target = target
        self._now = now
        self._since: float | None = None
        self._next_at = 0.0
        self._again_s = AGAIN_S

    def failed(self, why: object) -> None:
        """A stream has ended, or could not be opened."""
        now = self._now()
        if self._since is None:
            self._since, self._again_s, self._next_at = now, AGAIN_S, now + AGAIN_S
            _log.warning("no stream to %s, trying again: %s", self._target, why)
        elif now >= self._next_at:
            self._again_s = min(AGAIN_S_MAX, self._again_s * 2)
            self._next_at = now + self._again_s
            _log.warning("no stream to %s for %.0f s: %s", self._target, now - self._since, why)
        else:
            _log.debug("no stream to %s: %s", self._target, why)

    def welcomed(self, replica: str) -> None:
        """A stream is there."""
        if self._since is None:
            _log.info("worker welcomed by replica %s", replica)
            return
        away_s, self._since = self._now() - self._since, None
        _log.info("worker welcomed by replica %s, after %.1f s without a stream", replica, away_s)

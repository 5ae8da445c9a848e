"""When a failed call is made again, and after how long: the schedule both stacks share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runkon_client.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.errors import RunkonClientError

_GROWTH_MAX: Final = 32  # doublings; far beyond any `delay_max_s`, and safe from overflow


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a call is repeated while the server is away.

    Every call is safe to repeat: reads change nothing, and mutations carry a request id.
    `window_s` counts from the first attempt; 0 means no second one.
    """

    window_s: float = 15.0
    delay_first_s: float = 0.1
    delay_max_s: float = 2.0


class Backoff:
    """Delays that double from `first_s` to `max_s`, each with up to half of it taken off."""

    __slots__ = ("_attempt", "_chance", "_first_s", "_max_s")

    def __init__(
        self,
        first_s: float = 0.1,
        max_s: float = 2.0,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._chance = chance
        self._attempt = 0

    def next_delay_s(self, error: RunkonClientError | None = None) -> float:
        """The next delay; never shorter than what the server asked for."""
        ceiling = min(self._max_s, self._first_s * 2.0 ** min(self._attempt, _GROWTH_MAX))
        self._attempt += 1
        delay_s = ceiling * (1 - self._chance() / 2)
        if error is not None and error.retry_after is not None:
            # The server names one moment to many callers: spread them over what follows it.
            return error.retry_after.total_seconds() + delay_s
        return delay_s

    def reset(self) -> None:
        """Begin anew, after something went well."""
        self._attempt = 0


class Attempts:
    """Decides after each failure of one call if it is made again."""

    __slots__ = ("_backoff", "_deadline")

    def __init__(self, policy: RetryPolicy, *, now: float) -> None:
        self._deadline = now + policy.window_s
        self._backoff = Backoff(policy.delay_first_s, policy.delay_max_s)

    def delay_after(self, error: RunkonClientError, *, now: float) -> float | None:
        """Seconds until the next attempt; None if this failure is the answer."""
        if not is_transient(error):
            return None
        delay_s = self._backoff.next_delay_s(error)
        return delay_s if now + delay_s < self._deadline else None


def is_transient(error: RunkonClientError) -> bool:
    """Whether the same call may well succeed in a moment."""
    if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return True
    if error.code is Code.ABORTED:
        return error.retry_after is not None
    # Cut off in flight by a proxy or a server that went away; a Runkon server gives a reason.
    return error.code is Code.CANCELLED and not error.reason

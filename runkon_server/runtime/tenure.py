"""Under which token this replica owns runs, and which owners on the same database are gone.

Each replica holds an advisory lock derived from its token on its listener's session. PostgreSQL
drops the lock the moment that session ends, so a replica whose process has died is seen at once and
its runs need not wait for their leases to run out. The other side of it: a replica that loses the
session while it lives has to lock again before others act on its absence, or give its runs up.

Fencing keeps both safe whatever is believed here; see ADR-0018.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


log = structlog.get_logger(__name__)

ABSENT_S: Final = 1.0
"""An owner counts as gone whose lock two looks, this far apart, have not found."""
RELOCK_S: Final = 1.0
"""Who has not locked again by then has to reckon that others act on it."""


class Tenure:
    """The token by which this replica owns runs. It changes when the lock was lost for too long.

    Args:
        mint: makes a new token, unique across processes and time.
        ended: called in the event loop when a token was given up: whatever it owns is no longer
            ours to decide on.
    """

    def __init__(self, mint: Callable[[], str], *, ended: Callable[[], None]) -> None:
        self._mint = mint
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._first_hold = asyncio.Event()
        self.token = mint()
        self.former: set[str] = set()
        """Tokens given up, under which runs may still be waiting to be handed over."""
        self.is_standing = False
        """Whether runs may be taken: the lock is held, or was lost only just now."""

    def held(self, token: str) -> bool:
        """The lock of this token is ours; False if that token was given up meanwhile."""
        if token != self.token:
            return False
        self._cancel()
        self.is_standing = True
        # Its end only: enough to tell owners apart in the logs, and not the token itself.
        log.info("lease.lock_held", owner=token[-8:].lower())
        self._first_hold.set()
        return True

    def lost(self) -> None:
        """The session with the lock is gone: it has to be locked again at once."""
        if self.is_standing and self._timer is None:
            self._timer = self._loop.call_later(RELOCK_S, self._end)

    async def wait_held(self) -> None:
        """Return once the lock has been held for the first time."""
        await self._first_hold.wait()

    def stop(self) -> None:
        """The replica stops: nothing happens on its own any more."""
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self.is_standing = False
        self.former.add(self.token)
        log.warning("lease.token_given_up", token=self.token)
        self.token = self._mint()
        self._ended()


class Absences:
    """Which owners' locks were missing, look after look, in one session of the listener.

    Args:
        settled_s: nobody counts as gone before this instant, on the clock that `look` is told.
    """

    def __init__(self, settled_s: float) -> None:
        self._settled_s = settled_s
        self._missing_since_s: dict[str, float] = {}

    def look(self, now_s: float, owners: Iterable[str], alive: Collection[str]) -> frozenset[str]:
        """Take in one look; the owners that are gone.

        Args:
            now_s: when the look began.
            owners: tokens that own runs, read before the locks were.
            alive: those among them whose lock is held.
        """
        missing = {
            owner: self._missing_since_s.get(owner, now_s) for owner in owners if owner not in alive
        }
        self._missing_since_s = missing
        if now_s < self._settled_s:
            return frozenset()
        return frozenset(owner for owner, since_s in missing.items() if now_s - since_s >= ABSENT_S)

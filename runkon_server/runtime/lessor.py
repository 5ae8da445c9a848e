"""Renewal of leases: a thread and a connection of its own, so nothing else can delay it.

The local guard is stricter than the database: past `TTL x 0.8` since the last renewal that worked
(measured from before it was sent), this replica starts no outside effects. Writes need no clock,
they are fenced.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from runkon_server.failpoints import failpoint
from runkon_server.store import claims
from runkon_server.store.database import connect_lessor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.settings import EngineConfig

log = structlog.get_logger(__name__)

GUARD_SHARE: Final = 0.8
RETRY_S: Final = 0.5
ANSWER_SHARE: Final = 0.1
"""How much of the TTL the event loop has to say which runs it holds."""


class Lessor:
    """Keeps this replica's leases alive.

    Args:
        held: the ids of the runs in memory; called in the event loop, or while it stands still.
        lost: told which of them the database no longer gives us; called in the event loop.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        owner_token: str,
        loop: asyncio.AbstractEventLoop,
        *,
        held: Callable[[], list[str]],
        lost: Callable[[set[str]], None],
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._owner_token = owner_token
        self._loop = loop
        self._held = held
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runkon-lessor", daemon=True)
        self._good_until_s = ambient.boottime_s() + config.lease_ttl_s * GUARD_SHARE
        self._answered_s = ambient.boottime_s()

    @property
    def is_good(self) -> bool:
        """Whether this replica may start outside effects."""
        return self._ambient.boottime_s() < self._good_until_s

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for a renewal under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        conn: psycopg.Connection[Any] | None = None
        while not self._stop.wait(self._config.lease_refresh_s if conn else RETRY_S):
            before_s = self._ambient.boottime_s()
            try:
                conn = conn or connect_lessor(self._config.session_dsn, self._config.lease_ttl_s)
                held = self._ask_held()
                if held is None:
                    continue
                failpoint("leases.renew")
                kept = claims.renew(
                    conn,
                    token=self._owner_token,
                    ttl_s=self._config.lease_ttl_s,
                    run_ids=held,
                )
                failpoint("leases.renewed")
            except psycopg.Error as error:
                log.warning("lease.renewal_failed", error=str(error).strip())
                if conn is not None:
                    conn.close()
                conn = None
                continue
            except RuntimeError:  # the loop was closed under us: the replica is stopping
                break
            self._good_until_s = before_s + self._config.lease_ttl_s * GUARD_SHARE
            if missing := set(held) - kept:
                self._loop.call_soon_threadsafe(self._lost, missing)
        if conn is not None:
            conn.close()

    def _ask_held(self) -> list[str] | None:
        """The held runs, read in the loop's thread; read from this one if the loop stalls.

        None when the loop has not answered for a whole TTL: its leases are meant to run out.
        """
        answer: list[str] = []
        ready = threading.Event()

        def read() -> None:
            answer.extend(self._held())
            ready.set()

        self._loop.call_soon_threadsafe(read)
        asked_s = self._ambient.boottime_s()
        if ready.wait(timeout=self._config.lease_ttl_s * ANSWER_SHARE):
            self._answered_s = asked_s
            return answer
        silent_s = asked_s - self._answered_s
        log.warning("lease.loop_stalled", silent_s=round(silent_s, 1))
        # A stalled loop changes nothing, and a copy of a dict's keys is one step anyway.
        return self._held() if silent_s < self._config.lease_ttl_s else None

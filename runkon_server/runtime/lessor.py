"""Renewal of leases: a thread and a connection of its own, so nothing else can delay it.

The local guard is stricter than the database: past `TTL x 0.8` since the last renewal that worked
(measured from before it was sent), this replica starts no outside effects. Writes need no clock,
they are fenced.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from runkon_server.failpoints import failpoint
from runkon_server.store import claims
from runkon_server.store.database import connect_lessor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.tenure import Tenure

log = structlog.get_logger(__name__)

GUARD_SHARE: Final = 0.8
RETRY_S: Final = 0.5
ANSWER_SHARE: Final = 0.1
"""How much of the TTL the event loop has to say which runs it holds."""
JOIN_S: Final = 2.0


class Guard:
    """Whether our leases are certain to hold, by our own clock alone.

    The clock runs on while the machine is suspended: one that stopped would find its leases good
    after a night in which others have taken the runs.
    """

    def __init__(self, ambient: Ambient, lease_ttl_s: float) -> None:
        self._ambient = ambient
        self._span_s = lease_ttl_s * GUARD_SHARE
        self._good_until_s = ambient.boottime_s() + self._span_s

    @property
    def is_good(self) -> bool:
        """Whether this replica may start outside effects."""
        return self._ambient.boottime_s() < self._good_until_s

    def renewed(self, sent_s: float) -> None:
        """All leases were renewed by a statement that was sent at or after this instant."""
        self._good_until_s = sent_s + self._span_s


class Lessor:
    """Keeps this replica's leases alive.

    Args:
        held: the runs in memory, each with its generation; called in the event loop, or while it
            stands still.
        lost: told which of them the database no longer gives us; called in the event loop.
        failed: told what has ended the renewals that nobody expects; called in the event loop.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        tenure: Tenure,
        *,
        held: Callable[[], dict[str, int]],
        lost: Callable[[Mapping[str, int]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._tenure = tenure
        self._loop = asyncio.get_running_loop()
        self._held = held
        self._lost = lost
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runkon-lessor", daemon=True)
        self._answered_s = ambient.boottime_s()
        self.guard = Guard(ambient, config.lease_ttl_s)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; a renewal under way is waited for, while the loop runs on."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, JOIN_S)

    def _run(self) -> None:
        conn: psycopg.Connection[Any] | None = None
        pause_s = RETRY_S
        while not self._stop.wait(pause_s):
            pause_s = RETRY_S
            try:
                conn = conn or connect_lessor(self._config.session_dsn, self._config.lease_ttl_s)
                if self._renew(conn):
                    pause_s = self._config.lease_refresh_s
            except psycopg.Error as error:
                log.warning("lease.renewal_failed", error=str(error).strip())
                if conn is not None:
                    conn.close()
                conn = None
            except Exception as error:  # noqa: BLE001 - told to the replica, which ends
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                    self._loop.call_soon_threadsafe(self._failed, error)
                break
        if conn is not None:
            conn.close()

    def _renew(self, conn: psycopg.Connection[Any]) -> bool:
        """Renew once; False if it has to be tried again soon."""
        asked = self._ask_held()
        if asked is None:
            return False
        token, held = asked
        failpoint("leases.renew")
        sent_s = self._ambient.boottime_s()
        renewal = claims.renew(
            conn, token=token, ttl_s=self._config.lease_ttl_s, run_ids=list(held)
        )
        failpoint("leases.renewed")
        missing = {run_id: held[run_id] for run_id in held.keys() - renewal.ours}
        self._loop.call_soon_threadsafe(self._renewed, sent_s, missing)
        if not renewal.is_complete:
            log.warning("lease.renewal_blocked")
        return renewal.is_complete

    def _renewed(self, sent_s: float, missing: dict[str, int]) -> None:
        """In the loop: what is lost is forgotten before anything may be started again."""
        if missing:
            self._lost(missing)
        self.guard.renewed(sent_s)

    def _ask_held(self) -> tuple[str, dict[str, int]] | None:
        """The held runs and their owner's token, read in the loop's thread; here if it stalls.

        None when the loop has not answered for a whole TTL: its leases are meant to run out.
        """
        answer: list[tuple[str, dict[str, int]]] = []
        ready = threading.Event()

        def read() -> None:
            answer.append((self._tenure.token, self._held()))
            ready.set()

        self._loop.call_soon_threadsafe(read)
        asked_s = self._ambient.boottime_s()
        if ready.wait(timeout=self._config.lease_ttl_s * ANSWER_SHARE):
            self._answered_s = asked_s
            return answer[0]
        silent_s = asked_s - self._answered_s
        log.warning("lease.loop_stalled", silent_s=round(silent_s, 1))
        if silent_s >= self._config.lease_ttl_s:
            return None
        return self._tenure.token, self._held()  # a stalled loop changes nothing

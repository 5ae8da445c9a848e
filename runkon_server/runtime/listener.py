"""Hints between replicas, and who else is there: one session connection per replica.

A notification is a hint and may be lost at any time; whoever waits for one also polls. The session
holds an advisory lock derived from the owner token: by these locks replicas count each other, and
see who is gone, see `tenure`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.hints import EVERYTHING
from runkon_server.runtime.tenure import Absences
from runkon_server.store import sessions
from runkon_server.store.database import connect_listener, is_read_only
from runkon_server.store.hints import CHANNEL
from runkon_server.store.timelines import enter_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.runtime.tenure import Tenure
    from runkon_server.store.timelines import History

log = structlog.get_logger(__name__)

PROBE_S: Final = 1.0
ANSWER_S: Final = 2 * PROBE_S
"""How long an answer may take; then the session counts as lost."""


class Listener:
    """Receives hints, sees peers come and go, and knows whether the database answers.

    Args:
        sender: whose hints not to hear, because they are this replica's.
        heard: called with each hint; what is in one says `hints.Lot.payloads`.
        entered: called with the history of every server that this replica gets a session on.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        sender: str,
        tenure: Tenure,
        stats: EngineStats,
        *,
        heard: Callable[[dict[str, Any]], None],
        entered: Callable[[History], None],
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._sender = sender
        self._tenure = tenure
        self._stats = stats
        self._heard = heard
        self._entered = entered
        self.is_read_only = False
        """Whether the database answers, but takes no writes."""
        self._last_answer_s = -1e9
        self.listening: Callable[[], None] = lambda: None
        """Called when a session begins to listen; the engine connects it before it starts."""
        self._locked_s = 0.0
        self._absences = Absences(0.0)
        self.gone: frozenset[str] = frozenset()
        """Owners of runs whose session has ended, as of the last look."""

    @property
    def is_up(self) -> bool:
        """Whether the database has answered within the last two probes, and takes writes."""
        return (
            not self.is_read_only
            and self._ambient.boottime_s() - self._last_answer_s < 2.2 * PROBE_S
        )

    async def run(self) -> None:
        """Listen for ever, reconnecting; at once the first time, for others count the seconds."""
        while True:
            before_s = self._locked_s
            try:
                await self._session()
            except (psycopg.Error, TimeoutError) as error:
                self.is_read_only = is_read_only(error)
                log.warning("listener.lost", error=str(error).strip() or "no answer in time")
            lasted_s = self._ambient.boottime_s() - self._locked_s
            if self._locked_s == before_s or lasted_s < PROBE_S:
                await self._ambient.sleep(0.1 + 0.4 * self._ambient.jitter())

    async def _session(self) -> None:
        async with await connect_listener(
            self._config.session_dsn, self._config.lease_ttl_s
        ) as conn:
            self._absences = Absences(self._ambient.boottime_s() + self._config.settle_s)
            try:
                await self._probe(conn)
                if self.is_read_only:  # a session that begins so may stay so
                    raise psycopg.errors.ReadOnlySqlTransaction("the database is read-only")
                await self._enter(conn)
                await self._lock(conn)
                await self._listen(conn)
            finally:
                self.gone = frozenset()
                self._tenure.lost()

    async def _lock(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Lock under the token that counts now; it may be given up while the database answers."""
        is_held = False
        async with asyncio.timeout(ANSWER_S):
            while not is_held:
                token = self._tenure.token
                await sessions.lock_session(conn, token)
                await failpoint_async("listener.locked")
                is_held = self._tenure.held(token)
        self._locked_s = self._ambient.boottime_s()

    async def _listen(self, conn: psycopg.AsyncConnection[Any]) -> None:
        await conn.execute(f"LISTEN {CHANNEL}")
        await self._probe(conn)
        self.listening()
        self._look_at_everything()  # hints sent while nobody listened are lost
        while True:
            async for note in conn.notifies(timeout=PROBE_S):
                self._last_answer_s = self._ambient.boottime_s()
                self._hear(note.payload)
            await self._probe(conn)

    async def _enter(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """See whether it is the server that it was; everybody does, the first one clears up."""
        history, cleared = await enter_history(conn)
        if cleared:
            log.warning("timeline.entered", timeline=history.timeline, runs_freed=cleared)
        self._entered(history)

    async def _probe(self, conn: psycopg.AsyncConnection[Any]) -> None:
        began_s = self._ambient.boottime_s()
        async with asyncio.timeout(ANSWER_S):
            census = await sessions.look_around(conn)
        self.is_read_only = census.is_read_only
        self._last_answer_s = self._ambient.boottime_s()
        token = self._tenure.token
        self._stats.peers = len(census.keys - {sessions.key_of(token)})
        gone = self._absences.look(began_s, census.owners - {token}, census.alive())
        news, self.gone = gone - self.gone, gone
        if news:
            log.warning("peer.gone", owners=sorted(news))
            self._heard({"r": 1, "l": 1})

    def _hear(self, payload: str) -> None:
        try:
            hint = json.loads(payload)
        except (ValueError, RecursionError):
            log.warning("listener.garbage", size=len(payload))
            return
        if isinstance(hint, dict) and hint.get("s") != self._sender:
            failpoint("listener.heard")
            if "h" in hint:
                self._stats.peers = max(1, self._stats.peers)
            try:
                self._heard(hint)
            except Exception:
                # Anybody may notify, and a later release may say it in other words.
                log.exception("listener.not_understood", size=len(payload))
                self._look_at_everything()

    def _look_at_everything(self) -> None:
        self._heard({"e": EVERYTHING, "f": EVERYTHING, "r": 1, "t": EVERYTHING})

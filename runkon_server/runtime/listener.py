"""Hints between replicas, and who else is there: one session connection per replica.

A notification is a hint and may be lost at any time; whoever waits for one also polls. The session
holds an advisory lock derived from the owner token: replicas count each other by these locks.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.store import claims
from runkon_server.store.database import connect_listener, is_read_only
from runkon_server.store.timelines import enter_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.timelines import History

log = structlog.get_logger(__name__)

PAYLOAD_BYTES_MAX: Final = 7_900
PROBE_S: Final = 1.0
EVERYTHING: Final = "*"

_PEERS = """
SELECT count(*), current_setting('transaction_read_only')::bool
FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database() AND l.classid = %s::bigint::oid
  AND l.objid <> %s::bigint::oid AND l.granted"""


class Listener:
    """Receives hints, counts peers, and is the probe that knows whether the database answers.

    Args:
        heard: called with each hint: `e` runs with new events, `f` runs with new facts, `r` ready
            runs exist, `t` queued tasks exist, `c` tasks to be cancelled with their reasons.
        entered: called with the history of every server that this replica gets a session on.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient,
        owner_token: str,
        stats: EngineStats,
        *,
        heard: Callable[[dict[str, Any]], None],
        entered: Callable[[History], None],
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._owner_token = owner_token
        self._lock_key = zlib.crc32(owner_token.encode())
        self._stats = stats
        self._heard = heard
        self._entered = entered
        self.is_read_only = False
        """Whether the database answers, but takes no writes."""
        self._last_answer_s = -1e9

    @property
    def is_up(self) -> bool:
        """Whether the database has answered within the last two probes, and takes writes."""
        return (
            not self.is_read_only
            and self._ambient.boottime_s() - self._last_answer_s < 2.2 * PROBE_S
        )

    def notice(self, batch: Batch) -> str | None:
        """What the other replicas should hear of a batch; None when there are none."""
        if self._stats.peers == 0:
            return None
        hint: dict[str, Any] = {"s": self._owner_token}
        if batch.events:
            hint["e"] = list(batch.events)
        if batch.facts_for_others:
            hint["f"] = list(batch.facts_for_others)
        if batch.ready_runs:
            hint["r"] = 1
        if batch.queued_tasks:
            hint["t"] = 1
        if batch.writes.task_cancels:
            hint["c"] = {c["id"]: c["reason"] for c in batch.writes.task_cancels}
        if len(hint) == 1:
            return None
        text = json.dumps(hint, separators=(",", ":"))
        if len(text) > PAYLOAD_BYTES_MAX:
            text = json.dumps({"s": self._owner_token, "e": EVERYTHING, "f": EVERYTHING, "t": 1})
        return text

    async def run(self) -> None:
        """Listen for ever, reconnecting."""
        while True:
            try:
                await self._session()
            except (psycopg.Error, TimeoutError) as error:
                self.is_read_only = is_read_only(error)
                log.warning("listener.lost", error=str(error).strip())
                await self._ambient.sleep(0.1 + 0.4 * self._ambient.jitter())

    async def _session(self) -> None:
        async with await connect_listener(
            self._config.session_dsn, self._config.lease_ttl_s
        ) as conn:
            await self._probe(conn)
            if self.is_read_only:  # a session that begins so may stay so
                raise psycopg.errors.ReadOnlySqlTransaction("the database is read-only")
            await self._enter(conn)
            await conn.execute(
                "SELECT pg_advisory_lock(%s::int, %s::bigint::bit(32)::int)",
                (claims.ADVISORY_CLASS, self._lock_key),
            )
            await failpoint_async("listener.locked")
            await conn.execute("LISTEN runkon")
            await self._probe(conn)
            # Hints sent while nobody listened are lost: look at everything once.
            self._heard({"e": EVERYTHING, "f": EVERYTHING, "r": 1, "t": 1})
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
        async with asyncio.timeout(2 * PROBE_S):
            cursor = await conn.execute(_PEERS, (claims.ADVISORY_CLASS, self._lock_key))
            row = await cursor.fetchone()
        assert row is not None
        self._stats.peers, self.is_read_only = row
        self._last_answer_s = self._ambient.boottime_s()

    def _hear(self, payload: str) -> None:
        try:
            hint = json.loads(payload)
        except ValueError:
            log.warning("listener.garbage", size=len(payload))
            return
        if isinstance(hint, dict) and hint.get("s") != self._owner_token:
            failpoint("listener.heard")
            self._heard(hint)

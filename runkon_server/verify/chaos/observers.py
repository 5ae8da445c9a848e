"""What the rig sees of the database while it runs: who owns what, and whether anything moves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from runkon_server.verify.evidence import Ownership

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S: Final = 0.1
_OWNERS: Final = """
SELECT id, generation, owner_token, extract(epoch FROM clock_timestamp())::float8
FROM workflow_runs WHERE owner_token IS NOT NULL"""
_PROGRESS: Final = """
SELECT count(*) FILTER (WHERE status NOT IN ('completed', 'failed', 'cancelled')),
       coalesce(sum(last_seq), 0)::bigint, count(*)
FROM workflow_runs"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the runs are."""

    live: int
    events: int
    runs: int


@dataclass(slots=True)
class _Orphan:
    """A run whose owner was killed or frozen, and has not changed hands yet."""

    run_id: str
    token: str
    since_s: float


@dataclass(slots=True)
class Observer:
    """Looks ten times a second, past all proxies, with reconnects.

    Args:
        url: of the database; asked for again after each loss.
    """

    url: Callable[[], str]
    ownership: list[Ownership] = field(default_factory=list)
    worst_takeover_s: float = 0.0
    takeovers: int = 0
    """Runs that were seen to leave a dead or frozen owner."""
    _known: dict[str, tuple[int, str]] = field(default_factory=dict)
    _orphans: dict[str, _Orphan] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._session()
            await asyncio.sleep(LOOK_S)

    def owned_by(self, token_suffix: str | None) -> int:
        """How many runs a replica owned when it was last looked."""
        if token_suffix is None:
            return 0
        return sum(token.lower().endswith(token_suffix) for _, token in self._known.values())

    def owner_is_gone(self, token_suffix: str | None) -> str | None:
        """A replica was killed or frozen just now: how long will its runs wait? Gives its token."""
        now = time.monotonic()
        found: str | None = None
        for run_id, (_, token) in self._known.items():
            if token_suffix is not None and token.lower().endswith(token_suffix):
                found = token
                self._orphans.setdefault(run_id, _Orphan(run_id, token, now))
        return found

    def owner_is_back(self, token_suffix: str | None) -> None:
        """It goes on before anybody took its runs: those it has still need nobody else."""
        for orphan in list(self._orphans.values()):
            if token_suffix is not None and orphan.token.lower().endswith(token_suffix):
                del self._orphans[orphan.run_id]

    async def _session(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self.url(), autocommit=True, connect_timeout=3
        ) as conn:
            while True:
                rows = await (await conn.execute(_OWNERS)).fetchall()
                self._look(rows)
                await asyncio.sleep(LOOK_S)

    def _look(self, rows: list[tuple[Any, ...]]) -> None:
        owners = {run_id: (generation, token) for run_id, generation, token, _ in rows}
        for run_id, generation, token, at in rows:
            if self._known.get(run_id) != (generation, token):
                self.ownership.append(
                    Ownership(run_id=run_id, generation=generation, token=token, at=at)
                )
        self._known = owners
        now = time.monotonic()
        for orphan in list(self._orphans.values()):
            owner = owners.get(orphan.run_id)
            if owner is None or owner[1] != orphan.token:
                del self._orphans[orphan.run_id]
                if owner is not None:
                    self.takeovers += 1
                    self.worst_takeover_s = max(self.worst_takeover_s, now - orphan.since_s)


async def progress(url: str) -> Progress:
    """How far the runs are now.

    Raises:
        psycopg.Error: the database does not answer.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        row = await (await conn.execute(_PROGRESS)).fetchone()
    assert row is not None
    return Progress(*row)


async def clock_offset_s(url: str) -> float:
    """What to add to this machine's CLOCK_MONOTONIC to have seconds of the database's clock."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        row = await (
            await conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        ).fetchone()
    assert row is not None
    return float(row[0]) - time.monotonic()

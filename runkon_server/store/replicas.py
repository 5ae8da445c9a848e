"""Which replicas there are, as each tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_server.store.database import fetch
from runkon_server.store.rows import Page
from runkon_server.store.sessions import ADVISORY_CLASS, HELD_KEYS, key_of

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

GONE_KEPT: Final = timedelta(days=1)
"""How long a replica that died stays on the list."""
RUNS_MAX: Final = 100_000
"""As many of a replica's runs are counted."""

# Rows of the dead are skipped while another replica removes them.
_ANNOUNCE: Final = """
WITH gone AS (
    DELETE FROM replicas r USING (
        SELECT token FROM replicas
        WHERE token <> %(token)s AND seen_at < clock_timestamp() - %(kept)s::interval
        FOR UPDATE SKIP LOCKED) o
    WHERE r.token = o.token
)
INSERT INTO replicas (token, owner_token, replica, version, is_draining, started_at)
VALUES (%(token)s, %(owner_token)s, %(replica)s, %(version)s, %(is_draining)s,
    clock_timestamp() - make_interval(secs => %(started_s)s))
ON CONFLICT (token) DO UPDATE SET owner_token = excluded.owner_token,
    is_draining = excluded.is_draining, seen_at = clock_timestamp()"""

_WITHDRAW: Final = "DELETE FROM replicas WHERE token = %(token)s"

# Tokens are ULIDs, so their order is that of the starts.
_LIST: Final = f"""
SELECT p.token, p.replica, p.version, p.started_at, p.seen_at, p.is_draining,
    (SELECT count(*) FROM (SELECT 1 FROM workflow_runs r WHERE r.owner_token = p.owner_token
                           LIMIT {RUNS_MAX}) owned),
    (SELECT count(*) FROM workers w
     WHERE w.replica_token = p.token AND w.expires_at >= clock_timestamp()),
    p.owner_token
FROM replicas p WHERE p.token < %(below)s ORDER BY p.token DESC LIMIT %(limit)s"""

_ABOVE_ALL: Final = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRow:
    """A replica as it told of itself, with what belongs to it now."""

    token: str
    replica: str
    version: str
    started_at: datetime
    seen_at: datetime
    is_draining: bool
    runs: int
    """At most `RUNS_MAX`."""
    workers: int
    is_live: bool
    """Whether it holds the lock by which the others see it."""


async def announce(
    conn: AsyncConnection,
    *,
    token: str,
    owner_token: str,
    replica: str,
    version: str,
    is_draining: bool,
    started_s: float,
) -> None:
    """Write that a replica is there; forget those that have been silent for a day.

    Args:
        conn: in autocommit mode.
        token: of this start of the replica.
        owner_token: under which it owns runs now.
        started_s: how many seconds ago it started.
    """
    parameters = {
        "token": token,
        "owner_token": owner_token,
        "replica": replica,
        "version": version,
        "is_draining": is_draining,
        "started_s": started_s,
        "kept": GONE_KEPT,
    }
    await conn.exec_driver_sql(_ANNOUNCE, parameters)


async def withdraw(conn: AsyncConnection, *, token: str) -> None:
    """Remove the row of a replica that stops."""
    await conn.exec_driver_sql(_WITHDRAW, {"token": token})


async def list_replicas(
    conn: AsyncConnection, *, limit: int, below: str | None = None
) -> Page[ReplicaRow]:
    """The replicas of the database, the newest first.

    Args:
        below: token of the last one of the page before.
    """
    wanted = {"below": below or _ABOVE_ALL, "limit": limit + 1}
    rows = await fetch(conn, _LIST, wanted)
    alive = {key for (key,) in await fetch(conn, HELD_KEYS, {"class": ADVISORY_CLASS})}
    names = tuple(ReplicaRow.__dataclass_fields__)[:-1]
    found = [
        ReplicaRow(**dict(zip(names, values, strict=True)), is_live=key_of(owner_token) in alive)
        for *values, owner_token in rows[:limit]
    ]
    return Page(found, len(rows) > limit)

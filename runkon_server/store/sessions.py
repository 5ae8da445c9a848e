"""The advisory locks by which replicas see each other, each held by its listener's session.

A lock is shared, so that a replica which lost its session can lock again at once although the
backend of the old session is not gone yet. Nobody ever takes the lock of another.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

ADVISORY_CLASS: Final = 0x52554E4B
"""Class of the session locks by which replicas see each other ("RUNK")."""

SERVERS_OWN: Final = "server:"
"""How the names of workers inside the server begin; the replica's token follows."""

_LOCK = """
SELECT pg_advisory_unlock_all(),
       pg_advisory_lock_shared(%s::int, %s::bigint::bit(32)::int)"""

# A loose scan of the index: one probe per owner, however many runs each of them has.
_OWNERS = """
WITH RECURSIVE o AS (
    (SELECT owner_token AS token FROM workflow_runs WHERE owner_token IS NOT NULL
     ORDER BY owner_token LIMIT 1)
    UNION ALL
    SELECT (SELECT r.owner_token FROM workflow_runs r WHERE r.owner_token > o.token
            ORDER BY r.owner_token LIMIT 1)
    FROM o WHERE o.token IS NOT NULL)
SELECT token FROM o WHERE token IS NOT NULL"""

HELD_KEYS: Final = """
SELECT l.objid::bigint FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database() AND l.granted
  AND l.classid = %(class)s::bigint::oid"""

# The same in another index: who works on tasks itself. Its worker ids begin with `server:`.
_SERVING = """
WITH RECURSIVE w AS (
    (SELECT worker_id AS id FROM tasks
     WHERE state = 'leased' AND worker_id >= 'server:' AND worker_id < 'server;'
     ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.worker_id FROM tasks t
            WHERE t.state = 'leased' AND t.worker_id > w.id AND t.worker_id < 'server;'
            ORDER BY t.worker_id LIMIT 1)
    FROM w WHERE w.id IS NOT NULL)
SELECT substr(id, 8) FROM w WHERE id IS NOT NULL"""

_READ_ONLY = "SELECT current_setting('transaction_read_only')::bool"


@dataclass(frozen=True, slots=True)
class Census:
    """Who owns runs or works on tasks itself, and whose locks are held."""

    owners: frozenset[str]
    keys: frozenset[int]
    is_read_only: bool
    """Whether the database takes no writes."""

    def alive(self) -> frozenset[str]:
        """The owners whose locks are held."""
        return frozenset(owner for owner in self.owners if key_of(owner) in self.keys)


def key_of(token: str) -> int:
    """The key of a token's lock, 0…2³²-1. Two tokens may share one: then neither looks gone."""
    return zlib.crc32(token.encode())


def worker_of(token: str) -> str:
    """Worker id of what a replica executes itself. No other worker can have such a name."""
    return f"{SERVERS_OWN}{token}"


async def lock_session(conn: psycopg.AsyncConnection[Any], token: str) -> None:
    """Hold the token's lock, and no other, for as long as the session lives."""
    await conn.execute(_LOCK, (ADVISORY_CLASS, key_of(token)))


async def look_around(conn: psycopg.AsyncConnection[Any]) -> Census:
    """Read the owners, then the locks: who locked before it took a run is never missed."""
    owners = await (await conn.execute(_OWNERS)).fetchall()
    owners += await (await conn.execute(_SERVING)).fetchall()
    keys = await (await conn.execute(HELD_KEYS, {"class": ADVISORY_CLASS})).fetchall()
    is_read_only = await (await conn.execute(_READ_ONLY)).fetchone()
    assert is_read_only is not None
    return Census(
        frozenset(token for (token,) in owners), frozenset(key for (key,) in keys), *is_read_only
    )

"""Writing which workers are connected to a replica: one statement, whatever their number."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from runkon_server.store.database import fetch
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Name", "Seen", "WorkerPresence", "publish", "withdraw"]

Name: TypeAlias = tuple[str, str]
"""Namespace and id of a worker."""

# A row is in at most one of the three lists. Rows of others are skipped while they are locked:
# two replicas that both come back late would wait for each other.
_PUBLISH = """
WITH added AS (
    INSERT INTO workers (namespace, worker_id, replica_token, replica, client, queues, actions,
        item_providers, gate_types, scripts, concurrency, polls, connected_at, seen_at, expires_at)
    SELECT u.namespace, u.worker_id, %(token)s, %(replica)s, u.client, u.queues, u.actions,
        u.item_providers, u.gate_types, u.scripts, u.concurrency, u.polls,
        clock_timestamp() - make_interval(secs => u.connected_s),
        clock_timestamp() - make_interval(secs => u.seen_s),
        clock_timestamp() + make_interval(secs => u.expires_s)
    FROM json_to_recordset(%(added)s::json) AS u(namespace text, worker_id text, client text,
        queues text[], actions text[], item_providers text[], gate_types text[], scripts boolean,
        concurrency integer, polls boolean, connected_s float8, seen_s float8, expires_s float8)
    ON CONFLICT (namespace, worker_id, replica_token) DO UPDATE SET
        client = excluded.client, queues = excluded.queues, actions = excluded.actions,
        item_providers = excluded.item_providers, gate_types = excluded.gate_types,
        scripts = excluded.scripts, concurrency = excluded.concurrency, polls = excluded.polls,
        connected_at = excluded.connected_at, seen_at = excluded.seen_at,
        expires_at = excluded.expires_at
), gone AS (
    DELETE FROM workers w USING (
        SELECT namespace, worker_id, replica_token FROM workers
        WHERE replica_token <> %(token)s AND expires_at < clock_timestamp()
        FOR UPDATE SKIP LOCKED
    ) o
    WHERE w.namespace = o.namespace AND w.worker_id = o.worker_id
      AND w.replica_token = o.replica_token
), closed AS (
    DELETE FROM workers w
    USING json_to_recordset(%(closed)s::json) AS u(namespace text, worker_id text)
    WHERE w.namespace = u.namespace COLLATE "C" AND w.worker_id = u.worker_id COLLATE "C"
      AND w.replica_token = %(token)s
)
UPDATE workers w SET seen_at = clock_timestamp() - make_interval(secs => u.seen_s),
    expires_at = clock_timestamp() + make_interval(secs => u.expires_s)
FROM json_to_recordset(%(kept)s::json)
    AS u(namespace text, worker_id text, seen_s float8, expires_s float8)
WHERE w.namespace = u.namespace COLLATE "C" AND w.worker_id = u.worker_id COLLATE "C"
  AND w.replica_token = %(token)s
RETURNING w.namespace, w.worker_id"""

_WITHDRAW = "DELETE FROM workers WHERE replica_token = %(token)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sign of life; both are seconds from now, because only the database's clock is stored."""

    namespace: str
    worker_id: str
    seen_s: float
    """How long ago."""
    expires_s: float
    """How much longer the worker counts as connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPresence(Seen):
    """A worker that is new to the table, or has changed."""

    client: str
    queues: Sequence[str]
    actions: Sequence[str]
    item_providers: Sequence[str]
    gate_types: Sequence[str]
    scripts: bool
    concurrency: int
    polls: bool
    connected_s: float
    """How long ago it came."""


async def publish(
    conn: AsyncConnection,
    *,
    token: str,
    replica: str,
    added: Sequence[WorkerPresence],
    kept: Sequence[Seen],
    closed: Collection[Name],
) -> set[Name]:
    """Write who came, who is still there and who went; remove what silent replicas left.

    Args:
        token: of this replica's start.
        replica: its name.
        added, kept, closed: no worker is in two of them.

    Returns:
        Those of `kept` that the table has; others must be added again.
    """
    parameters = {
        "token": token,
        "replica": replica,
        "added": to_json([asdict(each) for each in added]),
        "kept": to_json([asdict(each) for each in kept]),
        "closed": to_json(
            [{"namespace": namespace, "worker_id": worker} for namespace, worker in closed]
        ),
    }
    return {(namespace, worker) for namespace, worker in await fetch(conn, _PUBLISH, parameters)}


async def withdraw(conn: AsyncConnection, *, token: str) -> None:
    """Remove every row of a replica that stops."""
    await conn.exec_driver_sql(_WITHDRAW, {"token": token})

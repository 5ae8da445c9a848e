"""Single statements outside the committer: taking runs, renewing leases, getting tasks back.

Each is one statement in autocommit. They lock runs or tasks, never both, in id order or with SKIP
LOCKED, so they cannot deadlock with a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from sqlalchemy.exc import OperationalError

from runkon_server.store.database import fetch, is_lock_timeout
from runkon_server.store.sessions import ADVISORY_CLASS, HELD_KEYS, key_of
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.decision import TaskKind

# Two index scans: runs that became ready without an owner, and runs whose owner fell silent or is
# gone. Who was seen to be gone is looked for once more, here and now: the one who found out may
# have been frozen since. The clock is not `now()`, which stands still.
_ACQUIRE = f"""
WITH gone AS MATERIALIZED (
    SELECT u.token FROM unnest(%(gone)s::text[], %(keys)s::bigint[]) AS u(token, key)
    WHERE NOT EXISTS ({HELD_KEYS} AND l.objid = u.key::oid)
), free AS (
    SELECT id, 'free' AS how FROM workflow_runs
    WHERE ready_at <= clock_timestamp() AND owner_token IS NULL
    ORDER BY ready_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
), held AS (
    SELECT id, CASE WHEN owner_token IN (SELECT token FROM gone) THEN 'orphaned' ELSE 'stolen'
               END AS how
    FROM workflow_runs
    WHERE owner_token IS NOT NULL
      AND (lease_until < clock_timestamp() OR owner_token IN (SELECT token FROM gone))
    LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
), taken AS (SELECT * FROM free UNION ALL SELECT * FROM held)
UPDATE workflow_runs r SET owner_token = %(token)s, generation = r.generation + 1,
    lease_until = clock_timestamp() + make_interval(secs => %(ttl)s),
    infra_attempts = r.infra_attempts + (taken.how = 'stolen')::int
FROM taken WHERE r.id = taken.id RETURNING r.id, taken.how"""

_NEXT_DUE = """
SELECT extract(epoch FROM min(ready_at) - clock_timestamp())::float8 FROM workflow_runs
WHERE ready_at IS NOT NULL AND owner_token IS NULL"""

# A plain UPDATE would lock in the order of the scan and could deadlock with a batch.
_RENEW = """
UPDATE workflow_runs r SET lease_until = clock_timestamp() + make_interval(secs => %s)
FROM (SELECT id FROM workflow_runs WHERE owner_token = %s AND id = ANY(%s)
      ORDER BY id FOR NO KEY UPDATE) c
WHERE r.id = c.id RETURNING r.id"""

# Rows that somebody else keeps locked are left out: they cannot be stolen meanwhile either.
_RENEW_UNLOCKED = _RENEW.replace("FOR NO KEY UPDATE", "FOR NO KEY UPDATE SKIP LOCKED")

_OURS = "SELECT id FROM workflow_runs WHERE owner_token = %s AND id = ANY(%s)"

_HAND_OVER = """
UPDATE workflow_runs r SET owner_token = NULL, lease_until = NULL, ready_at = clock_timestamp()
FROM (SELECT id FROM workflow_runs WHERE owner_token = %(token)s
      ORDER BY id FOR NO KEY UPDATE) c
WHERE r.id = c.id"""

_HAND_OVER_UNLOCKED = _HAND_OVER.replace("FOR NO KEY UPDATE", "FOR NO KEY UPDATE SKIP LOCKED")

_SET_ASIDE = """
UPDATE workflow_runs SET owner_token = NULL, lease_until = NULL,
    ready_at = clock_timestamp() + make_interval(secs => %(pause)s)
WHERE id = %(run)s AND owner_token = %(token)s"""

_BEHIND = """
SELECT id FROM workflow_runs WHERE owner_token = %(token)s AND applied_fact_seq < fact_seq"""

_EXTEND = """
UPDATE tasks t SET lease_until = clock_timestamp() + make_interval(secs => %(ttl)s)
FROM (SELECT k.run_id, k.id FROM json_to_recordset(%(rows)s::json)
          AS u(run_id text, id text, token text)
      JOIN tasks k ON k.run_id = u.run_id AND k.id = u.id AND k.token = u.token
      WHERE k.state = 'leased' ORDER BY k.run_id, k.id FOR NO KEY UPDATE OF k) c
WHERE t.run_id = c.run_id AND t.id = c.id
RETURNING t.id, t.token, t.namespace, t.cancel_reason,
    CASE WHEN t.id = ANY(%(told)s) THEN t.payload::json ->> 'step_name' END,
    CASE WHEN t.id = ANY(%(told)s) THEN (t.payload::json ->> 'iteration')::int END"""

# Nobody has seen such a lease, so it counts as no delivery. Older by a microsecond, as in _REQUEUE.
_GIVE_BACK = """
UPDATE tasks t SET state = 'queued', token = NULL, worker_id = NULL, lease_until = NULL,
    created_at = t.created_at - interval '1 microsecond'
FROM (SELECT k.run_id, k.id FROM json_to_recordset(%(rows)s::json)
          AS u(run_id text, id text, token text)
      JOIN tasks k ON k.run_id = u.run_id AND k.id = u.id AND k.token = u.token
      WHERE k.state = 'leased' ORDER BY k.run_id, k.id FOR NO KEY UPDATE OF k) c
WHERE t.run_id = c.run_id AND t.id = c.id"""

# A task that was told to stop is settled, never handed out again; so is one lost too often.
# Tasks of one batch have one `created_at`, and among equals the index has a changed row last: by a
# microsecond the lost one goes before those that nobody has had yet.
_REQUEUE = """
UPDATE tasks t SET state = 'queued', token = NULL, worker_id = NULL, lease_until = NULL,
    delivery = t.delivery + 1, created_at = t.created_at - interval '1 microsecond'
FROM (SELECT run_id, id FROM tasks
      WHERE state = 'leased' AND lease_until < clock_timestamp() AND cancel_requested_at IS NULL
        AND delivery + 1 < %(deliveries)s
      ORDER BY lease_until LIMIT 200 FOR NO KEY UPDATE SKIP LOCKED) c
WHERE t.run_id = c.run_id AND t.id = c.id
RETURNING t.namespace, t.queue, t.kind, t.action"""

# Both ends are conditions for the index, as a clock that goes on within a statement is not. Without
# them the entries of all tasks are read that were leased and reported meanwhile: 12 % of the steps
# per second (measured).
_NEXT_DEADLINE = """
SELECT extract(epoch FROM t.lease_until - statement_timestamp())::float8 FROM tasks t
WHERE t.state = 'leased' AND t.lease_until > statement_timestamp()
  AND t.lease_until <= statement_timestamp() + make_interval(secs => %(within)s)
ORDER BY t.lease_until LIMIT 1"""

_LOST = """
(SELECT id, namespace, kind, token, cancel_requested_at IS NOT NULL FROM tasks
 WHERE state = 'leased' AND lease_until < clock_timestamp()
   AND (cancel_requested_at IS NOT NULL OR delivery + 1 >= %(deliveries)s) LIMIT 200)
UNION ALL
(SELECT id, namespace, kind, NULL, true FROM tasks
 WHERE state = 'queued' AND cancel_requested_at IS NOT NULL LIMIT 200)"""


class Requeued(NamedTuple):
    """What a task asks for that is in the queue again."""

    namespace: str
    queue: str
    kind: TaskKind
    action: str


@dataclass(frozen=True, slots=True)
class LostTask:
    """A task that nobody will report any more."""

    id: str
    namespace: str
    kind: TaskKind
    token: str | None
    """None: it was told to stop before any worker had it."""
    was_cancelled: bool


class How(StrEnum):
    """How a run came to be taken."""

    FREE = "free"
    """It was ready and nobody's."""
    STOLEN = "stolen"
    """The lease of its owner ran out. Only these count against the cap on poisonous runs."""
    ORPHANED = "orphaned"
    """Its owner's session is gone."""


async def acquire(
    conn: AsyncConnection, *, token: str, ttl_s: float, limit: int, gone: Collection[str] = ()
) -> list[tuple[str, How]]:
    """Take up to twice `limit` runs: ready ones, and ones whose owner is silent or gone.

    Args:
        conn: in autocommit mode.
        token: of the new owner.
        ttl_s: how long the leases last.
        limit: per kind.
        gone: owners whose locks were missing for long enough.

    Source: M. Kleppmann, "How to do distributed locking" (the generation is the fencing token).
    """
    parameters = {
        "token": token,
        "ttl": ttl_s,
        "limit": limit,
        "gone": list(gone),
        "keys": [key_of(owner) for owner in gone],
        "class": ADVISORY_CLASS,
    }
    return [(run_id, How(how)) for run_id, how in await fetch(conn, _ACQUIRE, parameters)]


@dataclass(frozen=True, slots=True)
class Renewal:
    """What became of the leases that were to be extended."""

    ours: frozenset[str]
    """The runs that are still ours; the others are lost."""
    is_complete: bool
    """Whether all of them were extended; else somebody keeps rows locked: try again soon."""


async def next_due(conn: AsyncConnection) -> float:
    """Seconds until the next run without an owner is ready; infinity if none will be."""
    ((seconds,),) = await fetch(conn, _NEXT_DUE, {})
    return math.inf if seconds is None else float(seconds)


def renew(
    conn: psycopg.Connection[Any], *, token: str, ttl_s: float, run_ids: list[str]
) -> Renewal:
    """Extend the leases on these runs.

    One row that stays locked for longer than `lock_timeout` does not cost the others their leases.
    """
    parameters = (ttl_s, token, run_ids)
    try:
        rows = conn.execute(_RENEW, parameters).fetchall()
    except psycopg.errors.LockNotAvailable:
        conn.execute(_RENEW_UNLOCKED, parameters)
        rows = conn.execute(_OURS, parameters[1:]).fetchall()
        return Renewal(frozenset(run_id for (run_id,) in rows), is_complete=False)
    return Renewal(frozenset(run_id for (run_id,) in rows), is_complete=True)


async def hand_over(conn: AsyncConnection, *, token: str) -> int:
    """Give up every lease of this replica at once; the runs are ready for the others.

    One row that somebody keeps locked does not hold up the rest.
    """
    try:
        return (await conn.exec_driver_sql(_HAND_OVER, {"token": token})).rowcount
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
    return (await conn.exec_driver_sql(_HAND_OVER_UNLOCKED, {"token": token})).rowcount


async def set_aside(conn: AsyncConnection, *, run_id: str, token: str, pause_s: float) -> None:
    """Give up one run; nobody is to take it before so many seconds are over."""
    parameters = {"run": run_id, "token": token, "pause": pause_s}
    await conn.exec_driver_sql(_SET_ASIDE, parameters)


async def find_behind(conn: AsyncConnection, *, token: str) -> list[str]:
    """This replica's runs that have facts which are not applied yet."""
    return [row[0] for row in await fetch(conn, _BEHIND, {"token": token})]


@dataclass(frozen=True, slots=True)
class ExtendedTask:
    """A task whose worker has given a sign of life."""

    namespace: str
    cancel_reason: str | None
    """Why it should stop; None: it should not."""
    step_name: str
    """Empty unless it was asked for, as `iteration` is 0 then."""
    iteration: int


async def extend_tasks(
    conn: AsyncConnection,
    *,
    tasks: Collection[tuple[str, str, str]],
    told: Collection[str],
    ttl_s: float,
) -> dict[tuple[str, str], ExtendedTask]:
    """Extend the leases of tasks given as (run id, task id, token).

    Args:
        told: the tasks of which the names of their steps are wanted.

    Returns:
        By task id and token; those that no longer count are missing.
    """
    parameters = {"rows": _as_rows(tasks), "told": list(told), "ttl": ttl_s}
    return {
        (task_id, token): ExtendedTask(namespace, reason, name or "", iteration or 0)
        for task_id, token, namespace, reason, name, iteration in await fetch(
            conn, _EXTEND, parameters
        )
    }


async def give_back(conn: AsyncConnection, *, tasks: Collection[tuple[str, str, str]]) -> None:
    """Queue tasks again, given as (run id, task id, token), whose lease never left this replica."""
    await conn.exec_driver_sql(_GIVE_BACK, {"rows": _as_rows(tasks)})


def _as_rows(tasks: Collection[tuple[str, str, str]]) -> str:
    return to_json([{"run_id": r, "id": i, "token": t} for r, i, t in tasks])


async def next_deadline(conn: AsyncConnection, *, within_s: float) -> float:
    """Seconds until the next lease of a task runs out, if it is not extended; or infinity.

    Args:
        conn: in autocommit mode.
        within_s: what is due later is not looked for.
    """
    rows = await fetch(conn, _NEXT_DEADLINE, {"within": within_s})
    return float(rows[0][0]) if rows else math.inf


async def requeue_lost(conn: AsyncConnection, *, deliveries_max: int) -> list[Requeued]:
    """Put tasks whose worker fell silent back into the queue; gives each of them."""
    rows = await fetch(conn, _REQUEUE, {"deliveries": deliveries_max})
    return [Requeued(*row) for row in rows]


async def find_lost(conn: AsyncConnection, *, deliveries_max: int) -> list[LostTask]:
    """Tasks that are out too long and must be settled instead of handed out again."""
    rows = await fetch(conn, _LOST, {"deliveries": deliveries_max})
    return [LostTask(*row) for row in rows]

"""Single statements outside the committer: taking runs, renewing leases, handing out tasks.

Each is one statement in autocommit. They lock runs or tasks, never both, in id order or with SKIP
LOCKED, so they cannot deadlock with a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from sqlalchemy.exc import OperationalError

from runkon_server.store.database import fetch, is_lock_timeout
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.sessions import ADVISORY_CLASS, HELD_KEYS, key_of
from runkon_server.store.timelines import TIMELINE, outer_fence
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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

_TAKE = """
UPDATE tasks t SET state = 'leased', token = gen_random_uuid()::text, worker_id = %(worker)s,
    lease_until = clock_timestamp() + make_interval(secs => %(ttl)s)
FROM ({queued}) c JOIN workflow_runs r ON r.id = c.run_id
WHERE t.run_id = c.run_id AND t.id = c.id
RETURNING t.run_id, t.id, t.namespace, t.step_id, t.kind, t.action, t.token, t.delivery,
    t.deadline_at, t.payload, r.generation, {timeline}"""

_QUEUED = """
    SELECT q.run_id, q.id FROM tasks q
    WHERE q.state = 'queued' AND q.kind = '{kind}' AND q.cancel_requested_at IS NULL
      AND {condition}
    ORDER BY q.priority DESC, q.created_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED"""


# The queues in which something waits, one probe of the index for each: a worker that serves all of
# them then finds its actions by the same keys as others, past whatever else waits there.
_WAITING_QUEUES = """ARRAY(
    WITH RECURSIVE found AS (
        (SELECT w.queue FROM tasks w WHERE w.state = 'queued' AND w.namespace = %(namespace)s
         ORDER BY w.queue LIMIT 1)
        UNION ALL
        SELECT (SELECT w.queue FROM tasks w
                WHERE w.state = 'queued' AND w.namespace = %(namespace)s AND w.queue > f.queue
                ORDER BY w.queue LIMIT 1)
        FROM found f WHERE f.queue IS NOT NULL)
    SELECT f.queue FROM found f WHERE f.queue IS NOT NULL)"""


def _claim_of(kind: str, condition: str) -> str:
    queued = _QUEUED.format(kind=kind, condition=condition)
    return _TAKE.format(queued=queued, timeline=TIMELINE)


def _claims_in(queues: str) -> dict[str, str]:
    """By the kind of task. A worker of some kind is given any script."""
    there = f"q.namespace = %(namespace)s AND q.queue = ANY({queues})"
    named = f"{there} AND q.action = ANY(%(names)s)"
    return {
        "action": _claim_of(
            "action",
            f"{there} AND q.action <> ALL(%(limited)s) AND (q.action = ANY(%(names)s)"
            " OR (%(fallback)s AND q.action <> ALL(%(named)s)"
            " AND (q.queue, q.action) NOT IN (SELECT u.queue, u.action"
            " FROM unnest(%(named_queues)s::text[], %(named_there)s::text[])"
            " AS u(queue, action))))",
        ),
        "limited": _claim_of(
            "action", f"{there} AND q.action = %(action)s AND q.queue <> ALL(%(left)s)"
        ),
        "script": _claim_of("script", there),
        "items": _claim_of("items", named),
        "gate": _claim_of("gate", named),
    }


_CLAIMS: Final = {
    **{(kind, False): sql for kind, sql in _claims_in("%(queues)s").items()},
    **{(kind, True): sql for kind, sql in _claims_in(_WAITING_QUEUES).items()},
}
"""By the kind of task, and whether the worker serves every queue."""
_CLAIM_ITEMS_EVERYWHERE: Final = _claim_of("items", "q.action = ANY(%(names)s)")

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

# The clock is volatile, so it is no condition for the index. That is read from the oldest deadline
# on; those that have passed are few.
_NEXT_DEADLINE = """
SELECT extract(epoch FROM t.lease_until - clock_timestamp())::float8 FROM tasks t
WHERE t.state = 'leased' AND t.lease_until > clock_timestamp() ORDER BY t.lease_until LIMIT 1"""

_LOST = """
(SELECT id, namespace, kind, token, cancel_requested_at IS NOT NULL FROM tasks
 WHERE state = 'leased' AND lease_until < clock_timestamp()
   AND (cancel_requested_at IS NOT NULL OR delivery + 1 >= %(deliveries)s) LIMIT 200)
UNION ALL
(SELECT id, namespace, kind, NULL, true FROM tasks
 WHERE state = 'queued' AND cancel_requested_at IS NOT NULL LIMIT 200)"""


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A task that a worker of this replica was given."""

    run_id: str
    id: str
    namespace: str
    step_id: str
    kind: TaskKind
    action: str
    token: str
    delivery: int
    deadline_at: Any
    payload: str
    generation: int
    timeline: int

    @property
    def fence(self) -> int:
        """What a callee outside can refuse late writers by."""
        return outer_fence(self.timeline, self.generation)


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
class Claimant:
    """Who tasks are claimed for."""

    namespace: str
    worker_id: str
    queues: Collection[str]
    """Those that it serves, as `queues.served_queues` gives them."""


async def claim_tasks(
    conn: AsyncConnection,
    kind: TaskKind,
    claimant: Claimant,
    *,
    names: Sequence[str],
    fallback: bool,
    named: Collection[tuple[str, str]],
    limit: int,
    ttl_s: float,
    limited: Sequence[str] = (),
) -> list[ClaimedTask]:
    """Lease queued tasks of one kind to a worker, highest priority and oldest first.

    Args:
        names: of actions, item providers or types of gates that it serves.
        fallback: also take actions that are not among `named`.
        named: queue and action, for those that some worker serves by name.
        limited: actions to leave alone, which are handed out under their limits.
    """
    there = [each for each in named if each[0] != EVERY_QUEUE]
    parameters = {
        "names": list(names),
        "fallback": fallback,
        "named": [action for queue, action in named if queue == EVERY_QUEUE],
        "named_queues": [queue for queue, _ in there],
        "named_there": [action for _, action in there],
        "limited": list(limited),
        "limit": limit,
        "ttl": ttl_s,
    }
    return await _claim(conn, kind, claimant, parameters)


async def claim_limited(
    conn: AsyncConnection,
    claimant: Claimant,
    action: str,
    *,
    left: Collection[str],
    limit: int,
    ttl_s: float,
) -> list[ClaimedTask]:
    """Lease queued tasks of one action to a worker, highest priority and oldest first.

    Args:
        left: queues to leave alone, because others serve the action there by name.
    """
    parameters = {"action": action, "left": list(left), "limit": limit, "ttl": ttl_s}
    return await _claim(conn, "limited", claimant, parameters)


async def _claim(
    conn: AsyncConnection, kind: str, claimant: Claimant, parameters: dict[str, Any]
) -> list[ClaimedTask]:
    serves_all = EVERY_QUEUE in claimant.queues
    parameters |= {
        "namespace": claimant.namespace,
        "worker": claimant.worker_id,
        "queues": sorted(claimant.queues),
    }
    rows = await fetch(conn, _CLAIMS[kind, serves_all], parameters)
    return [ClaimedTask(*row) for row in rows]


async def claim_items(
    conn: AsyncConnection, *, worker_id: str, names: Sequence[str], limit: int, ttl_s: float
) -> list[ClaimedTask]:
    """Lease queued tasks that find items to the server itself, in whatever namespace they are."""
    parameters = {"worker": worker_id, "names": list(names), "limit": limit, "ttl": ttl_s}
    return [ClaimedTask(*row) for row in await fetch(conn, _CLAIM_ITEMS_EVERYWHERE, parameters)]


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


async def next_deadline(conn: AsyncConnection) -> float:
    """Seconds until the next lease of a task runs out, if it is not extended; or infinity."""
    rows = await fetch(conn, _NEXT_DEADLINE, {})
    return float(rows[0][0]) if rows else math.inf


async def requeue_lost(conn: AsyncConnection, *, deliveries_max: int) -> list[Requeued]:
    """Put tasks whose worker fell silent back into the queue; gives each of them."""
    rows = await fetch(conn, _REQUEUE, {"deliveries": deliveries_max})
    return [Requeued(*row) for row in rows]


async def find_lost(conn: AsyncConnection, *, deliveries_max: int) -> list[LostTask]:
    """Tasks that are out too long and must be settled instead of handed out again."""
    rows = await fetch(conn, _LOST, {"deliveries": deliveries_max})
    return [LostTask(*row) for row in rows]

"""Leasing queued tasks to workers: statements that do not wait for the disk (ADR-0027).

A claim that a crash of PostgreSQL takes back was seen by its worker all the same. That is sound
because everything it could be mistaken for waits for the disk: whoever reports says the token of
its lease, which is random and so never given twice; `fence` is made of the timeline and of the
generation of the run, which claims do not change. The worker of a claim that is lost is one that
lost its lease. Claims of limited actions do wait: the row that counts them must not go back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from runkon_server.store.database import connect_unflushed, fetch
from runkon_server.store.pipeline import Pipeline
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.timelines import TIMELINE, outer_fence

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.decision import TaskKind
    from runkon_server.store.pipeline import Rows

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
_NAME: Final = re.compile(r"%\((\w+)\)s")


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


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who tasks are claimed for."""

    namespace: str
    worker_id: str
    queues: Collection[str]
    """Those that it serves, as `queues.served_queues` gives them."""


async def open_claims(dsn: str, lease_ttl_s: float) -> Pipeline:
    """A session for nothing but claims."""
    return Pipeline(await connect_unflushed(dsn, lease_ttl_s))


async def claim_tasks(
    pipeline: Pipeline,
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
    statement = _CLAIMS[kind, EVERY_QUEUE in claimant.queues]
    rows = await _run(pipeline, statement, parameters | _who(claimant))
    return [ClaimedTask(*row) for row in rows]


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
    statement = _CLAIMS["limited", EVERY_QUEUE in claimant.queues]
    rows = await fetch(conn, statement, parameters | _who(claimant))
    return [ClaimedTask(*row) for row in rows]


async def claim_items(
    pipeline: Pipeline, *, worker_id: str, names: Sequence[str], limit: int, ttl_s: float
) -> list[ClaimedTask]:
    """Lease queued tasks that find items to the server itself, in whatever namespace they are."""
    parameters = {"worker": worker_id, "names": list(names), "limit": limit, "ttl": ttl_s}
    rows = await _run(pipeline, _CLAIM_ITEMS_EVERYWHERE, parameters)
    return [ClaimedTask(*row) for row in rows]


def _who(claimant: Claimant) -> dict[str, Any]:
    return {
        "namespace": claimant.namespace,
        "worker": claimant.worker_id,
        "queues": sorted(claimant.queues),
    }


async def _run(pipeline: Pipeline, statement: str, parameters: dict[str, Any]) -> Rows:
    numbered, names = in_numbers(statement)
    (rows,) = await pipeline.run([(numbered, tuple(parameters[name] for name in names))])
    return rows


@lru_cache
def in_numbers(statement: str) -> tuple[str, tuple[str, ...]]:
    """A statement with `$1`, `$2`, … for its `%(name)s`, and the names in that order."""
    names = tuple(dict.fromkeys(_NAME.findall(statement)))
    return _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names

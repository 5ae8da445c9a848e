"""Reading how runs stand: everything that may keep them from moving, a level of a tree at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.standstill import (
    OpenChild,
    OpenTask,
    OpenTimer,
    PendingGate,
    Standing,
)
from runkon_server.store.action_limits import usages_of
from runkon_server.store.database import fetch
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.sessions import ADVISORY_CLASS, HELD_KEYS, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.standstill import LimitInUse
    from runkon_server.store.rows import GateRow

CHILDREN_MAX: Final = 50
"""Children of one run that are told of."""
TASKS_MAX: Final = 50
_POSITION_MAX: Final = 1_000

_RUNS: Final = """
SELECT r.id, r.namespace, r.workflow_name, r.status, clock_timestamp() AS now, r.created_at,
       r.ended_at, d.scheduled_at, r.owner_token, r.lease_until, r.ready_at,
       r.fact_seq > r.applied_fact_seq AS has_unapplied_facts, d.content_hash
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id WHERE r.id = ANY(%(ids)s)"""
_STEPS: Final = """
SELECT s.workflow_run_id, s.id, s.step_name, s.started_at FROM workflow_run_steps s
WHERE s.workflow_run_id = ANY(%(ids)s) AND s.superseded_epoch IS NULL
  AND (s.status IN ('running', 'waiting')
       OR s.id IN (SELECT t.step_id FROM timers t WHERE t.run_id = ANY(%(ids)s)))
ORDER BY s.workflow_run_id, s.at"""
# The same conditions as those by which tasks are claimed: see `claims`.
_TASKS: Final = f"""
SELECT t.run_id, t.id, t.step_id, t.kind, t.action, t.state, t.delivery, t.worker_id, t.created_at,
       t.lease_until, t.deadline_at, t.cancel_requested_at IS NOT NULL AS is_cancelled, t.namespace,
       t.queue,
       CASE WHEN t.state = 'queued' THEN
           (SELECT count(*) FROM (
               SELECT 1 FROM tasks q
               WHERE q.namespace = t.namespace AND q.queue = t.queue AND q.kind = t.kind
                 AND q.state = 'queued' AND q.action = t.action
                 AND (q.priority > t.priority
                      OR (q.priority = t.priority AND q.created_at <= t.created_at))
               LIMIT {_POSITION_MAX}) ahead) ELSE 0 END AS queue_position,
       (SELECT count(*) FROM workers w
        WHERE w.namespace = t.namespace AND w.expires_at >= clock_timestamp()
          AND (t.queue = ANY(w.queues) OR '{EVERY_QUEUE}' = ANY(w.queues))
          AND CASE t.kind WHEN 'action' THEN t.action = ANY(w.actions) OR '*' = ANY(w.actions)
                          WHEN 'items' THEN t.action = ANY(w.item_providers)
                          WHEN 'gate' THEN t.action = ANY(w.gate_types)
                          ELSE w.scripts END) AS workers,
       (SELECT max(o.gone_at) FROM last_offers o
        WHERE o.namespace = t.namespace AND o.kind = t.kind
          AND o.queue IN (t.queue, '{EVERY_QUEUE}')
          AND o.name IN (CASE t.kind WHEN 'script' THEN '' ELSE t.action END,
                         CASE t.kind WHEN 'action' THEN '*' ELSE '' END)) AS last_worker_at
FROM (SELECT k.*, row_number() OVER (PARTITION BY k.run_id ORDER BY k.id) AS n FROM tasks k
      WHERE k.run_id = ANY(%(ids)s) AND k.state IN ('queued', 'leased')) t
WHERE t.n <= {TASKS_MAX} ORDER BY t.run_id, t.id"""
_TIMERS: Final = """
SELECT run_id, kind, step_id, due_at FROM timers WHERE run_id = ANY(%(ids)s)
ORDER BY run_id, due_at"""
# A child's end may not have been told yet, so what counts is its own row.
_CHILDREN: Final = """
SELECT parent, child, workflow_name, step_id, since, number FROM (
    SELECT r.parent_workflow_run_id AS parent, r.id AS child, r.workflow_name,
           coalesce(d.parent_step_id, '') AS step_id, coalesce(r.started_at, r.created_at) AS since,
           count(*) OVER w AS number,
           row_number() OVER (w ORDER BY (r.status <> 'waiting'), r.id) AS n
    FROM workflow_runs r JOIN run_details d ON d.run_id = r.id
    WHERE r.parent_workflow_run_id = ANY(%(ids)s) AND r.ended_at IS NULL
    WINDOW w AS (PARTITION BY r.parent_workflow_run_id)) c
WHERE n <= %(children_max)s ORDER BY parent, n"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStanding:
    """How a run stands, with what only readers need to know."""

    standing: Standing
    namespace: str
    content_hash: str
    children_left_out: int
    queues: dict[str, str]
    """Of the open tasks, by id."""


async def read_standings(
    conn: AsyncConnection,
    run_ids: Collection[str],
    gates: dict[str, list[GateRow]],
    is_built_in: Callable[[str, str, str], bool],
) -> dict[str, FoundStanding]:
    """How these runs stand; unknown ids are left out.

    Args:
        gates: the pending ones of each run.
        is_built_in: whether servers themselves do a task of this namespace, kind and action.
    """
    ids = {"ids": list(run_ids), "children_max": CHILDREN_MAX}
    steps = _grouped(await fetch(conn, _STEPS, ids))
    timers = _grouped(await fetch(conn, _TIMERS, ids))
    children = _grouped(await fetch(conn, _CHILDREN, ids))
    tasks: dict[str, list[OpenTask]] = defaultdict(list)
    queues: dict[str, dict[str, str]] = defaultdict(dict)
    task_rows = [dict(row) for row in (await conn.exec_driver_sql(_TASKS, ids)).mappings()]
    limits = await _limits(conn, task_rows)
    for task in task_rows:
        queues[task["run_id"]][task["id"]] = task["queue"]
        limit = limits.get((task["namespace"], task["action"]))
        tasks[task["run_id"]].append(_task(task, is_built_in, limit))
    alive = {key for (key,) in await fetch(conn, HELD_KEYS, {"class": ADVISORY_CLASS})}
    found: dict[str, FoundStanding] = {}
    for row in (await conn.exec_driver_sql(_RUNS, ids)).mappings():
        values = dict(row)
        run_id, owner = values.pop("id"), values["owner_token"]
        namespace, content_hash = values.pop("namespace"), values.pop("content_hash")
        below = children[run_id]
        standing = Standing(
            run_id=run_id,
            **values,
            is_owner_alive=owner is not None and key_of(owner) in alive,
            is_replica_alive=bool(alive),
            step_names={step_id: name for step_id, name, _ in steps[run_id]},
            tasks=tasks[run_id],
            timers=[OpenTimer(kind=k, step_id=s, due_at=at) for k, s, at in timers[run_id]],
            gates=[_gate(gate) for gate in gates.get(run_id, ())],
            children=[
                OpenChild(run_id=child, workflow_name=name, step_id=step_id, since=since)
                for child, name, step_id, since, _ in below
            ],
        )
        number = below[0][-1] if below else 0
        found[run_id] = FoundStanding(
            standing=standing,
            namespace=namespace,
            content_hash=content_hash,
            children_left_out=number - len(below),
            queues=queues[run_id],
        )
    return found


async def _limits(
    conn: AsyncConnection, tasks: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], LimitInUse]:
    """What limits those of the tasks that wait, by namespace and action."""
    waiting: dict[str, set[str]] = defaultdict(set)
    for task in tasks:
        if task["kind"] == "action" and task["state"] == "queued":
            waiting[task["namespace"]].add(task["action"])
    return {
        (namespace, action): limit
        for namespace, actions in waiting.items()
        for action, limit in (await usages_of(conn, namespace, actions)).items()
    }


def _grouped(rows: Sequence[Sequence[Any]]) -> dict[str, list[Sequence[Any]]]:
    """Rows by their first column, without it."""
    grouped: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for run_id, *rest in rows:
        grouped[run_id].append(rest)
    return grouped


def _task(
    row: dict[str, Any],
    is_built_in: Callable[[str, str, str], bool],
    limit: LimitInUse | None,
) -> OpenTask:
    if row["kind"] != "action" or row["state"] != "queued":
        limit = None
    built_in = is_built_in(row.pop("namespace"), row["kind"], row["action"])
    del row["run_id"], row["queue"]
    attempt = int(row["id"].rpartition("#")[2])
    return OpenTask(**row, attempt=attempt, is_built_in=built_in, limit=limit)


def _gate(gate: GateRow) -> PendingGate:
    assert gate.opened_at is not None
    return PendingGate(
        id=gate.id,
        step_id=gate.step_id,
        name=gate.name,
        gate_type=gate.gate_type,
        approvals=sum(vote.decision == "approve" for vote in gate.votes),
        approvers=gate.approvers,
        exclude_starter=gate.exclude_starter,
        opened_at=gate.opened_at,
        deadline_at=gate.deadline_at,
    )

"""Removing runs that have ended, whole trees only: a root, then the runs below it.

What remains of a run is a tombstone: how it ended and how far its events went. A tree that is too
large for one transaction loses its upper part first, so nobody can resume what is half gone; the
tombstones there say that the lower part is still to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runkon_server.errors import RunIsChildError, RunNotFoundError, RunStateError
from runkon_server.store.database import fetch
from runkon_server.store.feed_floors import raise_floors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

RUNS_AT_ONCE: Final = 200
"""Runs in one transaction: some thousand rows, so that nobody waits for it."""
REQUESTS_KEPT: Final = timedelta(hours=25)
"""A little more than is promised for request ids."""
TOMBSTONES_KEPT: Final = timedelta(days=90)
_SWEEP_LOCK: Final = 727_003

_TREE: Final = """
WITH RECURSIVE tree AS (
    SELECT r.id AS root, r.id, 0 AS depth, r.ended_at IS NULL AS is_live
    FROM workflow_runs r WHERE r.id = ANY(%(roots)s)
    UNION ALL
    SELECT t.root, c.id, t.depth + 1, c.ended_at IS NULL
    FROM tree t JOIN workflow_runs c ON c.parent_workflow_run_id = t.id
)
"""
_VICTIMS: Final = f"""{_TREE}
SELECT id FROM tree WHERE root NOT IN (SELECT root FROM tree WHERE is_live)
ORDER BY depth, id LIMIT %(limit)s"""
_LIVE: Final = f"{_TREE} SELECT id FROM tree WHERE is_live LIMIT 1"
_LOCK: Final = """
SELECT id FROM workflow_runs WHERE id = ANY(%(ids)s) AND ended_at IS NOT NULL
ORDER BY id FOR UPDATE SKIP LOCKED"""
_BURY: Final = """
INSERT INTO run_tombstones (run_id, namespace, workflow_name, status, epoch, last_seq, ended_at,
    is_swept)
SELECT r.id, r.namespace, r.workflow_name, r.status, r.epoch, r.last_seq, r.ended_at,
    NOT EXISTS (SELECT 1 FROM workflow_runs c
                WHERE c.parent_workflow_run_id = r.id AND c.id <> ALL(%(ids)s))
FROM workflow_runs r WHERE r.id = ANY(%(ids)s)
ON CONFLICT (run_id) DO NOTHING"""
_LABELS: Final = """
DELETE FROM run_labels l USING run_details d, jsonb_each_text(d.labels) e
WHERE d.run_id = ANY(%(ids)s) AND l.namespace = d.namespace AND l.key = e.key COLLATE "C"
  AND l.value = e.value COLLATE "C" AND l.run_id = d.run_id"""
_KEYS: Final = """
DELETE FROM run_keys k USING run_details d
WHERE d.run_id = ANY(%(ids)s) AND k.namespace = d.namespace AND k.key = d.key
  AND k.run_id = d.run_id"""
_ROWS: Final = tuple(
    f"DELETE FROM {table} WHERE {column} = ANY(%(ids)s)"
    for table, column in (
        ("run_events", "run_id"),
        ("facts", "run_id"),
        ("tasks", "run_id"),
        ("gate_votes", "run_id"),
        ("gates", "run_id"),
        ("timers", "run_id"),
        ("workflow_run_step_fan_out_items", "workflow_run_id"),
        ("workflow_run_steps", "workflow_run_id"),
        ("run_details", "run_id"),
        ("workflow_runs", "id"),
    )
)

_NAMESPACES: Final = """
WITH RECURSIVE n AS (
    (SELECT namespace FROM workflow_runs ORDER BY namespace LIMIT 1)
    UNION ALL
    SELECT (SELECT r.namespace FROM workflow_runs r WHERE r.namespace > n.namespace
            ORDER BY r.namespace LIMIT 1)
    FROM n WHERE n.namespace IS NOT NULL
)
SELECT namespace FROM n WHERE namespace IS NOT NULL"""
_DUE: Final = """
SELECT id, ended_at FROM workflow_runs
WHERE namespace = %(namespace)s AND ended_at IS NOT NULL AND parent_workflow_run_id IS NULL
  AND ended_at < clock_timestamp() - %(keep_for)s::interval
  AND (ended_at, id) > (%(ended_at)s::timestamptz, %(id)s)
ORDER BY ended_at, id LIMIT %(limit)s"""
_COUNT_DUE: Final = """
SELECT count(*) FROM workflow_runs
WHERE namespace = %(namespace)s AND ended_at IS NOT NULL AND parent_workflow_run_id IS NULL
  AND ended_at < clock_timestamp() - %(keep_for)s::interval"""
_HALF_GONE: Final = """
SELECT c.id FROM run_tombstones t JOIN workflow_runs c ON c.parent_workflow_run_id = t.run_id
WHERE NOT t.is_swept AND c.ended_at IS NOT NULL LIMIT %(limit)s"""
_SWEPT: Final = """
UPDATE run_tombstones t SET is_swept = true
WHERE NOT t.is_swept
  AND NOT EXISTS (SELECT 1 FROM workflow_runs c WHERE c.parent_workflow_run_id = t.run_id)"""
_REQUESTS: Final = """
DELETE FROM requests WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM requests WHERE created_at < clock_timestamp() - %(kept)s::interval
    ORDER BY created_at LIMIT %(limit)s))"""
_TOMBSTONES: Final = """
DELETE FROM run_tombstones WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM run_tombstones
    WHERE purged_at < clock_timestamp() - %(kept)s::interval AND is_swept
    ORDER BY purged_at LIMIT %(limit)s))"""
_OFFERS: Final = "DELETE FROM last_offers WHERE gone_at < clock_timestamp() - %(kept)s::interval"
_TOMBSTONE: Final = """
SELECT status, last_seq, epoch FROM run_tombstones
WHERE run_id = %(run_id)s AND namespace = %(namespace)s"""
_RUN: Final = """
SELECT parent_workflow_run_id FROM workflow_runs
WHERE id = %(run_id)s AND namespace = %(namespace)s"""
_STATUS: Final = "SELECT status FROM workflow_runs WHERE id = %(run_id)s"


class Place(NamedTuple):
    """How far a pass over the ended runs of a namespace has come."""

    ended_at: datetime
    id: str


BEGINNING: Final = Place(datetime.fromisoformat("0001-01-02T00:00:00+00:00"), "")


@dataclass(frozen=True, slots=True)
class Purged:
    """What one step of a pass did; `place` is None when there was nothing more to look at."""

    runs: int
    place: Place | None


async def try_sweep_lock(conn: AsyncConnection) -> bool:
    """Be the one that sweeps, until the end of the transaction; False: somebody else does."""
    ((is_ours,),) = await fetch(
        conn, "SELECT pg_try_advisory_xact_lock(%(lock)s)", {"lock": _SWEEP_LOCK}
    )
    return bool(is_ours)


async def wait_for_sweep_lock(conn: AsyncConnection) -> None:
    """Be the one that sweeps, until the end of the transaction; what others do takes no second."""
    await conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": _SWEEP_LOCK})


async def namespaces(conn: AsyncConnection) -> list[str]:
    """All that have runs."""
    return [name for (name,) in await fetch(conn, _NAMESPACES, {})]


async def due_roots(
    conn: AsyncConnection, namespace: str, keep_for: timedelta, after: Place, limit: int
) -> list[Place]:
    """Roots that ended so long ago, the longest ago first."""
    parameters = {"namespace": namespace, "keep_for": keep_for, "limit": limit, **after._asdict()}
    return [Place(ended_at, run_id) for run_id, ended_at in await fetch(conn, _DUE, parameters)]


async def count_due(conn: AsyncConnection, namespace: str, keep_for: timedelta) -> int:
    """How many roots ended so long ago."""
    parameters = {"namespace": namespace, "keep_for": keep_for}
    ((number,),) = await fetch(conn, _COUNT_DUE, parameters)
    return int(number)


async def purge_due(
    conn: AsyncConnection,
    namespace: str,
    keep_for: timedelta,
    after: Place,
    limit: int = RUNS_AT_ONCE,
) -> Purged:
    """Remove some trees of a namespace whose roots ended so long ago, in this transaction."""
    roots = await due_roots(conn, namespace, keep_for, after, limit)
    if not roots:
        return Purged(0, None)
    removed = await purge_trees(conn, [root.id for root in roots], limit)
    # Where the trees were many or large, the same roots are looked at again.
    return Purged(removed, after if removed >= limit else roots[-1])


async def purge_half_gone(
    conn: AsyncConnection, limit: int = RUNS_AT_ONCE, *, is_for_age: bool = True
) -> int:
    """Go on with trees whose upper part is gone, in this transaction; gives the number of runs."""
    roots = [run_id for (run_id,) in await fetch(conn, _HALF_GONE, {"limit": limit})]
    removed = await purge_trees(conn, roots, limit, is_for_age=is_for_age) if roots else 0
    await conn.exec_driver_sql(_SWEPT)
    return removed


async def purge_trees(
    conn: AsyncConnection,
    roots: Sequence[str],
    limit: int = RUNS_AT_ONCE,
    *,
    is_for_age: bool = True,
) -> int:
    """Remove these runs and those below them, at most `limit`, in this transaction.

    A tree with a run that has not ended stays whole, and so does everything if somebody is at work
    on one of the runs. Gives the number of runs that were removed.

    Args:
        is_for_age: feeds that have not come to their events yet are told; not when somebody wanted
            them gone.
    """
    wanted = {"roots": list(roots), "limit": limit}
    victims = [run_id for (run_id,) in await fetch(conn, _VICTIMS, wanted)]
    if not victims:
        return 0
    ids = {"ids": victims}
    if len(await fetch(conn, _LOCK, ids)) < len(victims):
        return 0
    if is_for_age:
        await raise_floors(conn, victims)
    for statement in (_BURY, _LABELS, _KEYS, *_ROWS):
        await conn.exec_driver_sql(statement, ids)
    return len(victims)


async def delete_tree(conn: AsyncConnection, namespace: str, run_id: str) -> int:
    """Remove one run and those below it in this transaction; gives how many, 0 if it is gone.

    Raises:
        RunNotFoundError: the namespace has no such run, and lately had none.
        RunIsChildError: it is not the root of its tree.
        RunStateError: it, or a run below it, has not ended.
    """
    named = {"namespace": namespace, "run_id": run_id}
    found = await fetch(conn, _RUN, named)
    if not found:
        if await fetch(conn, _TOMBSTONE, named):
            return 0
        raise RunNotFoundError(run_id)
    if found[0][0] is not None:
        raise RunIsChildError(run_id, parent=found[0][0])
    live = await fetch(conn, _LIVE, {"roots": [run_id]})
    removed = 0 if live else await purge_trees(conn, [run_id], is_for_age=False)
    if not removed:
        culprit = live[0][0] if live else run_id
        status = await fetch(conn, _STATUS, {"run_id": culprit})
        if not status:  # somebody else removed it since it was looked at
            return await delete_tree(conn, namespace, run_id)
        raise RunStateError(culprit, status=status[0][0], wish="deleted now")
    return removed


async def sweep_leftovers(conn: AsyncConnection, limit: int = 5_000) -> int:
    """Remove old request ids, tombstones and offers in this transaction; gives how many rows."""
    removed = 0
    for statement, kept in (
        (_REQUESTS, REQUESTS_KEPT),
        (_TOMBSTONES, TOMBSTONES_KEPT),
        (_OFFERS, TOMBSTONES_KEPT),
    ):
        parameters: dict[str, Any] = {"kept": kept, "limit": limit}
        if statement is _OFFERS:
            del parameters["limit"]
        removed += (await conn.exec_driver_sql(statement, parameters)).rowcount
    return removed

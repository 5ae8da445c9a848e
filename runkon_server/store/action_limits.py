"""Limits of actions: set by operators, kept by all replicas through one row per action.

Whoever hands out tasks of a limited action holds its row meanwhile, so limits are exact across
replicas, but for tasks on their way when a limit was set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.standstill import LimitInUse
from runkon_server.store.database import fetch
from runkon_server.store.rows import Page

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_READ: Final = """
SELECT namespace, action, concurrency, per_s FROM action_limits ORDER BY namespace, action"""

_SET: Final = """
INSERT INTO action_limits (namespace, action, concurrency, per_s)
VALUES (%(namespace)s, %(action)s, %(concurrency)s, %(per_s)s)
ON CONFLICT (namespace, action) DO UPDATE
SET concurrency = excluded.concurrency, per_s = excluded.per_s"""

_UNSET: Final = """
DELETE FROM action_limits WHERE namespace = %(namespace)s AND action = %(action)s"""

LIMIT_MAX: Final = 1_000_000
"""Of both numbers."""

# One task in 32 years: with rates far below, PostgreSQL refuses to multiply and to divide. And of
# infinitely many, to which NaN counts there, no whole number is to be had.
_PER_S: Final = "CASE WHEN per_s < 1e-9 THEN 1e-9 WHEN per_s > 1e6 THEN 1e6 ELSE per_s END"

# A bucket holds what a second allows, and one at least.
_LOCK: Final = f"""
SELECT concurrency, per_s, least(greatest({_PER_S}, 1),
    tokens + ({_PER_S}) * greatest(0, extract(epoch FROM clock_timestamp() - counted_at)))
FROM action_limits WHERE namespace = %(namespace)s AND action = %(action)s
FOR NO KEY UPDATE SKIP LOCKED"""

# By the index of leases: as many rows as there are tasks out.
_OUT: Final = """
SELECT count(*) FROM tasks
WHERE state = 'leased' AND kind = 'action' AND namespace = %(namespace)s AND action = %(action)s"""

_SPEND: Final = """
UPDATE action_limits SET tokens = %(tokens)s, counted_at = clock_timestamp()
WHERE namespace = %(namespace)s AND action = %(action)s"""

QUEUED_MAX: Final = 1_000
"""As many waiting tasks of a limited action are counted."""

# A bucket lets a task out from the moment on at which it holds a whole token.
_USAGES: Final = f"""
SELECT l.action, l.concurrency, l.per_s,
    (SELECT count(*) FROM tasks t
     WHERE t.state = 'leased' AND t.kind = 'action' AND t.namespace = l.namespace
       AND t.action = l.action),
    (SELECT count(*) FROM (
        SELECT 1 FROM tasks q
        WHERE q.namespace = l.namespace AND q.kind = 'action' AND q.state = 'queued'
          AND q.action = l.action LIMIT {QUEUED_MAX}) waiting),
    l.counted_at + make_interval(
        secs => greatest(0, 1 - l.tokens) / ({_PER_S}))
FROM action_limits l WHERE l.namespace = %(namespace)s"""
_USAGES_OF: Final = f"{_USAGES} AND l.action = ANY(%(actions)s)"
_USAGE_PAGE: Final = f"{_USAGES} AND l.action > %(after)s ORDER BY l.action LIMIT %(limit)s"


@dataclass(frozen=True, slots=True)
class ActionLimit:
    """What was set for an action."""

    concurrency: int | None
    """Tasks that may be with workers at once; 0 stops the action, None is no limit."""
    per_s: float | None
    """Tasks that may be handed out in a second, on average and in a burst; None is no limit."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limited action may take now, as long as its row is held."""

    tasks: int
    """Of those that were wished for."""
    tokens: float | None
    """What is in the bucket; None without a rate."""


async def read_limits(conn: AsyncConnection) -> dict[tuple[str, str], ActionLimit]:
    """What is set, by namespace and action."""
    rows = await fetch(conn, _READ, {})
    return {(row[0], row[1]): ActionLimit(row[2], row[3]) for row in rows}


async def set_limit(conn: AsyncConnection, namespace: str, action: str, limit: ActionLimit) -> None:
    """Limit an action, instead of what was set for it."""
    parameters = {
        "namespace": namespace,
        "action": action,
        "concurrency": limit.concurrency,
        "per_s": limit.per_s,
    }
    await conn.exec_driver_sql(_SET, parameters)


async def unset_limit(conn: AsyncConnection, namespace: str, action: str) -> bool:
    """Let an action run without limits; False if it did."""
    names = {"namespace": namespace, "action": action}
    return bool((await conn.exec_driver_sql(_UNSET, names)).rowcount)


async def usages_of(
    conn: AsyncConnection, namespace: str, actions: Collection[str]
) -> dict[str, LimitInUse]:
    """How the limits of these actions are used; actions without any are left out."""
    rows = await fetch(conn, _USAGES_OF, {"namespace": namespace, "actions": list(actions)})
    return {row[0]: _in_use(row) for row in rows}


async def list_usages(
    conn: AsyncConnection, namespace: str, *, limit: int, after: str = ""
) -> Page[LimitInUse]:
    """The limited actions of a namespace by name.

    Args:
        after: the last one of the page before.
    """
    wanted = {"namespace": namespace, "after": after, "limit": limit + 1}
    rows = await fetch(conn, _USAGE_PAGE, wanted)
    return Page([_in_use(row) for row in rows[:limit]], len(rows) > limit)


def _in_use(row: Sequence[Any]) -> LimitInUse:
    action, concurrency, per_s, running, queued, next_at = row
    return LimitInUse(
        action=action,
        concurrency=concurrency,
        per_s=per_s,
        running=running,
        queued=queued,
        next_at=next_at,
    )


async def lock_allowance(
    conn: AsyncConnection, namespace: str, action: str, wished: int
) -> Allowance | None:
    """Hold an action's row and say what it may take; None: somebody else holds it, or it is gone.

    Args:
        conn: in a transaction, READ COMMITTED: each statement sees what was committed before it.
    """
    names = {"namespace": namespace, "action": action}
    found = await fetch(conn, _LOCK, names)
    if not found:
        return None
    concurrency, per_s, tokens = found[0]
    allowed = wished
    if concurrency is not None:
        out = (await fetch(conn, _OUT, names))[0][0]
        allowed = min(allowed, max(0, concurrency - out))
    if per_s is None:
        return Allowance(allowed, None)
    return Allowance(min(allowed, int(tokens)), float(tokens))


async def spend(conn: AsyncConnection, namespace: str, action: str, tokens: float) -> None:
    """Write down what is left in an action's bucket."""
    parameters = {"namespace": namespace, "action": action, "tokens": tokens}
    await conn.exec_driver_sql(_SPEND, parameters)

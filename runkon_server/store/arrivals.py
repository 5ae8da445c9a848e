"""Taking tasks back from workers that do not have them, without waiting for their leases.

A replica that dies between the commit of a lease and the frame that carries it leaves a task behind
that nobody works on. Who knows better is the worker, when it says hello to another replica; for
what a replica executes itself, everybody who sees that the replica is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import OperationalError

from runkon_server.store.claims import Requeued
from runkon_server.store.database import fetch, is_lock_timeout
from runkon_server.store.sessions import ADVISORY_CLASS, HELD_KEYS, key_of, worker_of
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["TakenBack", "take_back", "take_back_from"]

# Locks in the order of all other statements on tasks, so a report that is being recorded goes
# first. As with leases that ran out, what is queued again goes before its equals, and what was told
# to stop or was lost too often is settled, not handed out again: its lease ends here and now, and
# the scanner finds it.
_TAKE_BACK = """
UPDATE tasks t SET
    state = CASE c.fate WHEN 'again' THEN 'queued' ELSE t.state END,
    token = CASE c.fate WHEN 'again' THEN NULL ELSE t.token END,
    worker_id = CASE c.fate WHEN 'again' THEN NULL ELSE t.worker_id END,
    delivery = t.delivery + (c.fate = 'again')::int,
    created_at = t.created_at - (c.fate = 'again')::int * interval '1 microsecond',
    lease_until = CASE c.fate WHEN 'kept' THEN clock_timestamp() + make_interval(secs => %(ttl)s)
                              WHEN 'over' THEN clock_timestamp() END
FROM (SELECT k.run_id, k.id,
             CASE WHEN k.token IN (SELECT json_array_elements_text(%(in_hand)s::json)) THEN 'kept'
                  WHEN k.cancel_requested_at IS NOT NULL OR k.delivery + 1 >= %(deliveries)s
                      THEN 'over'
                  ELSE 'again' END AS fate
      FROM {workers} JOIN tasks k ON k.worker_id = u.worker_id COLLATE "C" {beside}
      WHERE k.state = 'leased' ORDER BY k.run_id, k.id FOR NO KEY UPDATE OF k) c
WHERE t.run_id = c.run_id AND t.id = c.id
RETURNING c.fate, t.namespace, t.queue, t.kind, t.action"""

_FROM_ARRIVED: Final = _TAKE_BACK.format(
    workers="json_to_recordset(%(workers)s::json) AS u(namespace text, worker_id text)",
    beside='AND k.namespace = u.namespace COLLATE "C"',
)

# Looked for once more, here and now, as runs of owners that are gone are.
_FROM_GONE: Final = _TAKE_BACK.format(
    workers=f"""(
          SELECT g.worker_id
          FROM unnest(%(workers)s::text[], %(keys)s::bigint[]) AS g(worker_id, key)
          WHERE NOT EXISTS ({HELD_KEYS} AND l.objid = g.key::oid)) u""",
    beside="",
)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What became of tasks that were leased to workers which do not have them."""

    again: list[Requeued]
    """They are in the queue."""
    over: int
    """They are left to be settled: told to stop, or lost too often."""


async def take_back(
    conn: AsyncConnection,
    in_hand: Mapping[tuple[str, str], Collection[str]],
    *,
    deliveries_max: int,
    ttl_s: float,
) -> TakenBack:
    """Take back what workers do not have, and extend the leases of what they have.

    A row that somebody keeps locked is left as it is: its lease runs out.

    Args:
        conn: in autocommit mode.
        in_hand: tokens by namespace and worker id.
    """
    parameters: dict[str, Any] = {
        "workers": to_json([{"namespace": n, "worker_id": w} for n, w in in_hand]),
        "in_hand": to_json([token for tokens in in_hand.values() for token in tokens]),
        "deliveries": deliveries_max,
        "ttl": ttl_s,
    }
    return await _fates(conn, _FROM_ARRIVED, parameters)


async def take_back_from(
    conn: AsyncConnection, gone: Collection[str], *, deliveries_max: int
) -> list[Requeued]:
    """Queue again what replicas executed themselves that are gone, given by their tokens.

    Returns:
        These tasks; those that are left to be settled are not among them.
    """
    parameters: dict[str, Any] = {
        "workers": [worker_of(token) for token in gone],
        "keys": [key_of(token) for token in gone],
        "class": ADVISORY_CLASS,
        "in_hand": "[]",
        "deliveries": deliveries_max,
        "ttl": 0.0,
    }
    return (await _fates(conn, _FROM_GONE, parameters)).again


async def _fates(conn: AsyncConnection, statement: str, parameters: dict[str, Any]) -> TakenBack:
    try:
        rows = await fetch(conn, statement, parameters)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        unlocked = statement.replace("FOR NO KEY UPDATE OF k", "FOR NO KEY UPDATE OF k SKIP LOCKED")
        rows = await fetch(conn, unlocked, parameters)
    return TakenBack(
        again=[Requeued(*asked) for fate, *asked in rows if fate == "again"],
        over=sum(fate == "over" for fate, *_ in rows),
    )

"""Runs that were asked for by `runkon.start_run()` and are still to be created.

Such a request has its answer in `requests` from the transaction on that made it, marked `pending`;
the row here is only the work that is left. Whoever creates the run takes the mark away in the same
transaction, so that a second one, who claimed the row too, finds nothing to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runkon_server.store.database import fetch
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_CLAIM: Final = """
UPDATE start_requests s
SET claimed_until = clock_timestamp() + make_interval(secs => %(ttl)s)
FROM (SELECT namespace, request_id FROM start_requests
      WHERE claimed_until IS NULL OR claimed_until < clock_timestamp()
      ORDER BY created_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED) c
WHERE s.namespace = c.namespace AND s.request_id = c.request_id
RETURNING s.namespace, s.request_id, s.run_id, s.digest, s.version, s.payload, s.started_by"""

_DONE: Final = """
DELETE FROM start_requests s
USING json_to_recordset(%(rows)s::json) AS u(namespace text, request_id text)
WHERE s.namespace = u.namespace AND s.request_id = u.request_id"""

_REFUSE: Final = """
WITH done AS (
    DELETE FROM start_requests WHERE namespace = %(namespace)s AND request_id = %(request_id)s)
UPDATE requests SET response = jsonb_build_object(
    'run_id', response -> 'run_id', 'started', false,
    'error', jsonb_build_object('reason', %(reason)s::text, 'message', %(message)s::text))
WHERE namespace = %(namespace)s AND request_id = %(request_id)s AND response ? 'pending'"""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """One request; `payload` has the parameters of the function by their names."""

    namespace: str
    request_id: str
    run_id: str
    """The id that was promised."""
    digest: str
    version: int
    """Of the workflow: the one that was named, or the newest when it was asked for."""
    payload: dict[str, Any]
    started_by: str


async def claim_starts(conn: AsyncConnection, *, limit: int, ttl_s: float) -> list[StartRequest]:
    """Take up requests that nobody has in hand, the oldest first; nobody else does for `ttl_s`."""
    rows = await fetch(conn, _CLAIM, {"limit": limit, "ttl": ttl_s})
    return [StartRequest(*row) for row in rows]


async def forget_starts(conn: AsyncConnection, done: Sequence[StartRequest]) -> None:
    """These are answered."""
    rows = [{"namespace": each.namespace, "request_id": each.request_id} for each in done]
    await conn.exec_driver_sql(_DONE, {"rows": to_json(rows)})


async def refuse_start(
    conn: AsyncConnection, request: StartRequest, *, reason: str, message: str
) -> None:
    """Answer a request for good: there will be no run."""
    parameters = {
        "namespace": request.namespace,
        "request_id": request.request_id,
        "reason": reason,
        "message": message,
    }
    await conn.exec_driver_sql(_REFUSE, parameters)

"""Why nothing moves: what the database and the replicas say when runs are stuck."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from pathlib import Path

    from runkon_server.verify.chaos.cluster import Cluster

STACKS_S: Final = 2.0
LAST_EVENTS: Final = 50
_QUESTIONS: Final[dict[str, LiteralString]] = {
    "sessions": "SELECT pid, application_name, state, wait_event_type, wait_event, xact_start,"
    " query_start, left(query, 200) AS query FROM pg_stat_activity"
    " WHERE datname = current_database()",
    "locks": "SELECT locktype, relation::regclass::text, mode, granted, pid, transactionid::text,"
    " classid, objid FROM pg_locks ORDER BY granted, pid",
    "leases": "SELECT id, status, phase, owner_token, lease_until, generation, ready_at, last_seq,"
    " fact_seq, applied_fact_seq, infra_attempts, blocked_on, clock_timestamp() AS now"
    " FROM workflow_runs WHERE status NOT IN ('completed', 'failed', 'cancelled') ORDER BY id",
    "tasks": "SELECT id, state, worker_id, lease_until, delivery, cancel_requested_at"
    " FROM tasks WHERE state IN ('queued', 'leased') ORDER BY id",
    "timers": "SELECT * FROM timers ORDER BY due_at LIMIT 500",
}
_EVENTS: Final[LiteralString] = """
SELECT e.run_id, e.seq, e.kind, e.generation, e.at, left(e.payload::text, 300) AS payload
FROM workflow_runs r CROSS JOIN LATERAL (
    SELECT * FROM run_events WHERE run_id = r.id ORDER BY seq DESC LIMIT %s) e
WHERE r.status NOT IN ('completed', 'failed', 'cancelled') ORDER BY e.run_id, e.seq"""


async def diagnose(cluster: Cluster, folder: Path) -> Path:
    """Write down everything that may explain it; the file. Replicas tell their logs more."""
    cluster.ask_for_stacks()
    found: dict[str, Any] = {}
    async with await psycopg.AsyncConnection.connect(
        cluster.database.url, autocommit=True, row_factory=dict_row
    ) as conn:
        for name, question in _QUESTIONS.items():
            found[name] = await (await conn.execute(question)).fetchall()
        found["last events"] = await (await conn.execute(_EVENTS, (LAST_EVENTS,))).fetchall()
    await asyncio.sleep(STACKS_S)  # for the replicas to write
    path = folder / "stuck.json"
    path.write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")
    return path

"""Child runs whose parents have not been told how they stand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.records import StepRecord
from runkon_server.store.database import fetch
from runkon_server.store.loading import step_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

UNNOTIFIED_MAX: Final = 500

# Whoever ended a child tells of it at once; a scan that looked at the same moment would only do the
# same work twice.
_UNNOTIFIED: Final = """
SELECT id FROM workflow_runs
WHERE NOT parent_notified AND (ended_at IS NULL OR ended_at < clock_timestamp() - interval '1 s')
ORDER BY id LIMIT %(limit)s"""

_CHILDREN: Final = """
SELECT r.id, r.parent_workflow_run_id AS parent_run_id, r.status, r.epoch, r.last_seq,
       r.blocked_on, d.error, d.metrics
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id
WHERE r.id = ANY(%(ids)s) AND NOT r.parent_notified AND r.parent_workflow_run_id IS NOT NULL"""

# What a step printed is never handed up, and may be long.
_COLUMNS: Final = ", ".join(
    "NULL" if each.name == "result_text" else f"s.{each.name}" for each in fields(StepRecord)
)
_STEPS: Final = f"""
SELECT s.workflow_run_id, {_COLUMNS} FROM workflow_run_steps s
WHERE s.workflow_run_id = ANY(%(ids)s) AND s.status = 'completed'
  AND s.superseded_epoch IS NULL"""


@dataclass(frozen=True, slots=True)
class UntoldChild:
    """A child run as it stands, with what a completed one hands up."""

    id: str
    parent_run_id: str
    status: str
    epoch: int
    last_seq: int
    blocked_on: dict[str, Any] | None
    error: str | None
    metrics: dict[str, Any]
    steps: tuple[StepRecord, ...]
    """The completed ones, if the run is."""


async def find_unnotified(conn: AsyncConnection) -> list[str]:
    """Some of the children whose parents wait for word."""
    return [row[0] for row in await fetch(conn, _UNNOTIFIED, {"limit": UNNOTIFIED_MAX})]


async def load_untold(conn: AsyncConnection, run_ids: Sequence[str]) -> list[UntoldChild]:
    """Those of these runs whose parents have not been told yet."""
    found = await conn.exec_driver_sql(_CHILDREN, {"ids": list(run_ids)})
    children = found.mappings().all()
    completed = [row["id"] for row in children if row["status"] == "completed"]
    steps: dict[str, list[StepRecord]] = {}
    if completed:
        for run_id, *values in await fetch(conn, _STEPS, {"ids": completed}):
            steps.setdefault(run_id, []).append(step_record(values))
    return [UntoldChild(**row, steps=tuple(steps.get(row["id"], ()))) for row in children]

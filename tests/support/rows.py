"""Rows put straight into the tables, for tests of what only reads them."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from runkon_server.runtime.ambient import encode_ulid
from runkon_server.store import tables
from runkon_server.store.database import close_reads
from runkon_server.store.migrations import sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMESPACE: Final = "default"
ENDED: Final = ("completed", "failed", "cancelled")


def ulid(number: int) -> str:
    """The id of the run that was created as the given one in a row."""
    return encode_ulid(1_750_000_000_000 + number, number)


@asynccontextmanager
async def engine_of(database: str) -> AsyncIterator[AsyncEngine]:
    """The pool that reads use, on the database of a test."""
    engine = create_async_engine(sqlalchemy_url(database), isolation_level="AUTOCOMMIT")
    try:
        yield engine
    finally:
        await close_reads(engine)


async def add_run(
    conn: AsyncConnection,
    run_id: str,
    *,
    namespace: str = NAMESPACE,
    details: dict[str, Any] | None = None,
    **columns: Any,
) -> str:
    """Insert a run with its details and give its id."""
    values: dict[str, Any] = {"status": "running", "created_at": NOON, "workflow_name": "w"}
    values |= {"phase": "body", "last_seq": 0} | columns
    if values["status"] in ENDED:
        values.setdefault("ended_at", NOON + timedelta(minutes=1))
    if values["status"] == "waiting":
        values.setdefault("blocked_on", {"type": "human_review", "gate_id": "g"})
    await conn.execute(insert(tables.runs).values(id=run_id, namespace=namespace, **values))
    more = {"content_hash": "c0ffee", **(details or {})}
    await conn.execute(
        insert(tables.run_details).values(run_id=run_id, namespace=namespace, **more)
    )
    return run_id


async def add_step(
    conn: AsyncConnection, run_id: str, at: str, *, epoch: int = 1, attempt: int = 0, **columns: Any
) -> str:
    """Insert a step and give its id, derived as the core derives it."""
    step_id = f"{run_id}/{at}/e{epoch}/{attempt}"
    values: dict[str, Any] = {"status": "completed", "step_name": at, "retry_count": attempt}
    values |= columns
    if values["status"] in ("completed", "failed", "skipped", "timed_out"):
        values.setdefault("ended_at", NOON)
    await conn.execute(
        insert(tables.steps).values(
            workflow_run_id=run_id, id=step_id, at=at, epoch=epoch, **values
        )
    )
    return step_id


async def add_events(
    conn: AsyncConnection, run_id: str, *payloads: tuple[str, dict[str, Any]], first_seq: int = 1
) -> None:
    """Insert events of the given kinds and payloads, numbered on from `first_seq`."""
    rows = [
        {
            "run_id": run_id,
            "seq": first_seq + number,
            "epoch": 1,
            "kind": kind,
            "at": NOON + timedelta(seconds=number),
            "generation": 1,
            "payload": json.dumps(payload),
        }
        for number, (kind, payload) in enumerate(payloads)
    ]
    await conn.execute(insert(tables.run_events), rows)


async def add_gate(
    conn: AsyncConnection, run_id: str, at: str, *, namespace: str = NAMESPACE, **columns: Any
) -> str:
    """Insert a gate and give its id."""
    gate_id = f"{run_id}/{at}/e1/0"
    values: dict[str, Any] = {"name": "review", "gate_type": "human_review", "state": "pending"}
    values |= {"opened_at": NOON} | columns
    if values["state"] != "pending":
        values.setdefault("resolved_at", NOON + timedelta(minutes=1))
    await conn.execute(
        insert(tables.gates).values(
            run_id=run_id, id=gate_id, namespace=namespace, step_id=gate_id, **values
        )
    )
    return gate_id


async def add_vote(
    conn: AsyncConnection, gate_id: str, principal: str, *, n: int = 1, **columns: Any
) -> None:
    """Insert one principal's vote."""
    values: dict[str, Any] = {"decision": "approve", "at": NOON} | columns
    await conn.execute(
        insert(tables.gate_votes).values(
            run_id=gate_id[:26], gate_id=gate_id, principal=principal, n=n, **values
        )
    )

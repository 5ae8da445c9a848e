"""Histories of runs, byte for byte: what the table holds, and what streams gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from runkon_server.api.events import render_event
from runkon_server.store.reads.events import EventRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncEngine

_ROWS = f"SELECT {', '.join(EventRow._fields)} FROM run_events WHERE run_id = :id ORDER BY seq"


async def stored(engine: AsyncEngine, run_id: str) -> list[bytes]:
    """What the table says, built the long way and encoded by protobuf."""
    async with engine.connect() as conn:
        rows = [EventRow(*row) for row in await conn.execute(text(_ROWS), {"id": run_id})]
    return [render_event(row).SerializeToString(deterministic=True) for row in rows]


def as_bytes(events: Iterable[Any]) -> list[bytes]:
    """The same of events that came."""
    return [event.SerializeToString(deterministic=True) for event in events]

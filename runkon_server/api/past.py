"""Runs as they were: told from their events, up to one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from runkon_server.api.events import step_told
from runkon_server.api.render import render_run
from runkon_server.core.folding import RunFold
from runkon_server.errors import CursorAheadError, CursorExpiredError, RunNotFoundError
from runkon_server.store.reads.events import list_events
from runkon_server.store.reads.runs import run_head, runs_by_id

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon.v1 import types_pb2
    from runkon_server.store.reads.events import EventRow
    from runkon_server.store.rows import RunRow

__all__ = ["Past", "read_past"]

_EVENTS_AT_ONCE: Final = 500


class Past:
    """A run right after one of its events."""

    def __init__(self, run: RunRow) -> None:
        self._run = run
        self._fold = RunFold()
        self._last_of_step: dict[str, EventRow] = {}
        self._started_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._seq = 0

    def follow(self, event: EventRow) -> None:
        """Go on with the next event."""
        payload: dict[str, Any] = orjson.loads(event.payload)
        self._fold.follow(event.kind, payload)
        self._seq = event.seq
        if event.kind == "run_started":
            self._started_at = self._started_at or event.at
        self._ended_at = event.at if event.kind == "run_finished" else None
        step = payload.get("step")
        if step is not None:
            self._last_of_step[step["id"]] = event

    def run(self) -> types_pb2.Run:
        """The run; what its events do not say is left out."""
        fold = self._fold
        was = replace(
            self._run,
            status=fold.status,
            epoch=fold.epoch,
            phase=fold.phase,
            blocked_on=fold.blocked_on,
            error=fold.error,
            result_summary=fold.result_summary,
            metrics=fold.metrics,
            started_at=self._started_at,
            ended_at=self._ended_at,
            last_seq=self._seq,
            iteration=0,
            dismissed=False,
            scheduled_at=None,
            current_step=None,
            cancel_reason=self._run.cancel_reason if fold.status.startswith("cancel") else None,
        )
        return render_run(was)

    def steps(self) -> list[types_pb2.Step]:
        """Every row that there was, in program order, then by epoch and attempt."""
        ordered = sorted(
            self._fold.steps.items(),
            key=lambda step: (step[1]["at"], step[1]["epoch"], step[1]["retry_count"], step[0]),
        )
        return [step_told(row, self._last_of_step[step_id]) for step_id, row in ordered]


async def read_past(reads: AsyncEngine, namespace: str, run_id: str, at_sequence: int) -> Past:
    """The run as it was right after this event.

    Raises:
        RunNotFoundError: the namespace has no such run.
        CursorAheadError: there is no such event yet.
        CursorExpiredError: the run, or its first events, are gone.
    """
    async with reads.connect() as conn:
        head = await run_head(conn, namespace=namespace, run_id=run_id)
        if at_sequence > head.last_seq:
            raise CursorAheadError(run_id, after_seq=at_sequence, head_seq=head.last_seq)
        if head.oldest_seq > 1:
            raise CursorExpiredError(run_id, oldest_seq=head.oldest_seq)
        run = (await runs_by_id(conn, [run_id])).get(run_id)
        if run is None:
            raise RunNotFoundError(run_id)
        past, seq = Past(run), 0
        while seq < at_sequence:
            page = await list_events(
                conn,
                run_id=run_id,
                after_seq=seq,
                head_seq=at_sequence,
                limit=_EVENTS_AT_ONCE,
            )
            for event in page.events:
                past.follow(event)
            seq = page.examined_seq
    return past

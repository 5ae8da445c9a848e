"""Runs as they were: told from their events, up to one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from runkon_server.api.events import step_told
from runkon_server.api.render import render_run
from runkon_server.core.folding import RunFold
from runkon_server.errors import CursorAheadError, CursorExpiredError
from runkon_server.store.reads.following import events_above
from runkon_server.store.reads.runs import run_by_id, run_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from runkon.v1 import types_pb2
    from runkon_server.store.reads.events import EventRow
    from runkon_server.store.rows import RunRow

__all__ = ["Past", "PastSource", "Pasts"]

_EVENTS_AT_ONCE: Final = 250
"""About 2 ms of work, in which the replica does nothing else."""
_EVENT_BYTES: Final = 256
"""What an event weighs besides its payload."""
_FOLDS_AT_ONCE: Final = 2
_KEPT_BYTES: Final = 32 * 1024 * 1024


class PastSource(Protocol):
    """The part of the engine that the past is read from."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""

    def on_rewrite(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when the newest events may not be the log's any more."""


class Past:
    """What a run's events amount to, up to one of them."""

    def __init__(self) -> None:
        self.seq = 0
        self.weight = 0
        """Bytes of its events: about what it takes in memory, or more."""
        self._fold = RunFold()
        self._last_of_step: dict[str, EventRow] = {}
        self._started_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._cancel_reason: str | None = None
        self._order: list[str] | None = None

    def follow(self, event: EventRow) -> None:
        """Go on with the next event."""
        payload: dict[str, Any] = orjson.loads(event.payload)
        self._fold.follow(event.kind, payload)
        self.seq = event.seq
        self.weight += _EVENT_BYTES + len(event.payload)
        if event.kind == "run_started":
            self._started_at = self._started_at or event.at
        self._ended_at = event.at if event.kind == "run_finished" else None
        if event.kind == "run_cancel_requested" and self._cancel_reason is None:
            self._cancel_reason = payload["reason"]  # a second request only adds `force`
        step = payload.get("step")
        if step is not None:
            self._last_of_step[step["id"]] = event._replace(payload="")  # the fold has it
            self._order = None

    def run(self, now: RunRow) -> types_pb2.Run:
        """The run; what its events do not say is left out.

        Args:
            now: its row, of which only what never changes is taken.
        """
        fold = self._fold
        was = replace(
            now,
            status=fold.status,
            epoch=fold.epoch,
            phase=fold.phase,
            blocked_on=fold.blocked_on,
            error=fold.error,
            result_summary=fold.result_summary,
            metrics=fold.metrics,
            started_at=self._started_at,
            ended_at=self._ended_at,
            last_seq=self.seq,
            iteration=0,
            dismissed=False,
            scheduled_at=None,
            current_step=None,
            cancel_reason=self._cancel_reason,
        )
        return render_run(was)

    @property
    def step_count(self) -> int:
        """How many steps there were."""
        return len(self._fold.steps)

    def steps(self, begin: int = 0) -> Iterator[types_pb2.Step]:
        """The rows that there were, in program order, then by epoch and attempt.

        Args:
            begin: how many to leave out.
        """
        steps = self._fold.steps
        if self._order is None:
            places = ((row["at"], row["epoch"], row["retry_count"], id_)
                      for id_, row in steps.items())  # fmt: skip
            self._order = [id_ for *_, id_ in sorted(places)]
        for id_ in self._order[begin:]:
            yield step_told(steps[id_], self._last_of_step[id_])


class Pasts:
    """The pasts that are asked for, folded from one snapshot each and kept for the next page.

    What is kept cannot be out of date: an event never changes, unless a fail-over loses it.

    Args:
        source: where events are read.
        kept_bytes: memory for those that were folded, about.
    """

    def __init__(self, source: PastSource, kept_bytes: int = _KEPT_BYTES) -> None:
        self._source = source
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[str, int], Past] = OrderedDict()
        self._folding = asyncio.Semaphore(_FOLDS_AT_ONCE)
        self._rewrites = 0
        source.on_rewrite(self._on_rewrite)

    async def read(self, namespace: str, run_id: str, at_sequence: int) -> tuple[Past, RunRow]:
        """The run as it was right after this event, and its row as it is.

        Raises:
            RunNotFoundError, RunPurgedError: the namespace has no such run.
            CursorAheadError: there is no such event yet.
            CursorExpiredError: the run, or its first events, are gone.
        """
        place = (run_id, at_sequence)
        turn = contextlib.nullcontext() if place in self._kept else self._folding
        async with turn, self._source.reads.connect() as shared:
            conn = await shared.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            async with conn.begin():
                head = await run_head(conn, namespace=namespace, run_id=run_id)
                if at_sequence > head.last_seq:
                    raise CursorAheadError(run_id, after_seq=at_sequence, head_seq=head.last_seq)
                if head.oldest_seq > 1:
                    raise CursorExpiredError(run_id, oldest_seq=head.oldest_seq)
                run = await run_by_id(conn, namespace=namespace, run_id=run_id)
                past = self._kept.get(place)
                if past is None:
                    rewrites = self._rewrites
                    past = await _fold(conn, run_id, at_sequence)
                    if rewrites != self._rewrites:
                        return past, run
                self._keep(place, past)
        return past, run

    def _keep(self, place: tuple[str, int], past: Past) -> None:
        self._kept[place] = past
        self._kept.move_to_end(place)
        weight = sum(each.weight for each in self._kept.values())
        while weight > self._kept_bytes:
            _, dropped = self._kept.popitem(last=False)
            weight -= dropped.weight

    def _on_rewrite(self) -> None:
        self._rewrites += 1
        self._kept.clear()


async def _fold(conn: AsyncConnection, run_id: str, at_sequence: int) -> Past:
    past = Past()
    while past.seq < at_sequence:
        limit = min(_EVENTS_AT_ONCE, at_sequence - past.seq)
        events = await events_above(conn, run_id, past.seq, limit=limit)
        if not events:
            raise CursorExpiredError(run_id, oldest_seq=at_sequence + 1)
        for event in events:
            past.follow(event)
    return past

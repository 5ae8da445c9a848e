"""Hints to the other replicas: what a batch has made worth a look, told after its commit.

While one lot is on its way the next ones gather and become one, so a busy replica sends larger
hints, not more of them. A hint that is lost is no loss: whoever would wait for it also polls.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from runkon_server.runtime.roster import Need, need_of
from runkon_server.store.hints import PAYLOAD_BYTES_MAX, SEND_BEHIND, open_hints, send_hints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.pipeline import Pipeline, Statement

log = structlog.get_logger(__name__)

EVERYTHING: Final = "*"
_EMPTY: Final = '{"s":"","r":1,"h":1,"t":[],"f":[],"c":{},"e":[]}'
PAYLOADS_MAX: Final = 8
"""Of one lot; what needs more is told as "look at everything", which is cheaper by then."""


class Hints:
    """Gathers what others should look at, and tells them, one lot at a time.

    Args:
        sender: names this replica in its hints, which it does not want to hear itself.
    """

    def __init__(
        self, config: EngineConfig, ambient: Ambient, sender: str, stats: EngineStats
    ) -> None:
        self._config = config
        self._ambient = ambient
        self._sender = sender
        self._stats = stats
        self._lot = Lot()
        self._wanted = asyncio.Event()
        self._is_losing = False
        """Whether the last hint that went behind a COMMIT failed."""

    def behind(self, batch: Batch) -> Statement | None:
        """What tells of a batch right behind its COMMIT; None if there is nothing to tell.

        A pooler's session is not kept for it. There, all is told in lots.
        """
        if not self._stats.peers or self._config.is_pooled:
            return None
        lot = Lot()
        if not lot.add(batch):
            return None
        batch.is_hinted = True
        return SEND_BEHIND, (lot.payloads(self._sender),)

    def answered(self, error: Exception | None) -> None:
        """What became of a hint behind a COMMIT; that they fail is logged once, until one works."""
        if error is not None:
            self._stats.hints_lost += 1
            if not self._is_losing:
                log.warning("hints.lost", error=str(error).strip())
        self._is_losing = error is not None

    def tell(self, batch: Batch) -> None:
        """A batch is durable."""
        if self._stats.peers and not batch.is_hinted and self._lot.add(batch):
            self._wanted.set()

    def greet(self) -> None:
        """This replica listens. Who was alone tells nobody anything before it knows of others."""
        self._lot.is_greeting = True
        self._wanted.set()

    def farewell(self) -> list[str]:
        """What is not told yet, and that what this replica had is ready for others."""
        self._lot.ready_runs = True
        return self._lot.payloads(self._sender)

    async def run(self) -> None:
        """Send for ever. What cannot be sent is dropped: by then it is old."""
        pipeline: Pipeline | None = None
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                lot, self._lot = self._lot, Lot()
                try:
                    pipeline = pipeline or await self._open()
                    await send_hints(pipeline, lot.payloads(self._sender))
                except psycopg.Error as error:
                    self._stats.hints_lost += 1
                    log.warning("hints.lost", error=str(error).strip())
                    if pipeline is not None:
                        await pipeline.close()
                        pipeline = None
                    await self._ambient.sleep(self._config.poll_s * self._ambient.jitter())
        finally:
            if pipeline is not None:
                await pipeline.close()

    async def _open(self) -> Pipeline:
        return await open_hints(self._config.session_dsn, self._config.lease_ttl_s)


def requeued_hint(needs: Sequence[Need]) -> str:
    """What tasks ask for that are in the queue again: with `o` they go before what is new.

    Too many to name in one notification become "look at everything".
    """
    hint = {"s": "scan", "t": needs, "o": 1}
    payload = json.dumps(hint, separators=(",", ":"))
    if len(payload) > PAYLOAD_BYTES_MAX:
        return json.dumps({**hint, "t": EVERYTHING}, separators=(",", ":"))
    return payload


def needs_in(told: object) -> list[Need] | None:
    """What queued tasks ask for, as a hint has it.

    Returns:
        None: anything may be asked for, or another release put it in words of its own.
    """
    if not isinstance(told, list) or not all(map(_is_need, told)):
        return None
    return [Need(*each) for each in told]


def _is_need(told: object) -> bool:
    return (
        isinstance(told, list)
        and len(told) == len(Need._fields)
        and all(isinstance(each, str) for each in told)
    )


class Lot:
    """What is told together."""

    __slots__ = ("cancels", "events", "facts", "is_empty", "is_greeting", "needs", "ready_runs")

    def __init__(self) -> None:
        self.events: dict[str, None] = {}
        """Runs with new events, in the order of their commits."""
        self.facts: dict[str, None] = {}
        """Runs of others with new facts."""
        self.needs: dict[Need, None] = {}
        """What queued tasks ask for."""
        self.cancels: dict[str, str] = {}
        """Task id → why it should stop."""
        self.ready_runs = False
        self.is_greeting = False
        """Whether others learn that this replica is there."""
        self.is_empty = True

    def add(self, batch: Batch) -> bool:
        """Take up what a batch has to tell; True if the lot has something to tell."""
        self.events.update(dict.fromkeys(batch.events))
        self.facts.update(dict.fromkeys(sorted(batch.facts_for_others)))
        self.needs.update(dict.fromkeys(need_of(*each) for each in sorted(batch.queued_tasks)))
        self.cancels.update((each["id"], each["reason"]) for each in batch.writes.task_cancels)
        self.ready_runs = self.ready_runs or batch.ready_runs
        self.is_empty = not (
            self.events or self.facts or self.needs or self.cancels or self.ready_runs
        )
        return not self.is_empty

    def payloads(self, sender: str) -> list[str]:
        """The lot as it is sent, in parts that are small enough for a notification.

        `e` runs with new events, `f` runs with new facts, `r` ready runs exist, `t` what queued
        tasks ask for, `c` tasks to be cancelled with their reasons, `h` the sender has begun to
        listen. Elsewhere: `o` of tasks that are in the queue again, `q` runs asked for in SQL.
        """
        hints: list[dict[str, Any]] = [{"s": sender}]
        if self.ready_runs:
            hints[0]["r"] = 1
        room = left = PAYLOAD_BYTES_MAX - len(_EMPTY) - len(sender)
        for key, value in self._values():
            size = len(json.dumps(value)) + 1
            if size > room:  # whoever it is for finds it by itself
                continue
            if size > left:
                hints.append({"s": sender})
                left = room
            left -= size
            if key == "c":
                task_id, reason = value
                hints[-1].setdefault(key, {})[task_id] = reason
            else:
                hints[-1].setdefault(key, []).append(value)
        if len(hints) > PAYLOADS_MAX:
            hints = [{"s": sender, "r": 1, **dict.fromkeys("eft", EVERYTHING)}]
        if self.is_greeting:
            hints[0]["h"] = 1
        return [json.dumps(hint, separators=(",", ":")) for hint in hints]

    def _values(self) -> Iterator[tuple[str, Any]]:
        yield from (("t", need) for need in self.needs)
        yield from (("f", run_id) for run_id in self.facts)
        yield from (("c", cancel) for cancel in self.cancels.items())
        yield from (("e", run_id) for run_id in self.events)

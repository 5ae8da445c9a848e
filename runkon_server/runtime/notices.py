"""Children's word to their parents: that one has ended, or waits for a gate, or no longer does.

A child's change commits first and leaves a mark on its row; the word to the parent and the end of
the mark are one later transaction. Who made the change sees to that at once; should it fail, a scan
of any replica finds the mark.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from runkon_server.core.bubbling import results_of
from runkon_server.core.facts import ChildBlocked, ChildEnded
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.entries import Entry
from runkon_server.runtime.setbacks import Setbacks
from runkon_server.store.database import is_passing
from runkon_server.store.locking import TERMINAL
from runkon_server.store.notices import find_unnotified, load_untold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.entries import Batch, FactRecorded
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.locking import LockedRun, Wants
    from runkon_server.store.notices import UntoldChild

log = structlog.get_logger(__name__)

READ_MAX: Final = 64
"""Children that are read together."""
PAUSE_S: Final = 0.5
"""After a read that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What a parent is told of a child, and how the child's row stood then."""

    child_run_id: str
    parent_run_id: str
    fact: ChildEnded | ChildBlocked
    epoch: int
    status: str
    last_seq: int

    def holds(self, child: LockedRun | None) -> bool:
        """Whether the child's row under lock still says so, and the parent does not know."""
        if child is None or child.parent_notified or child.epoch != self.epoch:
            return False
        if self.status in TERMINAL:
            return child.status == self.status
        if self.status == "waiting":  # other gates, other events
            return child.status == "waiting" and child.last_seq == self.last_seq
        return child.status not in TERMINAL and child.status != "waiting"

    def mark_told(self, child: LockedRun) -> None:
        """The parent is told in this transaction."""
        child.parent_notified = True
        child.changes["parent_notified"] = True
        child.changes.setdefault("lease", "keep")


def notice_of(child: UntoldChild, jitter: float) -> Notice:
    """The word that is due. `jitter` is drawn from 0…1."""
    fact: ChildEnded | ChildBlocked
    if child.status in TERMINAL:
        fact = ChildEnded(
            child_run_id=child.id,
            child_epoch=child.epoch,
            status=child.status,
            error=child.error,
            results=results_of(child.steps) if child.status == "completed" else None,
            metrics=child.metrics,
            jitter=jitter,
        )
    else:
        blocked_on = child.blocked_on if child.status == "waiting" else None
        fact = ChildBlocked(
            child_run_id=child.id,
            child_epoch=child.epoch,
            blocked_on=None if blocked_on is None else {"run_id": child.id, **blocked_on},
        )
    return Notice(
        child_run_id=child.id,
        parent_run_id=child.parent_run_id,
        fact=fact,
        epoch=child.epoch,
        status=child.status,
        last_seq=child.last_seq,
    )


class NoticeEntry(Entry):
    """Records the word for whoever owns the parent; a parent that is over counts as told."""

    __slots__ = ("_done", "_notice", "_recorded", "_then")

    def __init__(
        self,
        notice: Notice,
        then: Callable[[FactRecorded], None],
        done: Callable[[str, bool], None],
    ) -> None:
        super().__init__(notice.parent_run_id)
        self._notice = notice
        self._then = then
        self._done = done
        self._recorded: FactRecorded | None = None

    def want(self, wants: Wants) -> None:
        wants.runs |= {self.run_id, self._notice.child_run_id}

    def apply(self, batch: Batch) -> None:
        self._recorded = None
        child = batch.locked.runs.get(self._notice.child_run_id)
        if child is None or not self._notice.holds(child):
            return
        self._notice.mark_told(child)
        parent = batch.locked.runs.get(self.run_id)
        if parent is not None and not parent.is_terminal:
            self._recorded = batch.record_fact(parent, self._notice.fact)

    def committed(self, batch: Batch) -> None:
        failpoint("notice.recorded")
        child = batch.locked.runs.get(self._notice.child_run_id)
        if self._recorded is not None:
            self._then(self._recorded)
        self._done(self._notice.child_run_id, child is None or child.parent_notified)

    def failed(self, error: Exception) -> None:
        log.warning("notice.failed", run_id=self._notice.child_run_id, error=str(error))
        self._done(self._notice.child_run_id, True)  # the scan finds it again


class Notifier:
    """Tells parents of the children that changed here, and of those that a scan finds.

    Args:
        deliver: takes a notice to the parent, and calls `settled` about it sooner or later.
    """

    def __init__(
        self,
        ambient: Ambient,
        reads: AsyncEngine,
        deliver: Callable[[Notice], None],
        stats: EngineStats,
    ) -> None:
        self._ambient = ambient
        self._reads = reads
        self._deliver = deliver
        self._queue: dict[str, None] = {}
        self._away: set[str] = set()
        """Children whose notice is on its way."""
        self._again: set[str] = set()
        """Those among them that changed meanwhile."""
        self._stats = stats
        self._setbacks = Setbacks(ambient)
        self._unreadable: dict[str, float] = {}
        """Children that could not be read, with when the scan may tell of them again."""
        self._wanted = asyncio.Event()

    def tell(self, child_run_id: str) -> None:
        """A child changed in a way that its parent has to know."""
        if child_run_id in self._away:
            self._again.add(child_run_id)
            return
        self._queue[child_run_id] = None
        self._wanted.set()

    def settled(self, child_run_id: str, is_told: bool) -> None:  # noqa: FBT001 - a callback
        """A notice was committed, or turned out to be out of date."""
        self._away.discard(child_run_id)
        if not is_told or child_run_id in self._again:
            self._again.discard(child_run_id)
            self.tell(child_run_id)

    async def run(self) -> None:
        """Read what is queued and pass it on."""
        while True:
            await self._wanted.wait()
            # Who changes while it is read is queued again, and read again.
            ids = list(self._queue)[:READ_MAX]
            for run_id in ids:
                del self._queue[run_id]
            if not self._queue:
                self._wanted.clear()
            for child, notice in await self._read(ids):
                self._away.add(child)
                self._deliver(notice)

    async def _read(self, ids: Sequence[str]) -> list[tuple[str, Notice]]:
        """The word that is due of each; one that cannot be read is left to a later scan."""
        try:
            async with self._reads.connect() as conn:
                children = await load_untold(conn, ids)
            if children:
                await failpoint_async("notice.read")
            notices = [(child.id, notice_of(child, self._ambient.jitter())) for child in children]
        except Exception as error:
            # One child must not silence all the others.
            if is_passing(error):
                log.warning("notice.unread", error=str(error).strip())
                await self._ambient.sleep(PAUSE_S)
                for run_id in ids:
                    self.tell(run_id)
                return []
            if len(ids) > 1:
                parts = [await self._read([run_id]) for run_id in ids]
                return [notice for part in parts for notice in part]
            pause_s = self._setbacks.pause_s(ids[0])
            self._unreadable[ids[0]] = self._ambient.boottime_s() + pause_s
            self._stats.notices_unreadable += 1
            log.exception("notice.unreadable", run_id=ids[0], retry_in_s=round(pause_s, 1))
            return []
        for run_id in ids:
            self._setbacks.forget(run_id)
        return notices

    async def scan(self) -> int:
        """Look for children whose parents nobody told."""
        async with self._reads.connect() as conn:
            found = await find_unnotified(conn)
        now_s = self._ambient.boottime_s()
        self._unreadable = {each: at_s for each, at_s in self._unreadable.items() if at_s > now_s}
        for run_id in found:
            if run_id not in self._away and run_id not in self._unreadable:
                self.tell(run_id)
        return len(found)

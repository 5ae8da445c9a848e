"""Does what the schedule says, undoes it again, and writes down what came of it.

Never everybody at once: one replica and one worker stay whole, or there would be nothing to see.
What cannot be done at its time, because its victim is busy with another fault, is done to the next
one, or a little later, or else told as skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from runkon_server.store.embedded import EmbeddedPostgresError
from runkon_server.verify.chaos.deeds import DEEDS, TAKES_OWNER, On, Scene, SkippedError
from runkon_server.verify.chaos.schedule import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from runkon_server.verify.chaos.cluster import Cluster, Member
    from runkon_server.verify.chaos.observers import Observer
    from runkon_server.verify.chaos.schedule import PlannedFault

WAIT_S: Final = 6.0
"""How long a fault waits for a victim that is whole."""
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class DoneFault:
    """What became of a planned fault."""

    planned: PlannedFault
    victim: str
    began_mono_s: float
    ended_mono_s: float
    skipped: str = ""
    """Why it was not done; empty: it was."""

    def __str__(self) -> str:
        planned = self.planned
        what = f"{planned.at_s:7.2f} s  {planned.kind:<29} {self.victim:<10}"
        return f"{what} skipped: {self.skipped}" if self.skipped else what.rstrip()


class Nemesis:
    """Works through a schedule against a cluster.

    Args:
        tell: called with each fault once it is undone.
    """

    def __init__(
        self, cluster: Cluster, observer: Observer, tell: Callable[[DoneFault], None]
    ) -> None:
        self._cluster = cluster
        self._observer = observer
        self._tell = tell
        self._busy: set[str] = set()
        self.done: list[DoneFault] = []

    async def run(self, schedule: Sequence[PlannedFault]) -> None:
        """Do everything at its time and wait until all is undone."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(max(0.0, start + fault.at_s - time.monotonic()))
                group.create_task(self._inflict(fault))

    async def _inflict(self, fault: PlannedFault) -> None:
        began = time.monotonic()
        victim, skipped = "", ""
        on, do = DEEDS[fault.kind]
        try:
            async with self._victim(on, fault.target) as member:
                victim = "database" if member is None else member.process.name
                owner = None
                if member is not None and fault.kind in TAKES_OWNER:
                    owner = self._cluster.token_suffix(member)
                    self._observer.owner_is_gone(owner)
                await do(Scene(self._cluster, member, fault.lasts_s))
                if fault.kind is not Kind.KILL_REPLICA:
                    self._observer.owner_is_back(owner)
        except SkippedError as reason:
            skipped = str(reason)
        except (psycopg.Error, EmbeddedPostgresError, OSError) as reason:
            skipped = f"the database was away: {str(reason).strip()}"
        self.done.append(DoneFault(fault, victim, began, time.monotonic(), skipped))
        self._tell(self.done[-1])

    @contextlib.asynccontextmanager
    async def _victim(self, on: On, target: int) -> AsyncIterator[Member | None]:
        """Whom a fault is done to, kept from other faults meanwhile; None: the database.

        Raises:
            SkippedError: too much was broken already, for all of `WAIT_S`.
        """
        deadline = time.monotonic() + WAIT_S
        while (free := self._free(on)) is None:
            if time.monotonic() > deadline:
                raise SkippedError("all the others were broken already")
            await asyncio.sleep(LOOK_S)
        chosen = free[target % len(free)] if free else None
        name = "database" if chosen is None else chosen.process.name
        self._busy.add(name)
        try:
            yield chosen
        finally:
            self._busy.discard(name)

    def _free(self, on: On) -> Sequence[Member] | None:
        """Who can be harmed now: empty, the database; None, nobody."""
        if on is On.DATABASE:
            return None if "database" in self._busy else ()
        members = {
            On.REPLICA: self._cluster.replicas,
            On.WORKER: self._cluster.workers[:-1],  # the rogue does harm of its own accord
            On.CALLER: self._cluster.callers,
        }[on]
        free = [each for each in members if each.process.name not in self._busy]
        return free if len(free) > 1 else None

"""The whole of it: start everything, break things, heal, wait, gather, judge.

Phases: the load comes up → the nemesis at work → healed, and one replica killed in the calm, to see
how long a takeover takes → nothing new is started and everything has to come to rest → verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runkon_server.store import migrations
from runkon_server.verify.chaos import archives
from runkon_server.verify.chaos.archives import RigRecord
from runkon_server.verify.chaos.cluster import Cluster, Size
from runkon_server.verify.chaos.databases import takes_plain
from runkon_server.verify.chaos.diagnosis import diagnose
from runkon_server.verify.chaos.figures import Floors
from runkon_server.verify.chaos.nemesis import Nemesis
from runkon_server.verify.chaos.observers import Observer, clock_offset_s, progress
from runkon_server.verify.chaos.programs import make_book
from runkon_server.verify.chaos.schedule import (
    OF_POSTGRES,
    ON_THE_WIRE,
    Kind,
    dump_schedule,
    make_schedule,
)
from runkon_server.verify.evidence import Fault, Limits
from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.verify.chaos.archives import Verdict
    from runkon_server.verify.chaos.databases import Database
    from runkon_server.verify.chaos.nemesis import DoneFault
    from runkon_server.verify.chaos.schedule import PlannedFault

STUCK_TTLS: Final = 3
CALM_TTLS: Final = 2.5
"""Until the last late report of the rogue has come."""
TAKEOVER_TTLS: Final = 1.5
LONGEST_STEP_S: Final = 1.5
"""A gate that nobody answers; everything else takes less, once nobody breaks the rules."""
LOOK_S: Final = 0.2
LOAD_S: Final = 60.0
LOADED_RUNS: Final = 8
FAREWELL_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """What to do."""

    seconds: float
    seed: int
    lease_ttl_s: float = 3.0
    size: Size = field(default_factory=Size)
    schedule: tuple[PlannedFault, ...] | None = None
    """None: made from the seed."""
    kinds: frozenset[Kind] = frozenset(Kind)
    floors: Floors = field(default_factory=Floors)
    is_brief: bool = False
    """Kill no replica in the calm, and judge as soon as everything is at rest."""


class SoakRun:
    """One execution of a soak.

    Args:
        say: told each line of what happens.
    """

    def __init__(self, soak: Soak, database: Database, say: Callable[[str], None]) -> None:
        self._soak = soak
        self._database = database
        self._say = say
        self.folder = Path(tempfile.mkdtemp(prefix="runkon-soak-"))
        self._book = make_book(soak.seed)
        self._observer = Observer(lambda: database.url)
        self._found: list[Violation] = []
        """What the rig saw itself."""
        self._calm: list[Fault] = []
        self._is_plain = False
        self._notifications_lost = 0

    async def run(self) -> Verdict:
        """Do it all; leaves an archive in `folder`, and neither processes nor data.

        Raises:
            NotEmptyError: the database that was lent holds something.
            NotReadyError: a replica does not come up.
        """
        await self._database.start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                cluster = await self._start(stack)
                observing = asyncio.create_task(self._observer.run())
                stack.callback(observing.cancel)
                faults = await self._break_things(cluster)
                healed_mono_s = await self._calm_down(cluster)
                await self._come_to_rest(cluster, healed_mono_s)
                await self._part(cluster)
                return await self._judge(faults, healed_mono_s)
        finally:
            await self._database.stop()

    async def _start(self, stack: contextlib.AsyncExitStack) -> Cluster:
        await asyncio.to_thread(migrations.upgrade, self._database.url)
        self._is_plain = await takes_plain(self._database.url)
        cluster = Cluster(
            self._database,
            self.folder,
            self._soak.size,
            lease_ttl_s=self._soak.lease_ttl_s,
            seed=self._soak.seed,
            is_plain=self._is_plain,
        )
        stack.callback(cluster.kill)
        self.folder.joinpath(archives.PROGRAMS).write_text(
            json.dumps(self._book.for_callers(), indent=1), encoding="utf-8"
        )
        await cluster.start_replicas()
        await cluster.start_workers()
        await cluster.start_callers()
        await self._await_load()
        self._say(f"the service is up; logs in {self.folder}")
        return cluster

    async def _await_load(self) -> None:
        """Wait for the first runs: what is broken before there is anything proves nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_S):
                while (  # noqa: ASYNC110 - the database rings no bell
                    await progress(self._database.url)
                ).runs < LOADED_RUNS:
                    await asyncio.sleep(LOOK_S)

    async def _break_things(self, cluster: Cluster) -> Sequence[DoneFault]:
        schedule = self._plan()
        for planned in schedule:
            self._say(f"planned {planned}")
        self.folder.joinpath(archives.SCHEDULE).write_text(
            dump_schedule(schedule), encoding="utf-8"
        )
        nemesis = Nemesis(cluster, self._observer, lambda done: self._say(f"done    {done}"))
        start = time.monotonic()
        await nemesis.run(schedule)
        await asyncio.sleep(max(0.0, start + self._soak.seconds - time.monotonic()))
        return nemesis.done

    def _plan(self) -> tuple[PlannedFault, ...]:
        return self._soak.schedule or make_schedule(
            self._soak.seed, self._soak.seconds, self.kinds, lease_ttl_s=self._soak.lease_ttl_s
        )

    @property
    def kinds(self) -> frozenset[Kind]:
        """The faults that can be done to this database."""
        kinds = self._soak.kinds
        kinds -= frozenset() if self._database.is_own else OF_POSTGRES
        return kinds - (frozenset() if self._is_plain else ON_THE_WIRE)

    async def _calm_down(self, cluster: Cluster) -> float:
        """End all faults, and kill one replica while everything else is well; when that was over.

        Faults from before must not be what is measured: reports that came late on purpose are
        waited for first.
        """
        cluster.heal()
        cluster.workers[-1].process.order("quiet")
        await cluster.await_replicas()
        self._say("healed")
        if self._soak.is_brief:
            return time.monotonic()
        ttl_s = self._soak.lease_ttl_s
        await asyncio.sleep(CALM_TTLS * ttl_s)
        victim = max(
            cluster.replicas, key=lambda each: self._observer.owned_by(cluster.token_suffix(each))
        )
        token = self._observer.owner_is_gone(cluster.token_suffix(victim))
        offset_s = await clock_offset_s(self._database.url)
        killed_at = time.monotonic() + offset_s
        victim.process.kill()
        self._calm.append(Fault(kind="kill", at=killed_at, owner_token=token))
        self._say("killed a replica in the calm")
        await asyncio.sleep(TAKEOVER_TTLS * ttl_s + LOOK_S)
        victim.process.start()
        await cluster.await_replicas()
        return time.monotonic()

    async def _come_to_rest(self, cluster: Cluster, healed_mono_s: float) -> None:
        """Start nothing new and wait until everything has ended, or nothing moves any more."""
        cluster.order("quiet")
        patience_s = STUCK_TTLS * self._soak.lease_ttl_s
        seen, moved_s = -1, time.monotonic()
        while True:
            now = await progress(self._database.url)
            if now.events != seen:
                seen, moved_s = now.events, time.monotonic()
            if now.live == 0:
                break
            if time.monotonic() > moved_s + patience_s + LONGEST_STEP_S:
                path = await diagnose(cluster, self.folder)
                self._say(f"STUCK: {now.live} runs do not move; see {path}")
                what = f"{now.live} runs did not move for {time.monotonic() - moved_s:.1f} s"
                self._found.append(Violation(invariant="L1", what=what))
                break
            await asyncio.sleep(LOOK_S)
        self._say(f"all at rest after {time.monotonic() - healed_mono_s:.1f} s")
        if not self._soak.is_brief:
            due_s = healed_mono_s + patience_s + LONGEST_STEP_S + LOOK_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _part(self, cluster: Cluster) -> None:
        """Let callers make their last calls, then end everything in good order."""
        cluster.order("finish")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                while any(  # noqa: ASYNC110 - processes ring no bell
                    caller.process.is_alive for caller in cluster.callers
                ):
                    await asyncio.sleep(LOOK_S)
        self._notifications_lost = sum(
            replica.proxy.notifications_lost for replica in cluster.replicas
        )
        for name, code in (await cluster.stop()).items():
            if code != 0:
                what = f"{name} ended with {'kill -9, by us' if code is None else f'code {code}'}"
                self._found.append(Violation(invariant="L8", what=what))

    async def _judge(self, faults: Sequence[DoneFault], healed_mono_s: float) -> Verdict:
        offset_s = await clock_offset_s(self._database.url)
        evidence = await asyncio.to_thread(archives.gather, self._database.url, self.folder)
        evidence = replace(
            evidence,
            ownership=self._observer.ownership,
            faults=self._calm,
            limits=Limits(lease_ttl_s=self._soak.lease_ttl_s, longest_step_s=LONGEST_STEP_S),
            healed_at=healed_mono_s + offset_s,
            healed_mono_s=healed_mono_s,
        )
        record = RigRecord(
            seed=self._soak.seed,
            seconds=self._soak.seconds,
            kinds=sorted(self.kinds) if self._soak.schedule is None else (),
            floors=self._soak.floors,
            faults=faults,
            worst_takeover_s=self._observer.worst_takeover_s,
            takeovers=self._observer.takeovers,
            notifications_lost=self._notifications_lost,
            found=self._found,
        )
        await asyncio.to_thread(archives.write, self.folder, evidence, record)
        return await asyncio.to_thread(archives.judge, self.folder)

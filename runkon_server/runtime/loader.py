"""Bringing the runs that this replica has claimed into memory, and setting aside what it cannot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from runkon_server.core.engine import restore, waits_only_for_gates
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.actors import Actor, Offer
from runkon_server.runtime.budgets import INFRA_ATTEMPTS_MAX, poisonous
from runkon_server.runtime.setbacks import Setbacks
from runkon_server.store import claims
from runkon_server.store.database import is_passing
from runkon_server.store.loading import load_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.committer import Committer
    from runkon_server.runtime.programs import Program
    from runkon_server.runtime.registry import Registry
    from runkon_server.runtime.settings import EngineConfig
    from runkon_server.runtime.tenure import Tenure
    from runkon_server.store.loading import LoadedRun

log = structlog.get_logger(__name__)

LOADS_AT_ONCE = 2  # fewer than connections for reads: others need them as well


class Loader:
    """The way of claimed runs from the database into the registry."""

    def __init__(
        self,
        registry: Registry,
        config: EngineConfig,
        ambient: Ambient,
        committer: Committer,
        tenure: Tenure,
    ) -> None:
        self._registry = registry
        self._config = config
        self._ambient = ambient
        self._committer = committer
        self._tenure = tenure
        self._reads = registry.reads
        self._loading: dict[str, list[Offer]] = {}
        self._setbacks = Setbacks(ambient)
        self._load_slots = asyncio.Semaphore(LOADS_AT_ONCE)

    @property
    def awaited(self) -> int:
        """How many runs are on their way into memory."""
        return len(self._loading)

    def offer(self, run_id: str, offer: Offer) -> None:
        """Keep what came for a run on its way, until it is there; of others it is nothing."""
        if run_id in self._loading:
            self._loading[run_id].append(offer)

    async def room_to_load(self) -> None:
        """Return when runs need not wait here, losing their leases, for connection or commit."""
        while self._committer.is_behind:
            await self._registry.pause()
        async with self._load_slots:
            return

    def expect(self, run_ids: Sequence[str]) -> list[str]:
        """Note runs as on their way, forgetting what is in memory; returns those not noted yet."""
        fresh = [run_id for run_id in run_ids if run_id not in self._loading]
        for run_id in fresh:
            self._registry.forget(run_id)
            self._loading[run_id] = []
        return fresh

    async def load(self, run_ids: Sequence[str]) -> None:
        """Read them and take them up; returns when each is in memory or set aside."""
        try:
            async with self._load_slots:
                for run_id, run in (await self._read(run_ids)).items():
                    await self._load_one(run_id, run)
        finally:
            for run_id in run_ids:
                self._loading.pop(run_id, None)

    async def _read(self, run_ids: Sequence[str]) -> dict[str, LoadedRun]:
        """The rows of runs; those that cannot be read are set aside."""
        while True:
            try:
                async with self._reads.connect() as conn:
                    loaded = await load_runs(conn, run_ids)
                await failpoint_async("runs.loaded")
            except Exception as error:  # noqa: BLE001 - told in the log by `set_aside`
                if is_passing(error):
                    await self._registry.pause()
                    continue
                if len(run_ids) == 1:
                    await self.set_aside(run_ids[0], error)
                    return {}
                # One of them holds something that nobody here understands.
                parts = [await self._read([run_id]) for run_id in run_ids]
                return {run_id: run for part in parts for run_id, run in part.items()}
            else:
                return loaded

    async def _load_one(self, run_id: str, run: LoadedRun) -> None:
        """Take one up; that it cannot be read must not keep the others from being loaded."""
        while True:
            try:
                info = run.info
                programs = self._registry.programs
                program = await programs.load(self._reads, info.namespace, info.content_hash)
                self._revive(run_id, run, program)
            except Exception as error:  # noqa: BLE001 - as above
                if is_passing(error):
                    await self._registry.pause()
                    continue
                await self.set_aside(run_id, error)
            else:
                self._setbacks.forget(run_id)
            return

    async def set_aside(self, run_id: str, error: Exception) -> None:
        """Give up a run that this replica cannot read, for a while that grows.

        Another replica may be able to: one of a newer release, say, that wrote what is not known
        here. If none is, the log of each says why the run stands still.
        """
        self._registry.forget(run_id)
        pause_s = self._setbacks.pause_s(run_id)
        self._registry.stats.runs_set_aside += 1
        log.error("run.set_aside", run_id=run_id, retry_in_s=round(pause_s, 1), exc_info=error)
        await self.let_go(run_id, pause_s)

    async def let_go(self, run_id: str, pause_s: float) -> None:
        """Give up the lease of a run that is not in memory, for some seconds: no mark against it.

        If the database does not let us, the lease runs out.
        """
        try:
            async with self._reads.connect() as conn:
                token = self._tenure.token
                await claims.set_aside(conn, run_id=run_id, token=token, pause_s=pause_s)
        except Exception as failure:
            if not is_passing(failure):
                raise
            log.warning("run.not_set_aside", run_id=run_id, error=str(failure).strip())

    def _revive(self, run_id: str, run: LoadedRun, program: Program) -> None:
        if run.info.owner_token != self._tenure.token:
            return
        state = restore(program.plan, run.rows)
        actor = Actor(self._registry, run_id, run.info, run.info.generation, state, program)
        actor.timeline = run.timeline
        actor.started_at.update(run.started_at)
        self._registry.adopt(actor)
        failpoint("run.revived")
        for timer in run.timers:
            self._registry.arm(actor, timer.timer_id, timer.kind, timer.due_in_s)
        actor.pending += [Offer(each.fact, fact_seq=each.fact_seq) for each in run.facts]
        actor.pending += self._loading.get(run_id, ())
        if run.info.infra_attempts > INFRA_ATTEMPTS_MAX:
            actor.limit = poisonous(state.setup.epoch, run.info.infra_attempts)
            log.error("run.poisonous", run_id=run_id, attempts=run.info.infra_attempts)
        actor.move()
        if actor.limit is not None and not actor.is_committing:
            actor.submit(actor.decide([]))
        is_due = any(timer.due_in_s < self._config.linger_s for timer in run.timers)
        if waits_only_for_gates(actor.state) and not is_due:
            # Nothing to wait for in memory, for example a fact that was applied twice over.
            actor.park_if_idle()

"""Replicas: the real engine on a loop of its own, wired to the model instead of PostgreSQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from runkon_server.runtime.ambient import encode_ulid
from runkon_server.runtime.arrivals import Arrivals
from runkon_server.runtime.claimer import Claimer
from runkon_server.runtime.committer import Committer
from runkon_server.runtime.dispatcher import Dispatcher
from runkon_server.runtime.engine import Engine
from runkon_server.runtime.hints import Hints
from runkon_server.runtime.lessor import GUARD_SHARE
from runkon_server.runtime.listener import Listener
from runkon_server.runtime.presence import Presence
from runkon_server.runtime.progress import ProgressFilter
from runkon_server.runtime.registry import Registry
from runkon_server.runtime.resuming import ResumeEntry
from runkon_server.runtime.scanner import Scanner
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.tenure import Tenure
from runkon_server.store import claims
from support.sim_connections import Reads, Session, fate_of
from support.sim_loops import TurnedLoop
from support.sim_reads import renew

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.core.engine import ResumeMode
    from runkon_server.runtime.commands import WorkerHello
    from runkon_server.runtime.entries import Batch
    from runkon_server.store.fates import Fate
    from runkon_server.store.locking import Locked
    from runkon_server.store.pipeline import Pipeline
    from support.sim_connections import Faults
    from support.sim_tables import Tables

LEASE_TTL_S: Final = 3.0
TASK_LEASE_S: Final = 4.0
IDLE_IN_TX_S: Final = LEASE_TTL_S / 3
NAMESPACE: Final = "default"
CONFIG: Final = EngineConfig(
    dsn="",
    lease_ttl_s=LEASE_TTL_S,
    lease_refresh_s=LEASE_TTL_S / 3,
    task_lease_s=TASK_LEASE_S,
    linger_s=0.4,
    scan_s=0.2,
    poll_s=0.5,
    deliveries_max=4,
)
AnswerT = TypeVar("AnswerT")


class Numbers:
    """Ids and chance of a whole world, all of them from one counter."""

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int:
        """The next number."""
        self._next += 1
        return self._next


class SimAmbient:
    """The world as one replica sees it."""

    def __init__(self, loop: TurnedLoop, numbers: Numbers) -> None:
        self._loop = loop
        self._numbers = numbers

    def boottime_s(self) -> float:
        """By the replica's clock, which may be far from the database's."""
        return self._loop.time()

    def ulid(self) -> str:
        """The next one of this world."""
        return encode_ulid(1_700_000_000_000, self._numbers.take())

    def token(self) -> str:
        """The next one of this world."""
        return f"token-{self._numbers.take()}"

    def jitter(self) -> float:
        """Different each time, the same in each repetition."""
        return (self._numbers.take() * 0.618034) % 1.0

    async def sleep(self, seconds: float) -> None:
        """By the replica's clock."""
        future = self._loop.create_future()
        if seconds <= 0:
            self._loop.call_soon(_finish, future)
        else:
            self._loop.call_later(seconds, _finish, future)
        await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class SimEngine(Engine):
    """The engine with its parts wired to the model; leases are renewed by `renew_leases`."""

    def __init__(self, tables: Tables, faults: Faults, loop: TurnedLoop, numbers: Numbers) -> None:
        super().__init__(CONFIG, SimAmbient(loop, numbers))
        self._tables = tables
        self._faults = faults
        self._loop_of_replica = loop
        self.sessions: list[Session] = []
        self._good_until_s = 0.0

    async def start(self) -> None:
        """Wire everything, and begin to take runs."""
        config, ambient, stats = self.config, self.ambient, self.stats
        self.reads = cast("AsyncEngine", Reads(self._tables, self._faults))
        stats.peers = 1
        self._failed = self._loop_of_replica.create_future()
        self.tenure = Tenure(ambient.ulid, ended=self._stand_down)
        self.tenure.held(self.tenure.token)
        self._listener = Listener(
            config, ambient, self._start_id, self.tenure, stats,
            heard=self._heard, entered=self._entered,
        )  # fmt: skip
        self._hints = SimHints(self._connect, config, ambient, self._start_id, stats)
        self._committer = SimCommitter(
            self._connect, partial(fate_of, self._tables, self._faults), config, ambient,
            self.tenure, stats, after_commit=self._after_commit, hint=self._hints.behind,
            hinted=self._hints.answered,
        )  # fmt: skip
        self._dispatcher = Dispatcher(config, ambient, self.reads, stats)
        self._registry = Registry(
            config, ambient, self._committer, self.tenure, self._dispatcher, self.reads, stats
        )
        self._presence = Presence(config, ambient, self._start_id, self.replica_id)
        self._scanner = Scanner(
            config, ambient, self.tenure, self.reads, self._registry, self._dispatcher, stats
        )
        self._scanner.gone = lambda: self._tables.gone
        self._arrivals = Arrivals(config, ambient, self.reads, self._dispatcher, stats)
        self._dispatcher.report = self._registry.report
        self._dispatcher.progress = ProgressFilter(ambient, self._registry.submit).take
        self._dispatcher.claimer = SimClaimer(self._connect, config)
        self._dispatcher.unreached = self._scanner.look_for_tasks
        self._dispatcher.may_push = self._may_push
        self._dispatcher.program = partial(self._registry.programs.load, self.reads)
        self._lanes = [self._spawn(self._committer.run_lane()) for _ in range(config.lanes)]
        self._tasks = [
            self._spawn(work)
            for work in (
                self._renew_leases(),
                self._hints.run(),
                self._scanner.run_runs(),
                self._scanner.run_tasks(),
                self._scanner.run_idle(),
                self._scanner.run_facts(),
                self._registry.notifier.run(),
                self._arrivals.run(),
                self._dispatcher.run_claims(),
                self._dispatcher.run_polls(),
                self._dispatcher.run_heartbeats(),
            )
        ]
        self.is_started = True

    def failure(self) -> BaseException | None:
        """What ended one of its loops; None: they all run."""
        assert self._failed is not None
        return self._failed.exception() if self._failed.done() else None

    async def hand_over(self) -> None:
        """What SIGTERM does: commit what is queued, then give every run to the others."""
        self.is_draining = self._scanner.is_draining = self._registry.is_draining = True
        self._dispatcher.drain()
        self._committer.close()
        for lane in self._lanes:
            await lane
        self._registry.stop()
        await self._dispatcher.give_back()
        async with self.reads.connect() as conn:
            await claims.hand_over(conn, token=self.tenure.token)
        for payload in self._hints.farewell():
            self._faults.notify(payload)

    async def resume(self, run_id: str, mode: ResumeMode, step_id: str | None) -> None:
        """Take an ended run up again, if nothing comes in between."""
        resumption = await self._registry.prepare_resume(run_id, mode, step_id, "ann")
        command = _Resume(run_id)
        entry = ResumeEntry(cast("Any", command), None, resumption, None)
        self._committer.submit(entry)
        await entry.future

    async def _connect(self) -> Pipeline:
        self._faults.require_database()
        session = Session(self._tables, self._faults)
        self.sessions.append(session)
        return cast("Pipeline", session)

    def _may_push(self) -> bool:
        return self._loop_of_replica.time() < self._good_until_s

    async def _renew_leases(self) -> None:
        """What the lessor does in a thread of its own."""
        while True:
            before_s = self._loop_of_replica.time()
            if not self._faults.is_away:
                held = dict(self._registry.generations())
                kept = renew(self._tables, self.tenure.token, self.config.lease_ttl_s, held)
                self._good_until_s = before_s + self.config.lease_ttl_s * GUARD_SHARE
                if lost := {run_id: held[run_id] for run_id in held if run_id not in kept}:
                    self._registry.lost(lost)
            await self.ambient.sleep(self.config.lease_refresh_s)


class _Resume:
    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.namespace = NAMESPACE
        self.request_id = None


class SimCommitter(Committer):
    """The committer with sessions of the model."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Pipeline]],
        ask: Callable[[str, tuple[str, int] | None], Fate],
        *rest: Any,
        **more: Any,
    ) -> None:
        super().__init__(*rest, **more)
        self._connect_to_model = connect
        self._ask_model = ask

    async def _open(self) -> Pipeline:
        return await self._connect_to_model()

    async def _ask_fate(self, locked: Locked, witness: tuple[str, int] | None) -> Fate:
        await self._ambient.sleep(0)
        return self._ask_model(locked.xid, witness)


class SimHints(Hints):
    """Hints by way of a session of the model."""

    def __init__(self, connect: Callable[[], Awaitable[Pipeline]], *rest: Any) -> None:
        super().__init__(*rest)
        self._connect_to_model = connect

    async def _open(self) -> Pipeline:
        return await self._connect_to_model()


class SimClaimer(Claimer):
    """Claims by way of a session of the model."""

    def __init__(self, connect: Callable[[], Awaitable[Pipeline]], config: EngineConfig) -> None:
        super().__init__(config)
        self._connect_to_model = connect

    async def _open(self) -> Pipeline:
        return await self._connect_to_model()


class Replica:
    """One process: it turns, is frozen, crashes or is terminated.

    Args:
        skew_s: how far its clock is ahead of the database's.
        rate: how fast it runs.
    """

    def __init__(
        self,
        number: int,
        tables: Tables,
        faults: Faults,
        numbers: Numbers,
        *,
        skew_s: float,
        rate: float,
    ) -> None:
        self.name = f"r{number}"
        self.is_frozen = False
        self.is_gone = False
        self._tables = tables
        self.loop = TurnedLoop(lambda: tables.elapsed_s * rate + skew_s)
        self.engine = SimEngine(tables, faults, self.loop, numbers)
        self._work: set[asyncio.Task[Any]] = set()
        self.call(self.engine.start())
        self.turn(3)

    @property
    def is_running(self) -> bool:
        """Whether it does anything."""
        return not (self.is_frozen or self.is_gone)

    def turn(self, times: int = 1) -> None:
        """Let it go on for so many turns of its loop."""
        if self.is_running:
            self.loop.turn(times)

    def call(
        self,
        work: Coroutine[Any, Any, AnswerT],
        then: Callable[[asyncio.Task[AnswerT]], None] | None = None,
    ) -> None:
        """Have it do something; `then` is told of the end, unless the replica ends before."""
        task = self.loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        if then is not None:
            task.add_done_callback(then)

    def hear(self, hint: dict[str, Any]) -> None:
        """A notification arrives."""
        if not self.is_gone:
            self.loop.call_soon(self.engine._heard, hint)

    def open_session(self, hello: WorkerHello, notify: Callable[[], None]) -> Any:
        """Connect a worker."""
        session = self.engine._dispatcher.open(hello, notify)
        if hello.in_hand is not None:
            self.engine._arrivals.add(session)
        return session

    def on_commit(self, listener: Callable[[Batch], None]) -> None:
        """Tell of each durable batch, as the streams of this replica are told."""
        after = self.engine._committer._after_commit

        def both(batch: Batch) -> None:
            after(batch)
            listener(batch)

        self.engine._committer._after_commit = both

    def crash(self) -> None:
        """End at once; the database notices that its sessions have gone."""
        self.is_gone = True
        self._tables.gone.add(self.engine.tenure.token)
        for session in self.engine.sessions:
            if session._tx is not None:
                self._tables.roll_back(session._tx)
                session._tx = None
        self.loop.abandon()

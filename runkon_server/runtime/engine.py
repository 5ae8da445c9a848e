"""One replica of the engine: its parts, wired; what `api` calls and nothing else.

Started inside a running event loop and bound to it. All loops live in one task group: one that
fails ends the replica with the reason, it never goes on half alive.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from runkon_server import errors
from runkon_server.failpoints import failpoint, failpoint_async
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.arrivals import Arrivals
from runkon_server.runtime.attendance import Attendance
from runkon_server.runtime.builtin import BuiltinWorker, echo, sleeper
from runkon_server.runtime.cancels import CancelEntry
from runkon_server.runtime.commands import (
    CancelRun,
    ConflictPolicy,
    HeartbeatAnswer,
    ReportAck,
)
from runkon_server.runtime.committer import Committer
from runkon_server.runtime.dispatcher import Dispatcher
from runkon_server.runtime.gates import GateVoteEntry
from runkon_server.runtime.hints import EVERYTHING, Hints, needs_in
from runkon_server.runtime.lessor import Lessor
from runkon_server.runtime.listener import Listener
from runkon_server.runtime.presence import Presence
from runkon_server.runtime.progress import ProgressFilter
from runkon_server.runtime.providers import PROVIDED, ItemProviders
from runkon_server.runtime.pull_requests import PullRequestEntry
from runkon_server.runtime.registry import Registry
from runkon_server.runtime.resuming import Resumer
from runkon_server.runtime.scanner import Scanner
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.starting import StartEntry
from runkon_server.runtime.stats import EngineStats
from runkon_server.runtime.sweeper import Sweeper
from runkon_server.runtime.tenure import Tenure
from runkon_server.store import claims
from runkon_server.store.database import close_reads, create_reads, is_connection_loss
from runkon_server.store.hints import send_last_hints
from runkon_server.store.locking import NewRequest, run_of
from runkon_server.store.lookups import find_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.builtin import Action
    from runkon_server.runtime.commands import (
        EventRecord,
        GateResolved,
        PullRequestReported,
        ReportPullRequest,
        ResolveGate,
        ResumeRun,
        RunCancelled,
        RunResumed,
        RunStarted,
        StartRun,
        TaskHeartbeat,
        TaskLease,
        TaskReport,
        Verdict,
        WorkerHello,
    )
    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.sessions import WorkerSession
    from runkon_server.store.timelines import History

    EventListener = Callable[[str, Sequence[EventRecord] | None], None]

__all__ = ["Engine", "EngineConfig", "EngineStats"]

log = structlog.get_logger(__name__)

TAKING_BACK_S: Final = 5.0
"""How long a poll waits at least until what its worker lacks was taken back."""
LOCK_S: Final = 5.0
"""How long a start waits for the listener's session."""


class Engine:
    """A replica. `start` before anything else; `stop` hands everything over.

    Args:
        builtin: actions served inside the process, by namespace; `echo` and `sleep` of the
            namespace `default` are always there.
    """

    def __init__(
        self,
        config: EngineConfig,
        ambient: Ambient | None = None,
        *,
        builtin: Mapping[str, Mapping[str, Action]] | None = None,
    ) -> None:
        self.config = config
        self.ambient = ambient or SystemAmbient()
        self._start_id = self.ambient.ulid()
        self.replica_id = self._start_id[-6:].lower()
        self.stats = EngineStats()
        self._builtin_actions = {
            "default": {"echo": echo, "sleep": sleeper(self.ambient)},
            **(builtin or {}),
        }
        self._builtin: list[BuiltinWorker] = []
        self._event_listeners: list[EventListener] = []
        self._drain_listeners: list[Callable[[], None]] = []
        self._start_listeners: list[Callable[[], None]] = []
        self._rewrite_listeners: list[Callable[[], None]] = []
        self._history: History | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self.is_draining = False
        self.is_started = False

    # -- lifecycle -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and begin to take runs.

        Raises:
            DatabaseUnavailableError: PostgreSQL does not answer now.
        """
        loop = asyncio.get_running_loop()
        config, ambient, start_id, stats = self.config, self.ambient, self._start_id, self.stats
        self.reads: AsyncEngine = create_reads(
            config.dsn, config.lease_ttl_s, config.read_connections, is_pooled=config.is_pooled
        )
        await self._require_database()
        self._failed = loop.create_future()
        self.tenure = Tenure(ambient.ulid, ended=self._stand_down)
        self._listener = Listener(
            config, ambient, start_id, self.tenure, stats,
            heard=self._heard, entered=self._entered,
        )  # fmt: skip
        self._hints = Hints(config, ambient, start_id, stats)
        self._committer = Committer(
            config, ambient, self.tenure, stats, after_commit=self._after_commit
        )
        self._dispatcher = Dispatcher(config, ambient, self.reads, stats)
        self._registry = Registry(
            config, ambient, self._committer, self.tenure, self._dispatcher, self.reads, stats
        )
        self._presence = Presence(config, ambient, start_id, self.replica_id)
        self._scanner = Scanner(
            config, ambient, self.tenure, self.reads, self._registry, self._dispatcher, stats
        )
        self._scanner.gone = lambda: self._listener.gone
        self._attendance = Attendance(config, ambient, self.tenure, start_id, self.replica_id)
        self._scanner.publishers = (self._presence.publish, self._attendance.publish)
        self._arrivals = Arrivals(config, ambient, self.reads, self._dispatcher, stats)
        self._dispatcher.removed = self._presence.closed
        self._lessor = Lessor(
            config, ambient, self.tenure,
            held=self._registry.generations, lost=self._registry.lost,
        )  # fmt: skip
        self._dispatcher.report = self._registry.report
        self._dispatcher.progress = ProgressFilter(ambient, self._registry.submit).take
        self._dispatcher.unreached = self._scanner.look_for_tasks
        self._dispatcher.may_push = lambda: self._lessor.guard.is_good
        self._dispatcher.program = partial(self._registry.programs.load, self.reads)
        self._lessor.start()
        self._lanes = [self._spawn(self._committer.run_lane()) for _ in range(config.lanes)]
        self._tasks = [
            self._spawn(work)
            for work in (
                self._listener.run(),
                self._hints.run(),
                self._scanner.run_runs(),
                self._scanner.run_tasks(),
                self._scanner.run_idle(),
                self._scanner.run_facts(),
                self._scanner.run_partitions(),
                self._registry.notifier.run(),
                Sweeper(config, ambient, self.reads, stats).run(),
                self._arrivals.run(),
                self._dispatcher.run_claims(),
                self._dispatcher.run_polls(),
                self._dispatcher.run_heartbeats(),
            )
        ]
        self._start_builtin()
        self.is_started = True
        await self._require_lock()
        log.info("replica.started", replica=self.replica_id)

    def _stand_down(self) -> None:
        self._registry.lose_all()
        # The others take tasks back from the server's own workers of a token that is gone.
        for worker in self._builtin:
            worker.rename(self.tenure.token)
        self._providers.rename(self.tenure.token)

    async def _require_database(self) -> None:
        try:
            async with self.reads.connect() as conn:
                await conn.exec_driver_sql("SELECT 1")
        except BaseException as error:  # a start that is cancelled leaves nothing open either
            await close_reads(self.reads)
            if isinstance(error, Exception) and is_connection_loss(error):
                raise errors.DatabaseUnavailableError from error
            raise

    async def _require_lock(self) -> None:
        """Runs may be taken once the others can see that we live."""
        try:
            async with asyncio.timeout(LOCK_S):
                await self.tenure.wait_held()
        except TimeoutError as error:
            await self.stop()
            raise errors.DatabaseUnavailableError from error

    def _start_builtin(self) -> None:
        for namespace, actions in self._builtin_actions.items():
            worker = BuiltinWorker(
                self._dispatcher,
                self.ambient,
                self.tenure.token,
                namespace,
                actions,
                beat_s=self.config.task_lease_s / 3,
            )
            self._builtin.append(worker)
            worker.start()
        self._providers = ItemProviders(self._dispatcher, self.tenure.token, self.reads)
        self._providers.start()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Drain: end streams, commit what is queued, hand every run to the other replicas."""
        if not self.is_started or self.is_draining:
            return
        self.is_draining = self._scanner.is_draining = self._registry.is_draining = True
        failpoint("drain.begun")
        self._dispatcher.drain()
        self._attendance.drain()
        self._scanner.look_for_tasks()
        for listener in list(self._drain_listeners):
            listener()
        for worker in self._builtin:
            worker.stop()
        self._providers.stop()
        self._committer.close()
        _, late = await asyncio.wait(self._lanes, timeout=grace_s)
        self._registry.stop()
        for task in [*late, *self._tasks]:
            task.cancel()
        await asyncio.gather(*self._lanes, *self._tasks, return_exceptions=True)
        self._committer.give_up()
        self.tenure.stop()
        with contextlib.suppress(Exception):  # the leases run out by themselves
            await self._dispatcher.give_back()
            async with self.reads.connect() as conn:
                await self._presence.withdraw(conn)
                await self._attendance.withdraw(conn)
                await failpoint_async("leases.hand_over")
                handed = 0
                for token in {self.tenure.token, *self.tenure.former}:
                    handed += await claims.hand_over(conn, token=token)
                await failpoint_async("leases.handed_over")
                await send_last_hints(conn, self._hints.farewell())
                log.info("replica.stopped", replica=self.replica_id, runs_handed_over=handed)
        await self._lessor.stop()
        await close_reads(self.reads)

    async def wait_failed(self) -> None:
        """Return never; raise what ended one of the engine's loops."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed is None or self._failed.done():
            return
        if (error := task.exception()) is not None:
            log.error("replica.loop_failed", exc_info=error)
            self._failed.set_exception(error)

    @property
    def database_is_up(self) -> bool:
        """Whether PostgreSQL answered within the last seconds."""
        return self.is_started and self._listener.is_up and self._committer.trouble is None

    # -- events ----------------------------------------------------------------------------------

    def on_events(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` after each commit with each run's new events; gives the remover.

        Also called with None for a run that may have new events written elsewhere, and with run id
        `*` when every run may.
        """
        self._event_listeners.append(listener)
        return lambda: self._event_listeners.remove(listener)

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica begins to stop; gives the remover."""
        self._drain_listeners.append(listener)
        return lambda: self._drain_listeners.remove(listener)

    def on_start_requests(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when runs may have been asked for in SQL; gives the remover."""
        self._start_listeners.append(listener)
        return lambda: self._start_listeners.remove(listener)

    def on_rewrite(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when another server has taken over, which may lack the last events.

        Gives the remover.
        """
        self._rewrite_listeners.append(listener)
        return lambda: self._rewrite_listeners.remove(listener)

    def _entered(self, history: History) -> None:
        """The listener has a session, on this server."""
        before, self._history = self._history, history
        if before in {None, history}:
            return
        log.warning("timeline.changed", before=str(before), now=str(history))
        self._registry.leave_timelines_but(history.timeline)
        for listener in list(self._rewrite_listeners):
            listener()

    def _after_commit(self, batch: Batch) -> None:
        self._hints.tell(batch)
        for run_id, records in batch.events.items():
            self._tell(run_id, records)

    def _tell(self, run_id: str, records: Sequence[EventRecord] | None) -> None:
        for listener in list(self._event_listeners):
            try:
                listener(run_id, records)
            except Exception:
                # Who fails to hear of events must not end the loop that tells of them.
                log.exception("events.listener_failed", run_id=run_id)

    def _heard(self, hint: dict[str, Any]) -> None:
        for run_id in hint.get("e", ()):
            self._tell(run_id, None)
        facts = hint.get("f", ())
        for run_id in list(self._registry.actors) if facts == EVERYTHING else facts:
            self._registry.wake(run_id)
        if "r" in hint:
            self._scanner.look_for_runs()
        if "l" in hint:
            self._scanner.look_for_tasks()
        if "t" in hint:
            needs = needs_in(hint["t"])
            if needs is not None and "o" in hint:
                self._dispatcher.requeued(needs)
            else:
                self._dispatcher.look(needs)
        if "q" in hint:
            for listener in list(self._start_listeners):
                listener()
        for task_id, reason in hint.get("c", {}).items():
            self._dispatcher.cancel(task_id, reason)

    # -- calls -----------------------------------------------------------------------------------

    def _require_ready(self) -> None:
        if self.is_draining:
            raise errors.DrainingError
        if self._listener.is_read_only:
            raise errors.DatabaseReadOnlyError
        if self._committer.trouble is not None:
            raise self._committer.trouble

    async def start_run(self, command: StartRun) -> RunStarted:
        """Create a run and begin it.

        Raises:
            RunKeyInUseError: a live run holds the key and the policy is to fail.
            RequestIdReusedError: the request id came with another payload.
        """
        answer = (await self.start_runs([command]))[0]
        if isinstance(answer, errors.RunkonError):
            raise answer
        return answer

    async def start_runs(
        self, commands: Sequence[StartRun]
    ) -> list[RunStarted | errors.RunkonError]:
        """Create many runs in as few commits as possible; each has its own outcome."""
        self._require_ready()
        entries = [self._start(command) for command in commands]
        answers = await asyncio.gather(*(entry.future for entry in entries), return_exceptions=True)
        outcomes: list[RunStarted | errors.RunkonError] = []
        for command, answer in zip(commands, answers, strict=True):
            if (
                isinstance(answer, errors.RunKeyInUseError)
                and command.conflict_policy is ConflictPolicy.CANCEL_EXISTING
            ):
                outcomes.append(await self._start_instead(command, answer.metadata["run_id"]))
            elif isinstance(answer, BaseException):
                if not isinstance(answer, errors.RunkonError):
                    raise answer
                outcomes.append(answer)
            else:
                outcomes.append(answer)
        return outcomes

    def _start(self, command: StartRun, instead_of: str | None = None) -> StartEntry:
        run_id = command.promised_id or self.ambient.ulid()
        response = {"run_id": run_id, "started": True, "payload": command.sql_digest}
        request = self._request(command, "StartRun", response)
        if request is not None:
            request = replace(request, alias=command.sql_digest)
        entry = StartEntry(self._registry, run_id, command, request, instead_of=instead_of)
        failpoint("run.starting")
        self._committer.submit(entry)
        return entry

    async def _start_instead(
        self, command: StartRun, existing: str
    ) -> RunStarted | errors.RunkonError:
        """Cancel the run that holds the key and hand the key over at once."""
        cancel = CancelRun(
            namespace=command.namespace,
            run_id=existing,
            principal=command.principal,
            reason=f"replaced by a new run with key {command.key!r}",
        )
        try:
            with contextlib.suppress(errors.RunStateError):  # it ended meanwhile: just as well
                await self.cancel_run(cancel)
            return await self._start(command, existing).future
        except errors.RunkonError as error:
            return error

    async def cancel_run(self, command: CancelRun) -> RunCancelled:
        """Ask a run to stop; it says `cancelling` when this returns.

        Raises:
            RunNotFoundError, RunStateError, RequestIdReusedError
        """
        self._require_ready()
        request = self._request(command, "CancelRun", {"run_id": command.run_id})
        entry = CancelEntry(command, request, self._registry.recorded)
        self._committer.submit(entry)
        return await entry.future

    async def resolve_gate(self, command: ResolveGate) -> GateResolved:
        """Vote on a gate.

        Raises:
            GateNotFoundError, RunNotFoundError, GateAlreadyResolvedError, GateTimedOutError,
            GateClosedError, GateSelectionInvalidError, GateStarterExcludedError
        """
        self._require_ready()
        gate_id = await self._gate_of(command)
        run_id = run_of(gate_id)
        request = self._request(command, "ResolveGate", {"run_id": run_id, "gate_id": gate_id})
        entry = GateVoteEntry(run_id, gate_id, command, request, self._registry.recorded)
        self._committer.submit(entry)
        return await entry.future

    async def _gate_of(self, command: ResolveGate | ReportPullRequest) -> str:
        """The gate that a command names by its id, or by its run and name."""
        if command.gate_id is not None:
            return command.gate_id
        async with self.reads.connect() as conn:
            return await find_gate(
                conn,
                namespace=command.namespace,
                run_id=command.run_id,
                key=command.key,
                gate_name=command.gate_name or "",
            )

    async def report_pull_request(self, command: ReportPullRequest) -> PullRequestReported:
        """Tell a gate how its pull request stands.

        Raises:
            GateNotFoundError, RunNotFoundError, GateTypeMismatchError, GateAlreadyResolvedError,
            GateTimedOutError, GateClosedError
        """
        self._require_ready()
        gate_id = await self._gate_of(command)
        run_id = run_of(gate_id)
        response = {"run_id": run_id, "gate_id": gate_id}
        request = self._request(command, "ReportPullRequest", response)
        entry = PullRequestEntry(run_id, gate_id, command, request, self._registry.recorded)
        self._committer.submit(entry)
        return await entry.future

    async def resume_run(self, command: ResumeRun) -> RunResumed:
        """Take a finished run up again, in a new epoch.

        Raises:
            RunNotFoundError, StepNotFoundError, RunStateError, ResumeRefusedError,
            RunKeyInUseError, RequestIdReusedError, ConflictError
        """
        self._require_ready()
        request = self._request(command, "ResumeRun", {"run_id": command.run_id})
        return await Resumer(self._registry, self.reads).resume(command, request)

    def does_itself(self, namespace: str, kind: str, action: str) -> bool:
        """Whether this replica does such tasks without a worker."""
        if kind == "items":
            return action in PROVIDED
        return kind == "action" and action in self._builtin_actions.get(namespace, {})

    def _request(
        self,
        command: StartRun | CancelRun | ResolveGate | ResumeRun | ReportPullRequest,
        method: str,
        response: dict[str, Any],
    ) -> NewRequest | None:
        if command.request_id is None:
            return None
        return NewRequest(command.namespace, command.request_id, method, command.digest, response)

    # -- workers ---------------------------------------------------------------------------------

    def open_session(self, hello: WorkerHello, notify: Callable[[], None]) -> WorkerSession:
        """Connect a worker stream; `notify` says that the outbox has something."""
        if self.is_draining:
            raise errors.DrainingError
        session = self._dispatcher.open(hello, notify)
        self._presence.opened(session)
        if hello.in_hand is not None:
            self._arrivals.add(session)
        return session

    async def poll_tasks(
        self, hello: WorkerHello, *, max_tasks: int, wait_s: float
    ) -> list[TaskLease]:
        """Up to `max_tasks` tasks; waits up to `wait_s` for the first.

        A worker that tells what it has in hand waits for what it lacks to be taken back too.
        """
        self._require_ready()
        arrived = asyncio.Event()
        until = asyncio.get_running_loop().time() + wait_s
        self._presence.polled(hello)
        session = self._dispatcher.open(hello, arrived.set)
        try:
            session.add_credit(max_tasks)
            with contextlib.suppress(TimeoutError):
                if hello.in_hand is not None:
                    self._arrivals.add(session)
                    async with asyncio.timeout(max(wait_s, TAKING_BACK_S)):
                        await session.begun.wait()
                async with asyncio.timeout_at(until):
                    await arrived.wait()
            session.drain()
            leases, _, _ = session.take()
            return leases
        finally:
            session.close()
            self._presence.polled(hello)

    async def report_task(self, namespace: str, report: TaskReport) -> ReportAck:
        """Record how a task ended; returns when it is durable.

        Raises:
            TaskNotFoundError, TaskAttemptStaleError, ReportConflictError, UnavailableError
        """
        self._require_ready()
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def acknowledge(verdict: Verdict) -> None:
            if not future.done():
                future.set_result(verdict)

        self._dispatcher.forget(report.fact.task_id)
        self._registry.report(namespace, report, acknowledge)
        verdict = await future
        if verdict.error is not None:
            raise verdict.error
        return ReportAck(task_id=report.fact.task_id, token=report.token, verdict=verdict)

    async def heartbeat_task(self, namespace: str, beat: TaskHeartbeat) -> HeartbeatAnswer:
        """Extend a task's lease."""
        self._require_ready()
        known, reason = await self._dispatcher.heartbeat_one(namespace, beat)
        return HeartbeatAnswer(
            task_id=beat.task_id, token=beat.token, known=known, cancel_reason=reason
        )

"""What `api` calls, and nothing else of the runtime: a replica with its commands."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server import errors
from runkon_server.failpoints import failpoint
from runkon_server.runtime.cancels import CancelEntry
from runkon_server.runtime.commands import CancelRun, ConflictPolicy, HeartbeatAnswer, ReportAck
from runkon_server.runtime.gates import GateVoteEntry
from runkon_server.runtime.providers import PROVIDED
from runkon_server.runtime.pull_requests import PullRequestEntry
from runkon_server.runtime.replica import Replica
from runkon_server.runtime.resuming import Resumer
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.starting import StartEntry
from runkon_server.runtime.stats import EngineStats
from runkon_server.store.locking import NewRequest, run_of
from runkon_server.store.lookups import find_gate
from runkon_server.store.reads.runs import telling_removed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.runtime.audience import EventListener
    from runkon_server.runtime.commands import (
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
    from runkon_server.runtime.sessions import WorkerSession

__all__ = ["Engine", "EngineConfig", "EngineStats"]

TAKING_BACK_S: Final = 5.0
"""How long a poll waits at least until what its worker lacks was taken back."""


class Engine(Replica):
    """A replica that takes commands, reports and worker streams."""

    # -- events ----------------------------------------------------------------------------------

    def on_events(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` after each commit with each run's new events; gives the remover.

        Also called with None for a run that may have new events written elsewhere, and with run id
        `*` when every run may.
        """
        return self._audience.on_events(listener)

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once when this replica begins to stop; gives the remover."""
        return self._audience.drain.on(listener)

    def on_start_requests(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when runs may have been asked for in SQL; gives the remover."""
        return self._audience.start_requests.on(listener)

    def on_rewrite(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when another server has taken over, which may lack the last events.

        Gives the remover.
        """
        return self._audience.rewrite.on(listener)

    # -- runs and gates --------------------------------------------------------------------------

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
            RunNotFoundError, RunPurgedError, RunStateError, RequestIdReusedError
        """
        self._require_ready()
        request = self._request(command, "CancelRun", {"run_id": command.run_id})
        entry = CancelEntry(command, request, self._registry.recorded)
        self._committer.submit(entry)
        async with telling_removed(self.reads, command.namespace):
            return await entry.future

    async def resolve_gate(self, command: ResolveGate) -> GateResolved:
        """Vote on a gate.

        Raises:
            GateNotFoundError, RunNotFoundError, RunPurgedError, GateAlreadyResolvedError,
            GateTimedOutError, GateClosedError, GateSelectionInvalidError, GateStarterExcludedError
        """
        self._require_ready()
        gate_id = await self._gate_of(command)
        run_id = run_of(gate_id)
        request = self._request(command, "ResolveGate", {"run_id": run_id, "gate_id": gate_id})
        entry = GateVoteEntry(run_id, gate_id, command, request, self._registry.recorded)
        self._committer.submit(entry)
        async with telling_removed(self.reads, command.namespace):
            return await entry.future

    async def _gate_of(self, command: ResolveGate | ReportPullRequest) -> str:
        """The gate that a command names by its id, or by its run and name."""
        if command.gate_id is not None:
            return command.gate_id
        async with telling_removed(self.reads, command.namespace), self.reads.connect() as conn:
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
            GateNotFoundError, RunNotFoundError, RunPurgedError, GateTypeMismatchError,
            GateAlreadyResolvedError, GateTimedOutError, GateClosedError
        """
        self._require_ready()
        gate_id = await self._gate_of(command)
        run_id = run_of(gate_id)
        response = {"run_id": run_id, "gate_id": gate_id}
        request = self._request(command, "ReportPullRequest", response)
        entry = PullRequestEntry(run_id, gate_id, command, request, self._registry.recorded)
        self._committer.submit(entry)
        async with telling_removed(self.reads, command.namespace):
            return await entry.future

    async def resume_run(self, command: ResumeRun) -> RunResumed:
        """Take a finished run up again, in a new epoch.

        Raises:
            RunNotFoundError, RunPurgedError, StepNotFoundError, RunStateError, ResumeRefusedError,
            RunKeyInUseError, RequestIdReusedError, ConflictError
        """
        self._require_ready()
        request = self._request(command, "ResumeRun", {"run_id": command.run_id})
        async with telling_removed(self.reads, command.namespace):
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

        self._dispatcher.forget(report.fact.task_id, report.token)
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

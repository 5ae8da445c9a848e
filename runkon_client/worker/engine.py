"""What a worker does between its start and its end: streams, tasks in hand, their reports."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import grpc
import grpc.aio

from runkon.v1 import workers_pb2
from runkon_client.calls.gates import GateTarget, report_pull_request
from runkon_client.calls.runs import list_steps
from runkon_client.errors import Code, error_from_rpc
from runkon_client.retry import Backoff
from runkon_client.values import StepRole, StepStatus
from runkon_client.worker.actions import ActionError, TaskCancelledError
from runkon_client.worker.kinds import KINDS, UNKNOWN
from runkon_client.worker.ledger import Ledger, Verdict
from runkon_client.worker.outage import Outage
from runkon_client.worker.outcomes import (
    cut_text,
    describe,
    report_cancelled,
    report_error,
    report_failure,
)
from runkon_client.worker.session import WORK_PATH, Session, StreamSilentError
from runkon_client.worker.task import CancelReason, PriorContext, decode_cancel_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_client.transport import AsyncTransport
    from runkon_client.values.gates import PullRequest, ReportedPullRequest
    from runkon_client.worker.actions import Actions, Registered
    from runkon_client.worker.gates import GateTask
    from runkon_client.worker.kinds import Kind
    from runkon_client.worker.task import Task

_log: Final = logging.getLogger("runkon_client.worker")
RECONNECT_S_MAX: Final = 5.0
"""Longest pause between two attempts at a stream; a worker that is late is missed for that long."""
_PROGRESS_EVERY_S: Final = 1.0  # the server records less
_RESEND_S: Final = 0.5
_SETTLE_S: Final = 5.0  # for acks and the stream's end, after the last task
_ABANDON_S: Final = 1.0  # for coroutines to clean up
_REFUSALS: Final = frozenset({Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED})
_UNREPORTED: Final = frozenset({CancelReason.LEASE_LOST, CancelReason.WORKER_STOPPED})
_LOGGED_BYTES: Final = 500  # of a failure's first line
_WITHOUT_CONTEXT: Final = frozenset({StepRole.GATE, StepRole.REVIEWER})


class _Execution:
    """A task in hand."""

    __slots__ = ("is_async", "runner", "task")

    def __init__(
        self, task: Task, runner: asyncio.Task[workers_pb2.TaskReport], *, is_async: bool
    ) -> None:
        self.task = task
        self.runner = runner
        self.is_async = is_async


class Engine:
    """One life of a worker, in one event loop."""

    def __init__(
        self, transport: AsyncTransport, hello: workers_pb2.WorkerHello, actions: Actions
    ) -> None:
        self._transport = transport
        self._actions = actions
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger(hello)
        self._outage = Outage(transport.endpoint.address, time.monotonic)
        self._pool = ThreadPoolExecutor(hello.concurrency, thread_name_prefix="runkon-action")
        self._executions: dict[str, _Execution] = {}  # by token
        self._session: Session | None = None
        self._is_closing = False
        self._changed = asyncio.Event()
        self._progress_timer: asyncio.TimerHandle | None = None
        self._progress_at = 0.0

    async def serve(self) -> None:
        """Hold a stream, and another one after it, until `drain` is through.

        Raises:
            RunkonClientError: the server refuses the worker.
        """
        open_stream = cast(
            "grpc.aio.StreamStreamMultiCallable[workers_pb2.WorkRequest, workers_pb2.WorkResponse]",
            self._transport.channel.stream_stream(
                WORK_PATH,
                workers_pb2.WorkRequest.SerializeToString,
                workers_pb2.WorkResponse.FromString,
            ),
        )
        backoff = Backoff(max_s=RECONNECT_S_MAX)
        while not self._is_closing:
            error = None
            delay_s = None
            call = open_stream(metadata=self._transport.endpoint.metadata)
            self._session = session = Session(call, self._ledger, self)
            try:
                delay_s = await session.run()
            except StreamSilentError as silence:
                self._outage.failed(silence)
            except grpc.RpcError as rpc_error:
                error = error_from_rpc(rpc_error)
                if error.code in _REFUSALS:
                    raise error from rpc_error
                self._outage.failed(error)
            if session.is_welcomed:
                backoff.reset()
            if not self._is_closing:
                await asyncio.sleep(backoff.next_delay_s(error) if delay_s is None else delay_s)

    async def drain(self, grace_s: float) -> None:
        """Take no more tasks, finish those in hand, deliver the reports, end the stream.

        Args:
            grace_s: what is not finished then is stopped and not reported: its lease runs out.
        """
        self._ledger.drain()
        self._wake()
        if not await self._wait_until(lambda: not self._executions, grace_s):
            _log.warning("%d tasks not finished in time, released", len(self._executions))
            for execution in [*self._executions.values()]:
                self._stop(execution, CancelReason.WORKER_STOPPED, also_threads=True)
        await self._wait_until(
            lambda: not self._executions and not self._ledger.unacked_count, _SETTLE_S
        )
        self._is_closing = True
        if self._session is not None:
            self._session.close()

    async def abandon(self) -> None:
        """Stop everything at once; nothing is reported any more. Threads are only told."""
        executions = [*self._executions.values()]
        for execution in executions:
            self._stop(execution, CancelReason.WORKER_STOPPED, also_threads=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if executions:
            await asyncio.wait([execution.runner for execution in executions], timeout=_ABANDON_S)

    async def _wait_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._changed.set()
        if self._session is not None:
            self._session.wake()

    # What the session tells.

    def welcomed(self, replica: str) -> None:
        """A stream is there."""
        self._outage.welcomed(replica)

    def take(self, lease: workers_pb2.TaskLease) -> None:
        """A task came: start it."""
        if not self._ledger.take(lease):
            return
        if lease.delivery:
            # An older delivery of it may still be in hand: its lease is lost, or this would not be.
            for execution in [*self._executions.values()]:
                if execution.task.id == lease.task_id:
                    self._stop(execution, CancelReason.LEASE_LOST)
        kind = KINDS.get(lease.kind, UNKNOWN)
        task = kind.task(lease, self)
        registered = kind.find(self._actions, lease)
        if registered is None:
            message = f"this worker has no {kind.name} {lease.action!r}"
            report = report_failure(lease.task_id, lease.token, message, retryable=True)
            self._ledger.end(lease.token, report)
            return
        runner = self._loop.create_task(self._execute(task, lease.token, registered, kind))
        self._executions[lease.token] = _Execution(task, runner, is_async=registered.is_async)
        # A task that is cancelled before its first step runs nothing of itself, not even `finally`.
        runner.add_done_callback(partial(self._end, lease.token))

    def cancel(self, cancel: workers_pb2.TaskCancel) -> None:
        """A task is no longer wanted."""
        execution = self._executions.get(cancel.token)
        if execution is not None:
            self._stop(execution, decode_cancel_reason(cancel.reason))

    def acknowledge(self, ack: workers_pb2.TaskAck) -> None:
        """A report was answered."""
        match self._ledger.acknowledge(ack):
            case Verdict.LATER:
                self._loop.call_later(_RESEND_S, self._resend, ack.token)
            case Verdict.DROPPED:
                _log.info("report of task %s dropped: %s", ack.task_id, ack.error.message)
            case Verdict.REPLACED:
                _log.warning("report of task %s refused: %s", ack.task_id, ack.error.message)
            case Verdict.SETTLED:
                pass
        self._changed.set()

    def _resend(self, token: str) -> None:
        self._ledger.resend(token)
        self._wake()

    # Tasks in hand.

    async def _execute(
        self, task: Task, token: str, registered: Registered, kind: Kind
    ) -> workers_pb2.TaskReport:
        try:
            call = partial(self._call, registered, task, token)
            returned = await self._actions.perform(task, call)
            return _noted(kind, task, kind.report(task.id, token, returned))
        except TaskCancelledError as error:
            if task.cancelled:
                return report_cancelled(task.id, token, str(error))
            return report_error(task.id, token, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the report answers for it
            if task.cancelled:
                return report_cancelled(task.id, token, describe(error))
            _log_failure(kind, task, error)
            return report_error(task.id, token, error)

    async def _call(self, registered: Registered, task: Task, token: str) -> object:
        """What the function returned: a coroutine's here, a plain function's in a thread."""
        if registered.is_async:
            returned = registered.function(task)
        else:
            returned = await self._loop.run_in_executor(
                self._pool, _call_plain, registered.function, task
            )
            # What a plain function left to be awaited can be cancelled from here on.
            self._executions[token].is_async = _is_to_await(returned)
        if inspect.isawaitable(returned):
            returned = await returned
        if isinstance(returned, AsyncIterator):
            return [each async for each in returned]
        return _whole(returned)

    def _end(self, token: str, runner: asyncio.Task[workers_pb2.TaskReport]) -> None:
        task = self._executions.pop(token).task
        report: workers_pb2.TaskReport | None
        if task.cancel_reason in _UNREPORTED:
            report = None
        elif runner.cancelled():
            if task.cancelled:
                report = report_cancelled(task.id, token, "stopped")
            else:
                message = "the work was cancelled from within"
                report = report_failure(task.id, token, message, retryable=True)
        elif (error := runner.exception()) is not None:
            # An exception of the kinds that are not to be caught, such as GeneratorExit.
            _log.error("%s failed, task %s", task.action, task.id, exc_info=error)
            report = report_error(task.id, token, error)
        else:
            report = runner.result()
        self._ledger.end(token, report)
        self._wake()

    def _stop(
        self, execution: _Execution, reason: CancelReason, *, also_threads: bool = False
    ) -> None:
        execution.task._cancel(reason)  # noqa: SLF001 - only the engine may
        if execution.is_async or also_threads:
            execution.runner.cancel()

    # What tasks ask for.

    def send_progress(self, token: str, progress: str) -> None:
        """Send a heartbeat with progress; from any thread."""
        self._loop.call_soon_threadsafe(self._note_progress, token, progress)

    def _note_progress(self, token: str, progress: str) -> None:
        self._ledger.note_progress(token, progress)
        if self._progress_timer is None:
            delay_s = self._progress_at + _PROGRESS_EVERY_S - time.monotonic()
            self._progress_timer = self._loop.call_later(max(0.0, delay_s), self._show_progress)

    def _show_progress(self) -> None:
        self._progress_timer = None
        self._progress_at = time.monotonic()
        self._wake()

    def await_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        """Fetch them, from a thread that may block."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(
                self.fetch_prior_contexts(task), self._loop
            ).result()
        raise RuntimeError("contexts are to be fetched: use `await task.fetch_prior_contexts()`")

    async def report_pull_request(
        self, task: GateTask, pull_request: PullRequest
    ) -> ReportedPullRequest:
        """Report it to the task's gate."""
        target = GateTarget(gate_id=task.gate_id)
        return await self._transport.perform(
            report_pull_request(task.namespace, target, pull_request, request_id="")
        )

    async def fetch_prior_contexts(self, task: Task) -> tuple[PriorContext, ...]:
        """Contexts of the run's completed steps, in the order of their completion."""
        steps = [
            step
            async for step in self._transport.pages(
                lambda token: list_steps(
                    task.namespace, task.run_id, include_superseded=False, token=token
                )
            )
            if step.status is StepStatus.COMPLETED and step.role not in _WITHOUT_CONTEXT
        ]
        # A completed step has an end; rows of one instant keep their program order.
        steps.sort(key=lambda step: step.ended_at.timestamp() if step.ended_at else 0.0)
        return tuple(
            PriorContext(
                step=step.step_name,
                iteration=step.iteration,
                context=step.context,
                markers=step.markers,
                structured_output=step.structured_output,
                output_file=step.output_file,
            )
            for step in steps
        )


def _call_plain(function: Callable[[Task], object], task: Task) -> object:
    """Call a plain function, in a thread."""
    try:
        return _whole(function(task))
    except StopIteration as stop:
        # No future can hold it: who waits would do so for ever. Coroutines do the same with it.
        raise RuntimeError("the function raised StopIteration") from stop


def _is_to_await(returned: object) -> bool:
    return inspect.isawaitable(returned) or isinstance(returned, AsyncIterator)


def _whole(returned: object) -> object:
    """What a function returned; of a generator what it gives, for its work is the function's."""
    return list(returned) if isinstance(returned, Iterator) else returned


def _log_failure(kind: Kind, task: Task, error: BaseException) -> None:
    """One line for a failure that the function chose, a traceback for one that it did not."""
    if isinstance(error, ActionError):
        _log_chosen(kind, task, error.message)
    else:
        _log.warning("%s %s failed, task %s", kind.name, task.action, task.id, exc_info=error)


def _noted(kind: Kind, task: Task, report: workers_pb2.TaskReport) -> workers_pb2.TaskReport:
    """The report; a line of the log says if what was returned cannot be sent."""
    if report.HasField("failure"):
        _log_chosen(kind, task, report.failure.message)
    return report


def _log_chosen(kind: Kind, task: Task, message: str) -> None:
    chosen = cut_text(message.strip().partition("\n")[0], _LOGGED_BYTES)
    _log.warning("%s %s failed, task %s: %s", kind.name, task.action, task.id, chosen)

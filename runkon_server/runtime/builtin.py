"""Actions that run inside the server: the worker's interface without the wire, by the same rules.

Only trusted built-ins: `echo` completes with its inputs, `sleep` waits `seconds` (at most an hour).
Others may be added by the composition root (`runkon-server dev`) and by benchmarks.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Final

from runkon_server.core.facts import Outcome, Reported
from runkon_server.runtime.commands import TaskHeartbeat, TaskReport, WorkerHello
from runkon_server.store.queues import EVERY_QUEUE
from runkon_server.store.sessions import worker_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import TaskLease
    from runkon_server.runtime.dispatcher import Dispatcher

    Action = Callable[[TaskLease], Reported | Awaitable[Reported]]

CREDIT: Final = 1_000
SLEEP_S_MAX: Final = 3_600.0


class BuiltinWorker:
    """Serves built-in actions of one namespace from inside the process.

    Args:
        token: under which the replica owns runs; what is leased to this worker is taken back when
            that token is gone.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        ambient: Ambient,
        token: str,
        namespace: str,
        actions: Mapping[str, Action],
        *,
        beat_s: float,
    ) -> None:
        self._ambient = ambient
        self._actions = actions
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tokens: dict[str, str] = {}
        self._beat_s = beat_s
        self._beat: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._is_scheduled = False
        hello = WorkerHello(
            namespace=namespace,
            worker_id=worker_of(token),
            actions=frozenset(actions),
            queues=frozenset({EVERY_QUEUE}),
        )
        self._session = dispatcher.open(hello, self._notified)

    def start(self) -> None:
        """Begin to take tasks."""
        self._session.add_credit(CREDIT)

    def rename(self, token: str) -> None:
        """The replica goes on under another token."""
        self._session.worker_id = worker_of(token)

    def _heartbeat(self) -> None:
        self._session.heartbeat(
            [TaskHeartbeat(task_id=i, token=token) for i, token in self._tokens.items()]
        )
        self._beat = None
        self._arm_heartbeat()

    def _arm_heartbeat(self) -> None:
        if self._beat is None and self._tokens:
            self._beat = self._loop.call_later(self._beat_s, self._heartbeat)

    def stop(self) -> None:
        """Stop; tasks under way are handed out again when their lease runs out."""
        self._session.close()
        if self._beat is not None:
            self._beat.cancel()
        for task in self._running.values():
            task.cancel()

    def _notified(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._is_scheduled = False
        leases, cancels, _ = self._session.take()
        done: list[TaskReport] = []
        for lease in leases:
            answer = self._actions[lease.action](lease)
            if inspect.isawaitable(answer):
                self._running[lease.task_id] = self._loop.create_task(self._finish(lease, answer))
                self._tokens[lease.task_id] = lease.token
                self._arm_heartbeat()
            else:
                assert isinstance(answer, Reported)
                done.append(TaskReport(token=lease.token, fact=answer))
        if done:
            self._answer(done)
        for cancel in cancels:
            if task := self._running.get(cancel.task_id):
                task.cancel()

    async def _finish(self, lease: TaskLease, answer: Awaitable[Reported]) -> None:
        try:
            fact = await answer
        except asyncio.CancelledError:
            if not self._session.is_open:
                raise
            fact = Reported(task_id=lease.task_id, outcome=Outcome.CANCELLED, error="stopped")
        finally:
            self._running.pop(lease.task_id, None)
            self._tokens.pop(lease.task_id, None)
        self._answer([TaskReport(token=lease.token, fact=fact)])

    def _answer(self, reports: list[TaskReport]) -> None:
        # Credit first: the next task of the same runs is assigned while the report is decided.
        if self._session.is_open:
            self._session.add_credit(len(reports))
        self._session.report(reports)


def echo(lease: TaskLease) -> Reported:
    """Complete with the text of the input `message` as context.

    Not with all inputs: they hold what the step before put out, so a chain of echoes would double
    with every link.
    """
    return Reported(
        task_id=lease.task_id,
        outcome=Outcome.COMPLETED,
        context=lease.inputs.get("message", ""),
    )


def sleeper(ambient: Ambient) -> Action:
    """The `sleep` action."""

    async def sleep(lease: TaskLease) -> Reported:
        text = lease.inputs.get("seconds", "1")
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= SLEEP_S_MAX:
            return Reported(
                task_id=lease.task_id,
                outcome=Outcome.FAILED,
                error=f"input `seconds` is {text!r}; 0 to {SLEEP_S_MAX:g} is possible",
                retryable=False,
            )
        await ambient.sleep(seconds)
        return Reported(task_id=lease.task_id, outcome=Outcome.COMPLETED)

    return sleep

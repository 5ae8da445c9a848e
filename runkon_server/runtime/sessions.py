"""A connected worker as the dispatcher sees it: what it serves, its credit, what it must be told.

A session holds no socket. Its stream takes the outbox whenever `notify` says there is something, so
many leases, cancels and acknowledgements leave in one frame and nothing waits for a frame to fill.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from runkon_server.runtime.commands import ReportAck, TaskCancel
from runkon_server.store.claiming import Claimant
from runkon_server.store.queues import EVERY_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runkon_server.core.decision import TaskKind
    from runkon_server.runtime.commands import (
        TaskHeartbeat,
        TaskLease,
        TaskReport,
        Verdict,
        WorkerHello,
    )
    from runkon_server.runtime.dispatcher import Dispatcher

FALLBACK = "*"
ANY_SCRIPT = "*"
"""What stands for the names of scripts: whoever executes one executes all."""
EVERYWHERE = ""
"""Namespace of the server's own item providers, which serve all of them."""


class WorkerSession:
    """One worker stream, one embedded worker, or one long poll."""

    def __init__(
        self, dispatcher: Dispatcher, hello: WorkerHello, notify: Callable[[], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._notify = notify
        self._leases: list[TaskLease] = []
        self._cancels: list[TaskCancel] = []
        self._acks: list[ReportAck] = []
        self.hello = hello
        self.worker_id = hello.worker_id
        self.namespace = hello.namespace
        self.queues = hello.queues
        self.is_fallback = FALLBACK in hello.actions
        self.offers: dict[TaskKind, frozenset[str]] = {
            "action": hello.actions - {FALLBACK},
            "items": hello.item_providers,
            "gate": hello.gate_types,
            "script": frozenset({ANY_SCRIPT}) if hello.scripts else frozenset(),
        }
        """Names by kind of task."""
        self.credit = 0
        self._held_back: int | None = None if hello.in_hand is None else 0
        """Credit that counts once `begin` was called; None: all counts at once."""
        self.begun = asyncio.Event()
        """Set once `begin` was called, or will never be."""
        self.is_open = True
        self.is_closed = False
        self.may_find_more = True
        """Whether the queue may hold something for it that nobody here was told of."""
        self.tasks: dict[str, str] = {}
        """Tasks this worker has: id → token."""

    def add_credit(self, n: int) -> None:
        """Allow `n` more tasks."""
        if self._held_back is not None:
            self._held_back += n
        elif self.is_open:
            self.credit += n
            self._dispatcher.credit_added(self)

    def begin(self) -> None:
        """What the worker lacks was taken back: from now on it may be given tasks."""
        credit, self._held_back = self._held_back, None
        self.begun.set()
        if credit:
            self.add_credit(credit)

    def report(self, reports: Sequence[TaskReport]) -> None:
        """Take reports; each is acknowledged in the outbox after its commit."""
        for report in reports:
            task_id, token = report.fact.task_id, report.token
            self.settle(task_id, token)

            def acknowledge(verdict: Verdict, task_id: str = task_id, token: str = token) -> None:
                self.acknowledge(ReportAck(task_id=task_id, token=token, verdict=verdict))

            self._dispatcher.report(self.namespace, report, acknowledge)

    def settle(self, task_id: str, token: str) -> None:
        """A task is reported, or lost, that this worker had if the token is right."""
        if self.tasks.get(task_id) == token:
            del self.tasks[task_id]
            self._dispatcher.forget(task_id, token)

    def heartbeat(self, beats: Sequence[TaskHeartbeat]) -> None:
        """Extend the leases of these tasks; those that no longer count come back as cancels."""
        self._dispatcher.heartbeat(self, beats)

    def take(self) -> tuple[list[TaskLease], list[TaskCancel], list[ReportAck]]:
        """Empty the outbox."""
        taken = self._leases, self._cancels, self._acks
        self._leases, self._cancels, self._acks = [], [], []
        return taken

    def drain(self) -> None:
        """Hand out nothing more."""
        self.credit = 0
        self.is_open = False

    def close(self) -> None:
        """The worker is gone; what it has stays leased until the deadline."""
        self.drain()
        self._dispatcher.remove(self)
        self.is_closed = True
        self.begun.set()
        with contextlib.suppress(Exception):  # whoever cannot be told is why it is closed
            self._notify()

    @property
    def claimant(self) -> Claimant:
        """Who its tasks are leased to."""
        return Claimant(self.namespace, self.worker_id, self.queues)

    def takes(self, kind: TaskKind) -> bool:
        """Whether it takes some task of this kind."""
        return bool(self.offers[kind]) or (kind == "action" and self.is_fallback)

    def serves_queue(self, queue: str) -> bool:
        """Whether it takes tasks of this queue."""
        return queue in self.queues or EVERY_QUEUE in self.queues

    def push(self, lease: TaskLease) -> None:
        """Put a task into the outbox."""
        self.tasks[lease.task_id] = lease.token
        self._leases.append(lease)
        self._notify()

    def cancel(self, task_id: str, token: str, reason: str) -> None:
        """Tell the worker to stop a task."""
        self._cancels.append(TaskCancel(task_id=task_id, token=token, reason=reason))
        self._notify()

    def acknowledge(self, ack: ReportAck) -> None:
        """Put an acknowledgement into the outbox."""
        self._acks.append(ack)
        self._notify()

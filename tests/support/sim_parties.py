"""Who stands around the replicas: workers, callers and those who follow a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import psycopg

from runkon_server import errors
from runkon_server.core.facts import GateDecided, GateDecision, GatePolled, Outcome, Reported
from runkon_server.runtime.commands import TaskHeartbeat, TaskReport, WorkerHello
from runkon_server.verify.evidence import Delivery, Effect, Operation, Subscription
from support.answers import answers_to
from support.sim_replicas import NAMESPACE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from random import Random

    from runkon_server.core.facts import ItemsCollected
    from runkon_server.runtime.commands import TaskLease, Verdict
    from runkon_server.runtime.entries import Batch
    from support.sim_replicas import Replica
    from support.sim_tables import Tables

UNSURE = (errors.OutcomeUnknownError, errors.UnavailableError, errors.DatabaseUnavailableError)
GATE_TYPES = frozenset({"custom"})
QUEUE = "sim"
"""Of all runs and workers: whoever forgets it on the way keeps them apart for ever."""
SILENT_EVERY = 3
"""One hello in about so many does not tell what is in hand."""


class History:
    """What callers and workers noted, as the checker wants it."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.operations: list[Operation] = []
        self.effects: list[Effect] = []
        self.refusals: list[str] = []
        """Reasons of the refusals, in order."""

    def note(self, kind: Any, op: str, op_id: str, args: dict[str, Any], **result: Any) -> None:
        """Add a line."""
        self.operations.append(
            Operation(
                mono_s=self._tables.elapsed_s,
                proc="sim",
                op_id=op_id,
                kind=kind,
                op=op,
                args=args,
                result=result,
            )
        )

    def call(
        self,
        replica: Replica,
        work: Coroutine[Any, Any, Any],
        op: str,
        args: dict[str, Any],
        tell: Callable[[Any], dict[str, Any]] = lambda _: {},
    ) -> None:
        """Call a replica, and note what it answers. One that crashes answers nothing."""
        op_id = str(len(self.operations))
        self.note("invoke", op, op_id, args)

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                self.note("ok", op, op_id, args, **tell(task.result()))
            elif isinstance(error, errors.RunkonError):
                self.refusals.append(error.reason)
                kind = "info" if isinstance(error, UNSURE) else "fail"
                winner = error.metadata.get("resolved_by")
                about = {} if winner is None else {"resolved_by": winner}
                self.note(kind, op, op_id, args, reason=error.reason, **about)
            elif isinstance(error, psycopg.Error):
                self.note("info", op, op_id, args, reason="DATABASE")
            else:
                raise error

        replica.call(work, done)


@dataclass(eq=False, slots=True)
class Given:
    """A task that a worker was given."""

    lease: TaskLease
    first: TaskReport | None = None
    """What was reported of it first."""


class SimWorker:
    """A worker that may be slow, repeat itself, or lie."""

    def __init__(self, name: str, history: History, chance: Random) -> None:
        self.name = name
        self._history = history
        self._chance = chance
        self._session: Any = None
        self.replica: Replica | None = None
        self.tasks: list[Given] = []
        """All that it was ever given, the newest last."""
        self.open: list[Given] = []
        """Those it has not reported."""

    @property
    def is_connected(self) -> bool:
        """Whether the replica that it is connected to still runs."""
        replica = self.replica
        return replica is not None and not replica.is_gone and bool(self._session.is_open)

    def connect(self, replica: Replica) -> None:
        """Leave the replica that it was connected to, and go to another one.

        It tells what it has not reported, or nothing: as older workers.
        """
        if self.is_connected:
            self._session.close()
        hello = WorkerHello(
            namespace=NAMESPACE,
            worker_id=self.name,
            actions=frozenset({"*"}),
            queues=frozenset({QUEUE}),
            item_providers=frozenset({"things"}),
            gate_types=GATE_TYPES,
            scripts=True,
            in_hand=self._in_hand(),
        )
        self.replica = replica
        self._session = replica.open_session(hello, self._take)
        self._session.add_credit(4)

    def _in_hand(self) -> frozenset[str] | None:
        if len(self.tasks) % SILENT_EVERY == SILENT_EVERY - 1:
            return None
        return frozenset(given.lease.token for given in self.open)

    def _take(self) -> None:
        leases, cancels, _ = self._session.take()
        for lease in leases:
            given = Given(lease)
            self.tasks.append(given)
            self.open.append(given)
            self._act(lease)
        for cancel in cancels:
            for given in list(self.open):
                if given.lease.task_id == cancel.task_id and given.lease.token == cancel.token:
                    stopped = Reported(task_id=cancel.task_id, outcome=Outcome.CANCELLED)
                    self._later(partial(self.report, given, stopped))

    def _later(self, work: Callable[[], None]) -> None:
        assert self.replica is not None
        self.replica.loop.call_soon(work)

    def _act(self, lease: TaskLease) -> None:
        """Do what the task asks for, which leaves its mark outside."""
        if lease.kind != "action":
            return
        self._history.effects.append(
            Effect(
                idem_key=lease.idempotency_key,
                run_id=lease.run_id,
                step=lease.step_id.split("/")[1],
                iterations=lease.iterations,
                attempt=lease.attempt,
                fence=lease.fence,
            )
        )

    def answer(self, given: Given, *, well: bool) -> Reported | ItemsCollected | GatePolled:
        """What it has to say of a task."""
        answers: list[Any] = answers_to(given.lease)  # type: ignore[arg-type]  # asks kind and id
        good = [
            fact
            for fact in answers
            if not isinstance(fact, Reported) or fact.outcome is Outcome.COMPLETED
        ]
        fact: Reported | ItemsCollected | GatePolled = self._chance.choice(
            good if well else answers
        )
        return fact

    def beat(self) -> None:
        """Say that it still works on what it has."""
        beats = [
            TaskHeartbeat(task_id=each.lease.task_id, token=each.lease.token) for each in self.open
        ]
        if beats and self.is_connected:
            self._session.heartbeat(beats)

    def report(
        self,
        given: Given,
        fact: Reported | ItemsCollected | GatePolled,
        *,
        token: str | None = None,
        by: Replica | None = None,
        decides: bool = False,
    ) -> None:
        """Report a task, by its session or as a single call to any replica."""
        lease = given.lease
        decision = None
        if decides and lease.kind == "gate":
            fact = GatePolled(task_id=lease.task_id)
            decision = GateDecided(
                gate_id=lease.step_id,
                decision=GateDecision.APPROVED,
                decided_by="bot",
                poll_id=lease.task_id,
            )
        report = TaskReport(
            token=token or lease.token,
            fact=fact,
            digest=blake2b(repr((fact, decides)).encode(), digest_size=8).hexdigest(),
            gate_decision=decision,
        )
        given.first = given.first or report
        self.send(given, report, by)

    def send(self, given: Given, report: TaskReport, by: Replica | None = None) -> None:
        """Send a report, perhaps again."""
        if given in self.open:
            self.open.remove(given)
        replica = by or self.replica
        if replica is None or replica.is_gone:
            return
        task_id = given.lease.task_id
        if self.is_connected and self._session.tasks.get(task_id) == report.token:
            self._session.settle(task_id, report.token)
            self._session.add_credit(1)
        replica.loop.call_soon(self._arrive, replica, report)

    def _arrive(self, replica: Replica, report: TaskReport) -> None:
        def acknowledge(verdict: Verdict) -> None:
            args = {
                "task_id": report.fact.task_id,
                "token": report.token,
                "digest": report.digest,
            }
            op_id = str(len(self._history.operations))
            self._history.note("ok", "ReportTask", op_id, args, status=verdict.status.value)

        replica.engine._registry.report(NAMESPACE, report, acknowledge)


class Follower:
    """Somebody who follows a run, now by the hints of one replica, now by reading the log."""

    def __init__(self, name: str, run_id: str, tables: Tables) -> None:
        self.name = name
        self.run_id = run_id
        self._tables = tables
        self.deliveries: list[Delivery] = []

    def listen(self, replica: Replica) -> None:
        """Be told by a replica of what it commits."""
        replica.on_commit(lambda batch: self._told(batch, replica.name))

    def _told(self, batch: Batch, source: str) -> None:
        for event in batch.events.get(self.run_id, ()):
            if event.seq == len(self.deliveries) + 1:
                payload = json.loads(event.payload)
                delivery = Delivery(
                    seq=event.seq,
                    kind=event.kind,
                    epoch=event.epoch,
                    payload=payload,
                    source=source,
                )
                self.deliveries.append(delivery)

    def read(self) -> None:
        """Read what is in the log behind what came so far."""
        while True:
            event = self._tables.events.get((self.run_id, len(self.deliveries) + 1))
            if event is None:
                return
            self.deliveries.append(
                Delivery(
                    seq=event.seq,
                    kind=event.kind,
                    epoch=event.epoch,
                    payload=event.payload,
                    source="log",
                )
            )

    def subscription(self) -> Subscription:
        """What it saw."""
        return Subscription(
            subscriber=self.name, run_id=self.run_id, deliveries=tuple(self.deliveries)
        )

"""Replicas of the engine in the test's own event loop, workers without a wire, and rogue SQL."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
from psycopg.rows import dict_row

from runkon_server.core.facts import Outcome, Reported
from runkon_server.dsl import snapshot
from runkon_server.runtime import listener, tenure
from runkon_server.runtime.commands import (
    AckStatus,
    PinnedDefinition,
    ReportAck,
    ResolveGate,
    StartRun,
    TaskCancel,
    TaskLease,
    TaskReport,
    WorkerHello,
)
from runkon_server.runtime.engine import Engine, EngineConfig
from runkon_server.store.queues import served_queues
from support.waiting import PATIENCE_S, eventually
from support.workflows import accepted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    import pytest

NAMESPACE: Final = "default"
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
SHORT: Final[dict[str, Any]] = {
    "lease_ttl_s": 60.0,
    "lease_refresh_s": 0.5,
    "scan_s": 0.05,
    "poll_s": 0.2,
    "linger_s": 0.5,
}
"""Little to wait for, and leases that a replica on a busy machine does not lose."""
BRIEF: Final[dict[str, Any]] = {"lease_ttl_s": 2.0}
"""For tests that see leases run out; whoever falls silent for a second may lose his own."""
UNSOUND: Final = (
    """
    SELECT r.id FROM workflow_runs r LEFT JOIN run_events e ON e.run_id = r.id
    GROUP BY r.id HAVING count(e) <> r.last_seq OR coalesce(max(e.seq), 0) <> r.last_seq""",
    """
    SELECT id FROM workflow_runs
    WHERE ended_at IS NOT NULL AND (owner_token IS NOT NULL OR applied_fact_seq <> fact_seq)""",
    """
    SELECT t.id FROM tasks t JOIN workflow_runs r ON r.id = t.run_id
    WHERE r.ended_at IS NOT NULL AND t.state IN ('queued', 'leased')""",
    """
    SELECT t.id FROM timers t JOIN workflow_runs r ON r.id = t.run_id
    WHERE r.ended_at IS NOT NULL""",
    """
    SELECT f.run_id FROM facts f JOIN workflow_runs r ON r.id = f.run_id
    WHERE f.fact_seq <= r.applied_fact_seq""",
)
"""Queries for what must never be there."""
_numbers = itertools.count()


def be_patient_with_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no replica lose its runs because the machine held its listener up for a second.

    Nor the session itself: a new one looks at everything once, which tests count.
    """
    monkeypatch.setattr(tenure, "RELOCK_S", PATIENCE_S)
    monkeypatch.setattr(tenure, "ABSENT_S", PATIENCE_S)
    monkeypatch.setattr(listener, "ANSWER_S", PATIENCE_S)


@asynccontextmanager
async def engine_on(
    dsn: str, *, change: Callable[[Engine], None] | None = None, **settings: Any
) -> AsyncIterator[Engine]:
    """A started replica; `settings` are those of `EngineConfig`, short ones by default.

    Args:
        change: called before the start, for a replica that is to be odd.
    """
    engine = Engine(EngineConfig(**{"dsn": dsn, **SHORT, **settings}))
    if change is not None:
        change(engine)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def pinned(body: str, name: str = "w") -> PinnedDefinition:
    """The checked workflow `name` with these contents."""
    text = body if body.startswith("workflow ") else f"workflow {name} {{ {body} }}"
    definition = accepted(body)
    return PinnedDefinition(
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        snapshot=snapshot.dump(definition),
        definition=definition,
    )


def start(body: str = "call echo", **fields: Any) -> StartRun:
    """A command that starts a run of a workflow with these contents."""
    values = {"namespace": NAMESPACE, "inputs": {}, "principal": "starter"} | fields
    return StartRun(pinned=pinned(body), **values)


def vote(run_id: str | None, principal: str, *, approve: bool = True, **fields: Any) -> ResolveGate:
    """A vote on the gate `check` of a run."""
    values = {"namespace": NAMESPACE, "gate_name": "check"} | fields
    return ResolveGate(run_id=run_id, principal=principal, approve=approve, **values)


class Worker:
    """A worker session whose tasks the test answers itself."""

    def __init__(
        self,
        engine: Engine,
        *actions: str,
        namespace: str = NAMESPACE,
        queues: Iterable[str] = (),
        **offers: Any,
    ) -> None:
        self.leases: list[TaskLease] = []
        self.cancels: list[TaskCancel] = []
        self.acks: list[ReportAck] = []
        self.answers: Outcome | None = None
        """Answer every task so at once, and give its credit back."""
        name = f"worker-{next(_numbers)}"
        hello = WorkerHello(
            namespace=namespace,
            worker_id=name,
            actions=frozenset(actions),
            queues=served_queues(queues),
            **offers,
        )
        self.session = engine.open_session(hello, self._notified)

    def _notified(self) -> None:
        asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        leases, cancels, acks = self.session.take()
        self.leases += leases
        self.cancels += cancels
        self.acks += acks
        if self.answers is not None:
            for lease in leases:
                self.session.add_credit(1)
                self.session.report([report(lease, self.answers)])

    def credit(self, n: int = 1) -> Self:
        """Allow more tasks."""
        self.session.add_credit(n)
        return self

    def serve(self, credit: int = 10) -> Self:
        """Complete everything that comes."""
        self.answers = Outcome.COMPLETED
        return self.credit(credit)

    async def lease(self, number: int = 0, *, within_s: float = PATIENCE_S) -> TaskLease:
        """The task that came as the given one, once it has come."""
        await until(lambda: len(self.leases) > number, "a task comes", within_s=within_s)
        return self.leases[number]

    async def ack(self, number: int = 0) -> ReportAck:
        """The acknowledgement that came as the given one, once it has come."""
        await until(lambda: len(self.acks) > number, "an acknowledgement comes")
        return self.acks[number]

    async def answer(self, lease: TaskLease, **fields: Any) -> AckStatus:
        """Report a task and wait for what that was worth."""
        number = len(self.acks)
        self.session.report([report(lease, **fields)])
        return (await self.ack(number)).verdict.status


def report(
    lease: TaskLease,
    outcome: Outcome = Outcome.COMPLETED,
    *,
    token: str | None = None,
    digest: str = "d",
    **fields: Any,
) -> TaskReport:
    """What a worker says of a task."""
    fact = Reported(task_id=lease.task_id, outcome=outcome, **fields)
    return TaskReport(token=token or lease.token, fact=fact, digest=digest)


async def until(
    condition: Callable[[], object], what: str, *, within_s: float = PATIENCE_S
) -> None:
    """Wait for a condition that needs no waiting itself."""

    async def met() -> object:
        return condition()

    await eventually(met, what, within_s=within_s)


class Rogue:
    """Somebody with a SQL session of his own."""

    def __init__(self, conn: psycopg.AsyncConnection[dict[str, Any]]) -> None:
        self.conn = conn

    async def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """Run one statement and give its rows, if it has any."""
        cursor = await self.conn.execute(statement.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []

    async def row(self, statement: str, *parameters: object) -> dict[str, Any]:
        """The one row of a statement."""
        (only,) = await self.rows(statement, *parameters)
        return only

    async def run(self, run_id: str) -> dict[str, Any]:
        """The hot row of a run."""
        return await self.row("SELECT * FROM workflow_runs WHERE id = %s", run_id)

    async def ended(self, run_id: str, *, within_s: float = PATIENCE_S) -> str:
        """The terminal status of a run, once it has one."""
        await eventually(lambda: self._is_ended([run_id]), f"run {run_id} ends", within_s=within_s)
        status: str = (await self.run(run_id))["status"]
        return status

    async def all_ended(self, run_ids: Sequence[str], *, within_s: float = PATIENCE_S) -> set[str]:
        """The terminal statuses of runs, once all have one."""
        await eventually(lambda: self._is_ended(run_ids), "every run ends", within_s=within_s)
        rows = await self.rows("SELECT status FROM workflow_runs WHERE id = ANY(%s)", list(run_ids))
        return {row["status"] for row in rows}

    async def _is_ended(self, run_ids: Sequence[str]) -> bool:
        row = await self.row(
            "SELECT count(*) AS n FROM workflow_runs WHERE id = ANY(%s) AND status = ANY(%s)",
            list(run_ids),
            list(ENDED),
        )
        return bool(row["n"] == len(run_ids))

    async def parked(self, run_id: str) -> None:
        """Return once nobody owns the run."""

        async def free() -> bool:
            return (await self.run(run_id))["owner_token"] is None

        await eventually(free, f"run {run_id} is parked")

    async def kinds(self, run_id: str) -> list[str]:
        """The kinds of a run's events; fails unless they are numbered 1…n."""
        rows = await self.rows(
            "SELECT seq, kind FROM run_events WHERE run_id = %s ORDER BY seq", run_id
        )
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), run_id
        return [row["kind"] for row in rows]

    async def assert_sound(self) -> None:
        """Every run's events are numbered 1…n, as its counter says; ended runs left nothing."""
        for problem in UNSOUND:
            assert await self.rows(problem) == [], problem


@asynccontextmanager
async def rogue_on(dsn: str) -> AsyncIterator[Rogue]:
    """A SQL session in autocommit."""
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row)
    async with connection as conn:
        yield Rogue(conn)

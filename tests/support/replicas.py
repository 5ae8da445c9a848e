"""A replica that does only what it is told, and a gRPC server around parts of the API.

`FakeReplica` keeps the engine's promises to the API: listeners are called in the event loop, worker
sessions have an outbox and say when there is something in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc

from runkon_server.api.interceptor import CallGuard
from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.commands import (
    AckStatus,
    EventRecord,
    ReportAck,
    TaskLease,
    Verdict,
)
from runkon_server.runtime.settings import EngineConfig
from runkon_server.runtime.stats import EngineStats
from runkon_server.store.quick_reads import Quick, QuickReads
from support.rows import ulid
from support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.api.interceptor import CallObserver
    from runkon_server.api.open_streams import OpenStreams
    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.commands import (
        HeartbeatAnswer,
        TaskCancel,
        TaskHeartbeat,
        TaskReport,
        WorkerHello,
    )
    from runkon_server.store.pipeline import Rows
    from runkon_server.store.quick_reads import Value

RUN = ulid(1)
TASK = f"{RUN}/b.0001/e1/0"


def lease(task_id: str = TASK, **changes: Any) -> TaskLease:
    """A task as the engine hands it out; `changes` are those of its fields."""
    values: dict[str, Any] = {
        "task_id": task_id,
        "token": "t0",
        "namespace": "default",
        "run_id": RUN,
        "workflow_name": "w",
        "step_id": task_id,
        "step_name": "plan",
        "action": "plan",
        "iteration": 1,
        "iterations": (2, 1),
        "attempt": 1,
        "delivery": 0,
        "retries_remaining": 2,
        "idempotency_key": f"{RUN}/b.0001",
        "fence": "7.0",
        "inputs": {"ticket": "T-1"},
        "prior_contexts": "[]",
        "retry_error": None,
        "gate_feedback": None,
        "identity": None,
        "max_turns": None,
        "plugin_dirs": (),
        "lease": timedelta(seconds=12),
        "deadline_at": None,
        "dry_run": False,
    }
    return TaskLease(**(values | changes))


class NotedReads(QuickReads):
    """Quick reads on the database of a pool; each closes its session."""

    def __init__(self, pool: AsyncEngine) -> None:
        url = pool.url.set(drivername="postgresql").render_as_string(hide_password=False)
        super().__init__(url, 30.0)
        self._is_closed = True
        self.asked: list[Quick] = []
        self.answered: Callable[[Quick], None] = lambda _: None
        """Called between the answer and whoever asked."""

    async def fetch(self, statement: Quick, **values: Value) -> Rows:
        self.asked.append(statement)
        rows = await super().fetch(statement, **values)
        self.answered(statement)
        return rows


class FakeReplica:
    """Stands for `runtime.engine.Engine`."""

    def __init__(self, reads: AsyncEngine | None = None) -> None:
        self._reads = reads
        self._quick_reads = None if reads is None else NotedReads(reads)
        self._event_listeners: list[Callable[[str, Sequence[EventRecord] | None], None]] = []
        self._drain_listeners: list[Callable[[], None]] = []
        self._rewrite_listeners: list[Callable[[], None]] = []
        self.config = EngineConfig(dsn="postgresql://nowhere", task_lease_s=12)
        self.ambient: Ambient = SystemAmbient()
        self.replica_id = "replica-1"
        self.stats = EngineStats()
        self.database_is_up = True
        self.sessions: list[FakeSession] = []
        self.polls: list[tuple[WorkerHello, int, float]] = []
        self.poll_answer: list[TaskLease] = []
        self.poll_gate = asyncio.Event()
        self.poll_gate.set()
        self.reports: list[tuple[str, TaskReport]] = []
        self.report_answer = AckStatus.ACCEPTED
        self.beats: list[tuple[str, TaskHeartbeat]] = []
        self.beat_answer: HeartbeatAnswer | None = None

    @property
    def reads(self) -> AsyncEngine:
        assert self._reads is not None
        return self._reads

    @property
    def quick_reads(self) -> NotedReads:
        assert self._quick_reads is not None
        return self._quick_reads

    def on_events(
        self, listener: Callable[[str, Sequence[EventRecord] | None], None]
    ) -> Callable[[], None]:
        self._event_listeners.append(listener)
        return lambda: self._event_listeners.remove(listener)

    def on_drain(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._drain_listeners.append(listener)
        return lambda: self._drain_listeners.remove(listener)

    def on_rewrite(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._rewrite_listeners.append(listener)
        return lambda: self._rewrite_listeners.remove(listener)

    def rewrite(self) -> None:
        """Have a standby take over."""
        for listener in self._rewrite_listeners:
            listener()

    def tell(self, run_id: str, events: Sequence[EventRecord] | None) -> None:
        """Say what was committed."""
        for listener in self._event_listeners:
            listener(run_id, events)

    def drain(self) -> None:
        """Begin to go away."""
        for listener in self._drain_listeners:
            listener()

    def open_session(self, hello: WorkerHello, notify: Callable[[], None]) -> FakeSession:
        session = FakeSession(hello, notify)
        self.sessions.append(session)
        return session

    async def poll_tasks(
        self, hello: WorkerHello, *, max_tasks: int, wait_s: float
    ) -> list[TaskLease]:
        self.polls.append((hello, max_tasks, wait_s))
        await self.poll_gate.wait()
        return self.poll_answer

    async def report_task(self, namespace: str, report: TaskReport) -> ReportAck:
        self.reports.append((namespace, report))
        verdict = Verdict(self.report_answer)
        return ReportAck(task_id=report.fact.task_id, token=report.token, verdict=verdict)

    async def heartbeat_task(self, namespace: str, beat: TaskHeartbeat) -> HeartbeatAnswer:
        self.beats.append((namespace, beat))
        assert self.beat_answer is not None
        return self.beat_answer


class FakeSession:
    """Stands for `runtime.sessions.WorkerSession`; remembers the order of what it was told."""

    def __init__(self, hello: WorkerHello, notify: Callable[[], None]) -> None:
        self.hello = hello
        self.is_closed = False
        self.heard: list[tuple[str, Any]] = []
        self._notify = notify
        self._outbox: tuple[list[TaskLease], list[TaskCancel], list[ReportAck]] = ([], [], [])

    def add_credit(self, n: int) -> None:
        self.heard.append(("credit", n))

    def report(self, reports: Sequence[TaskReport]) -> None:
        self.heard.append(("report", list(reports)))

    def heartbeat(self, beats: Sequence[TaskHeartbeat]) -> None:
        self.heard.append(("heartbeat", list(beats)))

    def drain(self) -> None:
        self.heard.append(("drain", None))

    def close(self) -> None:
        self.is_closed = True
        self.heard.append(("close", None))

    def take(self) -> tuple[list[TaskLease], list[TaskCancel], list[ReportAck]]:
        taken = self._outbox
        self._outbox = ([], [], [])
        return taken

    def put(
        self,
        *,
        leases: Sequence[TaskLease] = (),
        cancels: Sequence[TaskCancel] = (),
        acks: Sequence[ReportAck] = (),
    ) -> None:
        """Put things into the outbox."""
        self._outbox[0].extend(leases)
        self._outbox[1].extend(cancels)
        self._outbox[2].extend(acks)
        self._notify()

    def told(self, what: str) -> list[Any]:
        """Everything of one kind that was heard."""
        return [value for kind, value in self.heard if kind == what]


@contextlib.asynccontextmanager
async def serving(
    *register: Callable[[grpc.aio.Server], None],
    observer: CallObserver | None = None,
    open_streams: OpenStreams | None = None,
    channel_options: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server with these services behind the guard of every call."""
    server = grpc.aio.server(
        interceptors=[CallGuard(SystemAmbient(), observer, open_streams)],
        options=[("grpc.so_reuseport", 0)],
    )
    for add in register:
        add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0), *channel_options]
        ) as channel:
            yield channel
    finally:
        await server.stop(0)


async def read(call: Any, within_s: float = PATIENCE_S) -> Any:
    """The next frame of a stream, or `grpc.aio.EOF`."""
    return await asyncio.wait_for(call.read(), within_s)

"""What is played on a server with failpoints: programs that pass every point, and how they end.

The server under test comes first at every address, so that it does the work while it lives; the
survivor is frozen meanwhile, unless the play needs it, and takes over afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import grpc
import psycopg

from runkon.v1 import workers_pb2, workers_pb2_grpc
from runkon_client import Actions, Client, FinalError, RetryableError, RetryPolicy
from runkon_client.values import ConflictPolicy, EventKind, GateState, RunStatus
from runkon_client.worker import Approved, GateTask
from support.clusters import either, working

if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import AsyncIterator

    from runkon_client import StartedRun, Task
    from support.clusters import Replica

PATIENT: Final = RetryPolicy(window_s=120)
LIVE: Final = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING})

SOURCES: Final = (
    "workflow item { inputs { n required } call work }",
    "workflow gated { gate human_approval { name = go } call work }",
    """workflow everything {
      inputs { numbers required }
      parallel { call work call echo }
      call flaky { retries = 1 retry_delay = "200ms" }
      foreach all {
        over = list
        max_parallel = 2
        workflow = item
        scope = { items = "{{numbers}}" }
        inputs = { n = "{{item.id}}" }
      }
      call slow
      call workflow gated
      gate window {}
      always { call work { as = last } }
    }""",
)
WAITS: Final = """workflow waits {
  gate human_approval { timeout = "1s" on_timeout = continue }
  call work
}"""
TWO: Final = "workflow two { call work call work }"


class Play(Protocol):
    """Starts runs and sees to it that each ends."""

    async def __call__(self, stage: Stage) -> None:
        """Play; returns when every run of `stage.expected` has ended or soon will."""


@dataclass(slots=True)
class Stage:
    """One server under test, and everything around it."""

    dsn: str
    victim: Replica
    survivor: Replica
    client: Client
    expected: dict[str, RunStatus]
    """How runs have to end."""
    effects: defaultdict[str, list[str]]
    """Idempotency key → the tasks that were executed under it."""
    is_mended: bool = False
    """What is broken at first works now."""

    @property
    def addresses(self) -> str:
        """The server under test, and the survivor if that is gone."""
        return either(self.victim, self.survivor)

    async def start(self, workflow: str = "", **options: object) -> StartedRun:
        """Start a run that has to complete."""
        run = await self.client.start_run(workflow, **options)  # type: ignore[arg-type] # checked by the server
        self.expected[run.id] = RunStatus.COMPLETED
        return run

    def freeze(self) -> None:
        """Let the survivor stand still."""
        self.survivor.server.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; harmless if it does."""
        self.survivor.server.process.send_signal(signal.SIGCONT)

    def actions(self) -> Actions:
        """What workers do; every execution is noted before it is reported."""
        actions = Actions()
        actions.fallback(self._work)
        actions.action("flaky")(self._flaky)
        actions.action("slow")(self._slow)
        actions.action("broken")(self._broken)
        actions.action("held")(_held)
        actions.gate("window")(_look)
        return actions

    def note(self, task: Task) -> None:
        """Remember that a task was executed."""
        self.effects[task.idempotency_key].append(task.id)

    async def _work(self, task: Task) -> str:
        self.note(task)
        return "done"

    async def _flaky(self, task: Task) -> str:
        self.note(task)
        if task.attempt == 0:
            raise RetryableError("not yet")
        return "done"

    async def _slow(self, task: Task) -> str:
        self.note(task)
        await asyncio.sleep(0.9)  # longer than the time between heartbeats
        return "done"

    async def _broken(self, task: Task) -> str:
        if not self.is_mended:
            raise FinalError("broken")
        self.note(task)
        return "mended"


async def _held(_: Task) -> None:
    await asyncio.Event().wait()


async def _look(_: GateTask) -> Approved:
    return Approved()


async def everything(stage: Stage) -> None:
    """Calls, a retry, items with children, a child that waits, a gate with a program, `always`."""
    stage.freeze()
    async with working(stage.addresses, stage.actions()):
        run = await start_everything(stage)
        await finish(stage, run)


async def start_everything(stage: Stage) -> StartedRun:
    """Store the workflows and start the large one."""
    for source in SOURCES:
        await stage.client.put_workflow(source)
    return await stage.start("everything", inputs={"numbers": '["1", "2", "3"]'})


async def finish(stage: Stage, run: StartedRun) -> None:
    """Follow a run to its end, and approve its child's gate."""
    approving = asyncio.create_task(approve_all(stage))
    try:
        seqs = [event.seq async for event in run.events()]
    finally:
        approving.cancel()
    assert seqs == [*range(1, len(seqs) + 1)], f"the stream of {run.id} told {seqs}"


async def approve_all(stage: Stage) -> None:
    """Approve every gate for people, again and again, until cancelled."""
    while True:
        async for gate in stage.client.gates(gate_type="human_approval", state=GateState.PENDING):
            await gate.approve()
        await asyncio.sleep(0.1)


async def waits(stage: Stage) -> None:
    """Runs that begin later, and gates that nobody answers."""
    stage.freeze()
    async with working(stage.addresses, stage.actions()):
        runs = [
            await stage.start(source=WAITS, start_delay=timedelta(milliseconds=delay))
            for delay in (1, 200)
        ]
        await asyncio.gather(*(run.wait() for run in runs))


async def cancelled(stage: Stage) -> None:
    """A run is cancelled while its task is out."""
    stage.freeze()
    async with working(stage.addresses, stage.actions()):
        run = await stage.start(source="workflow w { call held }")
        await started(run)
        stage.expected[run.id] = RunStatus.CANCELLED
        await run.cancel("for a test")
        await run.wait()


async def started(run: StartedRun) -> None:
    """Return when the run's first step has started."""
    async for _ in run.events(kinds=[EventKind.STEP_STARTED]):
        return


async def resumed(stage: Stage) -> None:
    """A run fails, is mended, and taken up again."""
    stage.freeze()
    stage.is_mended = False
    async with working(stage.addresses, stage.actions()):
        run = await stage.start(source="workflow w { call work call broken }")
        failed = await run.wait()
        assert failed.status is RunStatus.FAILED, failed.status
        stage.is_mended = True
        await run.resume()
        await run.wait()


async def keyed(stage: Stage) -> None:
    """Two starts under one key are one run; the key goes on to the next when that has ended."""
    stage.freeze()
    async with working(stage.addresses, stage.actions()):
        options = {"key": "the-one", "conflict_policy": ConflictPolicy.USE_EXISTING}
        held = await stage.start(source="workflow w { call held }", **options)
        again = await stage.client.start_run(source="workflow w { call held }", **options)  # type: ignore[arg-type] # as above
        assert again.id == held.id, (again.id, held.id)
        stage.expected[held.id] = RunStatus.CANCELLED
        await held.cancel()
        await held.wait()
        next_one = await stage.start(source=TWO, **options)
        assert next_one.id != held.id
        await next_one.wait()


async def elsewhere(stage: Stage) -> None:
    """The survivor owns the run and the other has the worker; then the other way about."""
    async with (
        Client(either(stage.survivor, stage.victim), retry=PATIENT) as other,
        working(stage.addresses, stage.actions()),
    ):
        run = await other.start_run(source=TWO)
        stage.expected[run.id] = RunStatus.COMPLETED
        held = await stage.start(source="workflow w { call held }")
        await started(held)
        stage.expected[held.id] = RunStatus.CANCELLED
        await other.run(held.id).cancel("asked elsewhere")
        await asyncio.gather(run.wait(), held.wait())


async def silent(stage: Stage) -> None:
    """Tasks are polled and never reported; one is cancelled, the other done by somebody else."""
    stage.freeze()
    doomed = await stage.start(source="workflow w { call silent }")
    await _poll(stage)
    stage.expected[doomed.id] = RunStatus.CANCELLED
    await doomed.cancel()
    again = await stage.start(source="workflow w { call silent }")
    await _poll(stage)
    async with working(stage.addresses, stage.actions()):
        await asyncio.gather(doomed.wait(), again.wait())


async def _poll(stage: Stage) -> None:
    """Take a task without a stream, and forget it; until there is one, wherever it is."""
    request = workers_pb2.PollTasksRequest(worker_id="silent", actions=["silent"], max_tasks=1)
    request.wait.FromTimedelta(timedelta(seconds=2))
    async with asyncio.timeout(60):
        while True:
            for replica in (stage.victim, stage.survivor):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    async with _channel(replica.address) as channel:
                        stub = workers_pb2_grpc.WorkerServiceStub(channel)
                        answer = await stub.PollTasks(request, timeout=3)
                        if answer.leases:
                            return


@contextlib.asynccontextmanager
async def _channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        yield channel


async def stopped(stage: Stage) -> None:
    """SIGTERM in the middle of a run."""
    async with working(stage.addresses, stage.actions()):
        run = await start_everything(stage)
        async for _ in run.events(kinds=[EventKind.STEP_COMPLETED]):
            break
        stage.victim.server.process.send_signal(signal.SIGTERM)
        await finish(stage, run)


async def cut(stage: Stage) -> None:
    """Every session of the database is ended in the middle of a run."""
    async with working(stage.addresses, stage.actions()):
        run = await start_everything(stage)
        async for _ in run.events(kinds=[EventKind.STEP_COMPLETED]):
            break
        async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await finish(stage, run)

"""A worker that breaks the rules: reports late, twice, or under tokens that are not its own."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from runkon.v1 import types_pb2, workers_pb2, workers_pb2_grpc
from runkon_client.channel import CHANNEL_OPTIONS
from runkon_client.errors import error_from_rpc
from runkon_client.verify.orders import orders
from runkon_client.verify.roles import act

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runkon_client.verify.histories import History

TASKS_MAX: Final = 3
POLL_S: Final = 1
CALL_S: Final = 4.0
BREAK_S: Final = 0.2
WAYS: Final = ("honest", "twice", "forged", "foreign", "late", "silent")
STALE: Final = frozenset({"TASK_ATTEMPT_STALE", "TASK_NOT_FOUND"})


class Rogue:
    """Polls for tasks and treats each in one of several bad ways.

    Args:
        lease_s: how long a task is leased for; a late report comes after that.
        queues: those that it serves; none: the default one.
    """

    def __init__(
        self,
        history: History,
        address: str,
        *,
        seed: int,
        lease_s: float,
        queues: Sequence[str] = (),
    ) -> None:
        self._history = history
        self._address = address
        self._chance = random.Random(seed)  # noqa: S311 - decides what a test does
        self._lease_s = lease_s
        self._queues = tuple(queues)
        self._old: list[tuple[str, str]] = []
        """Ids and tokens of tasks that it once had."""
        self._is_honest = False

    async def run(self) -> None:
        """Work until standard input ends; from the word `quiet` on by the rules."""
        stopping = asyncio.create_task(self._obey())
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
            stub = workers_pb2_grpc.WorkerServiceStub(channel)
            working = asyncio.create_task(self._work(stub))
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _obey(self) -> None:
        async for order in orders():
            self._is_honest = self._is_honest or order == "quiet"

    async def _work(self, stub: workers_pb2_grpc.WorkerServiceAsyncStub) -> None:
        request = workers_pb2.PollTasksRequest(
            worker_id=self._history.name,
            actions=["*"],
            queues=self._queues,
            max_tasks=TASKS_MAX,
            wait=Duration(seconds=POLL_S),
        )
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    answer = await stub.PollTasks(request, timeout=POLL_S + CALL_S)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(BREAK_S)
                    continue
                for lease in answer.leases:
                    group.create_task(self._mistreat(stub, lease))
                await asyncio.sleep(BREAK_S)

    async def _mistreat(
        self, stub: workers_pb2_grpc.WorkerServiceAsyncStub, lease: workers_pb2.TaskLease
    ) -> None:
        outcome = act(
            lease.action, attempt=lease.attempt, iteration=lease.iteration, inputs=lease.inputs
        )
        self._history.affect(
            idem_key=lease.idempotency_key,
            run=lease.run_id,
            workflow=lease.workflow_name,
            step=lease.action,
            step_id=lease.step_id,
            iterations=list(lease.iterations),
            item=lease.inputs.get("item", ""),
            attempt=lease.attempt,
            delivery=lease.delivery,
            task=lease.task_id,
            fence=lease.fence,
            queues=self._queues,
            payload=outcome.outcome,
        )
        report = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token)
        if outcome.fails:
            report.failure.message = f"{lease.action} fails as its name says"
            report.failure.code = "SCRIPTED"
            report.failure.retryable = not outcome.is_final
        else:
            report.result.CopyFrom(types_pb2.StepResult(markers=outcome.markers))
        way = "honest" if self._is_honest else self._chance.choice(WAYS)
        match way:
            case "late":
                await asyncio.sleep(self._lease_s * (1.3 + self._chance.random()))
            case "silent":
                return
            case "forged":
                await self._report(stub, report, way, token="no-such-token")  # noqa: S106 - none
            case "foreign" if self._old:
                task_id, token = self._chance.choice(self._old)
                await self._report(stub, report, way, token=token)
                await self._report(stub, report, way, task_id=task_id)
            case _:
                pass
        await self._report(stub, report, "honest" if way in {"forged", "foreign"} else way)
        if way == "twice":
            await self._report(stub, report, way)
        self._old = [*self._old[-50:], (lease.task_id, lease.token)]

    async def _report(
        self,
        stub: workers_pb2_grpc.WorkerServiceAsyncStub,
        report: workers_pb2.TaskReport,
        way: str,
        **other: str,
    ) -> None:
        sent = workers_pb2.TaskReport()
        sent.CopyFrom(report)
        for name, value in other.items():
            setattr(sent, name, value)
        operation = self._history.begin(
            "ReportTask",
            task_id=sent.task_id,
            token=sent.token,
            digest=hashlib.sha256(sent.SerializeToString(deterministic=True)).hexdigest(),
            way=way,
        )
        try:
            answer = await stub.ReportTask(
                workers_pb2.ReportTaskRequest(report=sent), timeout=CALL_S
            )
        except grpc.aio.AioRpcError as rpc_error:
            error = error_from_rpc(rpc_error)
            status = "stale" if error.reason in STALE else "refused"
            operation.failed(error, status=status)
        else:
            operation.ok({"status": "duplicate" if answer.replayed else "accepted"})

"""A worker for tests of the API: it takes one task after the other, and reports what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from runkon.v1 import runs_pb2, types_pb2, workers_pb2, workers_pb2_grpc, workflows_pb2

if TYPE_CHECKING:
    from support.live_api import LiveApi

WORKER = (("runkon-principal", "robot"),)
ZOE = (("runkon-principal", "zoe"),)


class Hand:
    """Takes tasks by plain calls.

    Args:
        api: the replica.
        offers: as in `PollTasksRequest`; without any it takes every action.
    """

    def __init__(self, api: LiveApi, **offers: Any) -> None:
        self._stub = workers_pb2_grpc.WorkerServiceStub(api.channel)
        self._offers = offers or {"actions": ["*"]}

    async def take(self) -> workers_pb2.TaskLease:
        """The next task; fails if there is none for as long as a call may wait."""
        answer = await self._stub.PollTasks(
            workers_pb2.PollTasksRequest(
                worker_id="hand", wait=Duration(seconds=50), **self._offers
            ),
            metadata=WORKER,
        )
        (lease,) = answer.leases
        return lease

    async def report(self, lease: workers_pb2.TaskLease, **outcome: Any) -> None:
        """End a task."""
        report = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token, **outcome)
        await self._stub.ReportTask(workers_pb2.ReportTaskRequest(report=report), metadata=WORKER)

    async def do(self, **outcome: Any) -> workers_pb2.TaskLease:
        """Take the next task and end it; well, unless an outcome is given."""
        lease = await self.take()
        await self.report(lease, **(outcome or {"result": types_pb2.StepResult()}))
        return lease

    async def fail(self, message: str = "no luck") -> workers_pb2.TaskLease:
        """Take the next task and end it badly, for good."""
        return await self.do(failure={"message": message, "retryable": False})


async def put(api: LiveApi, source: str, **beside: Any) -> None:
    """Store a workflow."""
    await api.workflows.PutWorkflow(workflows_pb2.PutWorkflowRequest(source=source, **beside))


async def start(api: LiveApi, source: str = "", **fields: Any) -> str:
    """Start a run, of a source unless a workflow is named; gives its id."""
    if source:
        fields["source"] = source
    answer = await api.runs.StartRun(runs_pb2.StartRunRequest(**fields), metadata=ZOE)
    return str(answer.run.id)


async def run_of(api: LiveApi, run_id: str) -> types_pb2.Run:
    """The run as it is now."""
    return (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run


async def ended(api: LiveApi, run_id: str) -> types_pb2.Run:
    """The run at its end."""
    answer = await api.runs.AwaitRun(runs_pb2.AwaitRunRequest(run_id=run_id))
    assert answer.done
    return answer.run


async def waiting(api: LiveApi, run_id: str) -> types_pb2.Run:
    """The run when it stands at a gate, its own or a child's."""
    async for frame in api.runs.StreamRunEvents(runs_pb2.StreamRunEventsRequest(run_id=run_id)):
        if any(event.WhichOneof("payload") == "run_waiting" for event in frame.events.events):
            break
    return await run_of(api, run_id)


async def events_of(api: LiveApi, run_id: str, after_seq: int = 0) -> list[Any]:
    """The payloads above a sequence, as they are now."""
    answer = await api.runs.ListRunEvents(
        runs_pb2.ListRunEventsRequest(run_id=run_id, after_seq=after_seq, page_size=500)
    )
    return [getattr(event, event.WhichOneof("payload") or "") for event in answer.events]


async def steps_of(api: LiveApi, run_id: str, **fields: Any) -> list[types_pb2.Step]:
    """The first page of a run's steps."""
    request = runs_pb2.ListStepsRequest(run_id=run_id, page_size=500, **fields)
    return list((await api.runs.ListSteps(request)).steps)

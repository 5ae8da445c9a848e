"""A stage that is the product: gRPC, a replica, PostgreSQL; its worker answers when told to."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from runkon.v1 import (
    events_pb2,
    gates_pb2,
    gates_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
    types_pb2,
    workers_pb2,
    workers_pb2_grpc,
    workflows_pb2,
    workflows_pb2_grpc,
)
from support.stage import PROVIDED, Given, ItemRow, Refused, Row, Stage
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

PROVIDER: Final = "things"
"""The item provider that the stage's worker is."""
GATE_TYPE: Final = "deploy"
"""The gates that the stage's worker looks after."""
_TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
_POLL_S: Final = 1
_OPEN_TASKS: Final = """
SELECT t.id, s.step_name, t.cancel_requested_at IS NOT NULL
FROM tasks t JOIN workflow_run_steps s ON s.workflow_run_id = t.run_id AND s.id = t.step_id
WHERE t.namespace = %s AND t.state IN ('queued', 'leased')"""
_ASKED: Final = """
SELECT count(*) FROM tasks
WHERE namespace = %s AND id = ANY(%s) AND cancel_requested_at IS NOT NULL"""
_LET_PASS: Final = """
WITH due AS (
    UPDATE timers t SET due_at = clock_timestamp() FROM workflow_runs r
    WHERE r.id = t.run_id AND r.namespace = %(namespace)s AND t.kind = %(kind)s
    RETURNING t.run_id, t.id
), gate AS (
    UPDATE gates g SET deadline_at = clock_timestamp() FROM due
    WHERE g.run_id = due.run_id AND g.id || ':gate' = due.id
)
UPDATE workflow_runs r SET ready_at = clock_timestamp()
FROM due WHERE r.id = due.run_id RETURNING r.id"""


class LiveStage(Stage):
    """Waits for what it plays; to be used as a context: it has a worker.

    Args:
        channel: to the replica.
        database: for the clock, which no caller can move, and for what was told to a worker.
        namespace: of this stage alone.
    """

    is_live = True

    def __init__(self, channel: grpc.aio.Channel, database: str, namespace: str) -> None:
        self.run_id = ""
        self._namespace = namespace
        self._database = database
        self._runs = runs_pb2_grpc.RunServiceStub(channel)
        self._gate_service = gates_pb2_grpc.GateServiceStub(channel)
        self._workflows = workflows_pb2_grpc.WorkflowServiceStub(channel)
        self._workers = workers_pb2_grpc.WorkerServiceStub(channel)
        self._leases: list[workers_pb2.TaskLease] = []
        self._answered: set[str] = set()
        self._polling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to work."""
        self._polling = asyncio.create_task(self._poll())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop working."""
        assert self._polling is not None
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)

    async def _poll(self) -> None:
        request = workers_pb2.PollTasksRequest(
            namespace=self._namespace,
            worker_id=f"stage-{self._namespace}",
            actions=["*"],
            item_providers=[PROVIDER],
            gate_types=[GATE_TYPE],
            scripts=True,
            max_tasks=100,
            wait=Duration(seconds=_POLL_S),
        )
        while True:
            answer = await self._workers.PollTasks(request)
            self._leases.extend(answer.leases)

    async def has_run(self) -> bool:
        answer = await self._runs.ListRuns(runs_pb2.ListRunsRequest(namespace=self._namespace))
        return bool(answer.runs)

    async def put(self, name: str, body: str) -> None:
        source = f"workflow {name} {{ {body} }}"
        request = workflows_pb2.PutWorkflowRequest(namespace=self._namespace, source=source)
        await _asked(self._workflows.PutWorkflow(request))

    async def start(
        self,
        body: str,
        inputs: Mapping[str, str] | None = None,
        *,
        schemas: Mapping[str, str] | None = None,
        snippets: Mapping[str, str] | None = None,
        fail_fast: bool = True,
        dry_run: bool = False,
        starter: str = "starter",
        is_delayed: bool = False,
    ) -> None:
        request = runs_pb2.StartRunRequest(
            namespace=self._namespace,
            source=f"workflow w {{ {body} }}",
            output_schemas=schemas or {},
            snippets=snippets or {},
            inputs=inputs or {},
            dry_run=dry_run,
            config=types_pb2.RunConfig(fail_fast=fail_fast),
            start_delay=Duration(seconds=3600) if is_delayed else None,
        )
        answer = await _asked(self._runs.StartRun(request, metadata=_as(starter)))
        self.run_id = answer.run.id

    async def _sql(self, statement: str, parameters: Any) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self._database, autocommit=True) as conn:
            cursor = await conn.execute(statement.encode(), parameters)
            return await cursor.fetchall()

    async def _open(self) -> list[str]:
        found = await self._sql(_OPEN_TASKS, (self._namespace,))
        return sorted(name for _, name, _ in found)

    def _lease(self, name: str) -> workers_pb2.TaskLease | None:
        for lease in self._leases:
            if _is_of(lease, name) and lease.task_id not in self._answered:
                return lease
        return None

    async def _task(self, name: str) -> workers_pb2.TaskLease:
        async def is_there() -> bool:
            return self._lease(name) is not None

        await eventually(is_there, f"a task of step {name}")
        lease = self._lease(name)
        assert lease is not None
        return lease

    async def _report(self, name: str, **outcome: Any) -> None:
        lease = await self._task(name)
        self._answered.add(lease.task_id)
        report = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token, **outcome)
        request = workers_pb2.ReportTaskRequest(namespace=self._namespace, report=report)
        await _asked(self._workers.ReportTask(request))

    async def complete(self, *names: str, **result: Any) -> None:
        for name in names:
            await self._report(name, result=types_pb2.StepResult(**result))

    async def fail(self, name: str, error: str = "broken", *, retryable: bool = True) -> None:
        await self._report(
            name, failure=workers_pb2.TaskFailure(message=error, retryable=retryable)
        )

    async def contradict(self, name: str) -> None:
        lease = [each for each in self._leases if _is_of(each, name)][-1]
        assert lease.task_id in self._answered, "not answered yet"
        failure = workers_pb2.TaskFailure(message="after all")
        report = workers_pb2.TaskReport(task_id=lease.task_id, token=lease.token, failure=failure)
        request = workers_pb2.ReportTaskRequest(namespace=self._namespace, report=report)
        with pytest.raises(Refused, match=r"REPORT_CONFLICT|TASK_ATTEMPT_STALE"):
            await _asked(self._workers.ReportTask(request))

    async def stopped(self, name: str) -> None:
        await self._report(name, cancelled=workers_pb2.TaskCancelled())

    async def collect(
        self,
        name: str,
        items: Sequence[str],
        *,
        types: Sequence[str] = (),
        edges: Sequence[tuple[str, str]] = (),
        context: Mapping[str, str] | None = None,
    ) -> None:
        listed = [
            workers_pb2.Item(
                item_type=kind,
                item_id=each,
                item_ref=f"ref {each}",
                context=context or {},
                depends_on=[blocker for blocker, dependent in edges if dependent == each],
            )
            for kind, each in zip(types or [PROVIDED] * len(items), items, strict=True)
        ]
        await self._report(name, items=workers_pb2.ItemList(items=listed))

    async def approve(
        self,
        feedback: str = "",
        *,
        selections: Sequence[str] = (),
        who: str = "ann",
        gate: str = "",
    ) -> None:
        await self._resolve("GATE_DECISION_APPROVE", who, gate, feedback, selections)

    async def reject(self, feedback: str = "", *, who: str = "ann", gate: str = "") -> None:
        await self._resolve("GATE_DECISION_REJECT", who, gate, feedback, ())

    async def _resolve(
        self, decision: str, who: str, gate: str, feedback: str, selections: Sequence[str]
    ) -> None:
        request = gates_pb2.ResolveGateRequest(
            namespace=self._namespace,
            gate_id=await self._gate(gate),
            decision=gates_pb2.GateDecision.Value(decision),
            feedback=feedback,
            selections=selections,
        )
        await _asked(self._gate_service.ResolveGate(request, metadata=_as(who)))

    async def _gate(self, name: str) -> str:
        """The open gate; if none comes and one was decided, that one."""
        found: list[gates_pb2.Gate] = []

        async def is_there() -> bool:
            request = gates_pb2.ListGatesRequest(namespace=self._namespace)
            answer = await self._gate_service.ListGates(request)
            found[:] = [gate for gate in answer.gates if name in ("", gate.name)]
            return bool(found)

        await eventually(is_there, f"a gate {name}")
        return found[0].id

    async def pass_time(self, kind: str) -> None:
        """The database's clock decides, so the timer is moved; a run in memory must park first."""
        values = {"namespace": self._namespace, "kind": kind}

        async def is_set() -> bool:
            return bool(await self._sql(_LET_PASS, values))

        async def is_gone() -> bool:
            left = await self._sql(
                "SELECT 1 FROM timers t JOIN workflow_runs r ON r.id = t.run_id"
                " WHERE r.namespace = %(namespace)s AND t.kind = %(kind)s"
                " AND t.due_at <= clock_timestamp()",
                values,
            )
            return not left

        await eventually(is_set, f"a timer of kind {kind}")
        await eventually(is_gone, f"timer of kind {kind} went off")

    async def cancel(
        self, reason: str = "enough", *, force: bool = False, run_id: str = ""
    ) -> None:
        request = runs_pb2.CancelRunRequest(
            namespace=self._namespace, run_id=run_id or self.run_id, reason=reason, force=force
        )
        await _asked(self._runs.CancelRun(request))

    async def resume(self, mode: str = "normal", *, step: str = "") -> None:
        step_id = ""
        if step:
            rows = await self.rows(step)
            step_id = rows[0].id if rows else step
        request = runs_pb2.ResumeRunRequest(
            namespace=self._namespace,
            run_id=self.run_id,
            mode=events_pb2.ResumeMode.Value(f"RESUME_MODE_{mode.upper()}"),
            from_step_id=step_id,
        )
        await _asked(self._runs.ResumeRun(request))

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        await eventually(condition, what)

    async def until_open(self, *names: str) -> None:
        wanted = sorted(names)

        async def is_so() -> bool:
            return await self._open() == wanted

        try:
            await eventually(is_so, f"open tasks are {wanted}")
        except AssertionError as error:
            error.add_note(f"they are {await self._open()}")
            raise

    async def _run(self, run_id: str = "") -> types_pb2.Run:
        request = runs_pb2.GetRunRequest(namespace=self._namespace, run_id=run_id or self.run_id)
        answer = await self._runs.GetRun(request)
        run: types_pb2.Run = answer.run
        return run

    async def until_status(self, status: str) -> None:
        async def is_so() -> bool:
            return await self.status() == status

        await eventually(is_so, f"the run is {status}")

    async def until_terminal(self) -> None:
        async def is_so() -> bool:
            return await self.status() in _TERMINAL

        try:
            await eventually(is_so, "the run ends")
        except AssertionError as error:
            error.add_note(f"it is {await self.status()}, open: {await self._open()}")
            raise

    async def status(self, run_id: str = "") -> str:
        return _word(types_pb2.RunStatus.Name((await self._run(run_id)).status), "RUN_STATUS_")

    async def error(self) -> str:
        return (await self._run()).error

    async def summary(self) -> str:
        return (await self._run()).result_summary

    async def metrics(self) -> dict[str, float]:
        metrics = (await self._run()).metrics
        sums = {each.name: value for each, value in metrics.ListFields() if each.name != "duration"}
        if duration_ms := metrics.duration.ToMilliseconds():
            sums["duration_ms"] = duration_ms
        return sums

    async def blocked_on(self) -> str:
        run = await self._run()
        kind = run.blocked_on.WhichOneof("kind") if run.HasField("blocked_on") else None
        return kind or ""

    async def rows(self, name: str = "", *, run_id: str = "") -> list[Row]:
        found: list[Row] = []
        token = ""
        while True:
            answer = await self._runs.ListSteps(
                runs_pb2.ListStepsRequest(
                    namespace=self._namespace,
                    run_id=run_id or self.run_id,
                    include_superseded=True,
                    page_token=token,
                )
            )
            found += [_row(step) for step in answer.steps if name in ("", step.step_name)]
            token = answer.next_page_token
            if not token:
                return found

    async def items(self, name: str) -> list[ItemRow]:
        step = (await self.rows(f"foreach:{name}"))[-1].id
        answer = await self._runs.ListFanOutItems(
            runs_pb2.ListFanOutItemsRequest(namespace=self._namespace, step_id=step, page_size=500)
        )
        return [
            ItemRow(
                item_id=item.item_id,
                status=_word(types_pb2.FanOutItemStatus.Name(item.status), "FAN_OUT_ITEM_STATUS_"),
                child_run_id=item.child_run_id,
                error=item.error,
            )
            for item in answer.items
        ]

    async def _events(self, run_id: str = "") -> list[Any]:
        found: list[Any] = []
        after = 0
        while True:
            answer = await self._runs.ListRunEvents(
                runs_pb2.ListRunEventsRequest(
                    namespace=self._namespace,
                    run_id=run_id or self.run_id,
                    after_seq=after,
                    page_size=500,
                )
            )
            found += answer.events
            after = answer.examined_seq
            if after >= answer.head_seq:
                return found

    async def kinds(self, run_id: str = "") -> list[str]:
        return [event.WhichOneof("payload") for event in await self._events(run_id)]

    async def event(self, kind: str) -> dict[str, Any]:
        for event in reversed(await self._events()):
            if event.WhichOneof("payload") == kind:
                payload: dict[str, Any] = MessageToDict(
                    getattr(event, kind), preserving_proto_field_name=True
                )
                return payload
        raise AssertionError(f"no event of kind {kind}")

    def given(self, name: str, turn: int = -1) -> Given:
        lease = [each for each in self._leases if _is_of(each, name)][turn]
        contexts = (
            None if lease.prior_contexts_omitted else json.loads(lease.prior_contexts or "[]")
        )
        return Given(
            name=name,
            run_id=lease.run_id,
            action=lease.action,
            inputs=dict(lease.inputs),
            prior_contexts=contexts,
            attempt=lease.attempt,
            retries_remaining=lease.retries_remaining,
            iterations=tuple(lease.iterations),
            retry_error=lease.retry_error,
            gate_feedback=lease.gate_feedback if lease.HasField("gate_feedback") else None,
            identity=lease.identity,
            dry_run=lease.dry_run,
            snippets=tuple(snippet.name for snippet in lease.snippets),
            output_schema=lease.output_schema.name,
            idempotency_key=lease.idempotency_key,
            environment=dict(lease.script.environment),
            text=lease.script.text,
            timeout_s=lease.script.timeout.ToMilliseconds() / 1000
            if lease.script.HasField("timeout")
            else None,
        )

    def times_given(self, name: str) -> int:
        return sum(_is_of(lease, name) for lease in self._leases)

    async def was_asked_to_stop(self, name: str) -> bool:
        async def is_so() -> bool:
            tasks = [lease.task_id for lease in self._leases if _is_of(lease, name)]
            ((count,),) = await self._sql(_ASKED, (self._namespace, tasks))
            return bool(count)

        try:
            await eventually(is_so, "told to stop")
        except AssertionError:
            return False
        return True

    async def child_inputs(self, run_id: str) -> dict[str, str]:
        return dict((await self._run(run_id)).inputs)


def _as(principal: str) -> tuple[tuple[str, str], ...]:
    return (("runkon-principal", principal),)


def _is_of(lease: workers_pb2.TaskLease, name: str) -> bool:
    step, _, item = name.partition("@")
    return lease.step_name == step and item in ("", lease.inputs.get("item.id"))


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _row(step: types_pb2.Step) -> Row:
    counts = step.fan_out
    return Row(
        id=step.id,
        name=step.step_name,
        role=_word(types_pb2.StepRole.Name(step.role), "STEP_ROLE_"),
        status=_word(types_pb2.StepStatus.Name(step.status), "STEP_STATUS_"),
        position=step.position,
        iteration=step.iteration,
        retry_count=step.retry_count,
        epoch=step.epoch,
        superseded_epoch=step.superseded_epoch,
        result_text=step.result_text,
        context=step.context,
        markers=tuple(step.markers),
        structured_output=step.structured_output,
        error=step.step_error,
        error_code=step.error_code,
        child_run_id=step.child_run_id,
        condition_met=step.condition_met if step.HasField("condition_met") else None,
        fan_out=(counts.total, counts.completed, counts.failed, counts.skipped)
        if step.HasField("fan_out")
        else None,
    )


async def _asked(call: Awaitable[Any]) -> Any:
    """The answer; an error that says why becomes `Refused`."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        failed: Any = error
        status: Any = rpc_status.from_call(failed)
        info = error_details_pb2.ErrorInfo()
        for detail in status.details if status is not None else ():
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        if not info.reason:
            raise
        raise Refused(info.reason, status.message) from error

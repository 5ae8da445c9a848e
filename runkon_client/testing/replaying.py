"""Playing a recorded run once more: what would today's definitions make of yesterday's work?"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import timedelta
from difflib import unified_diff
from typing import TYPE_CHECKING, Final

from runkon_client.client import Client
from runkon_client.errors import PreconditionError
from runkon_client.testing.recording import Recording, record
from runkon_client.values import GateState, StepStatus
from runkon_client.worker import ActionOutput, Actions, FinalError, RetryableError, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_client.handles import ListedGate, RunHandle
    from runkon_client.testing.local import LocalServer
    from runkon_client.testing.recording import RecordedGate, RecordedStep
    from runkon_client.values import Run
    from runkon_client.worker import ScriptTask, Task

NOT_RECORDED: Final = "NOT_RECORDED"
_LOOK_S: Final = 0.02
_QUIET_S: Final = 0.3
"""After this long without an event the clock is moved: something waits for it."""
_SKIP: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it."""

    run: Run
    differences: tuple[str, ...]
    """Lines as of `diff -u` of the steps' outcomes, recorded and replayed; empty: all the same."""


async def replay(
    recording: Recording,
    server: LocalServer,
    *,
    sources: Mapping[str, str] | None = None,
    timeout: timedelta = timedelta(seconds=60),
) -> Replay:
    """Play a recording on a server, in a namespace of its own.

    Actions and scripts answer what they answered then, attempt by attempt; gates are decided as
    they were, or time out; pauses are skipped. A step that the recording does not know fails with
    the code NOT_RECORDED.

    Args:
        recording: from `record`.
        server: a local one, for its clock is moved.
        sources: definitions to use instead of the recorded ones, by the names of workflows.
        timeout: of the wall clock.

    Raises:
        TimeoutError: the run has not ended by then; a gate that was never decided may be open.
        InvalidArgumentError: a definition is not accepted.
    """
    namespace = server.new_namespace()
    memory = _Memory(recording)
    async with Client(server.address, namespace=namespace, principal="replay") as client:
        for each in recording.workflows:
            await client.put_workflow(
                (sources or {}).get(each.name, each.source),
                output_schemas=each.output_schemas,
                snippets=each.snippets,
            )
        worker = Worker(
            server.address, namespace=namespace, principal="replay", actions=memory.actions()
        )
        working = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                started = await client.start_run(recording.workflow, inputs=recording.inputs)
                run = await _follow(client, started, memory, server)
                replayed = await record(client, run.id)
        finally:
            worker.stop()
            await working
    return Replay(run, tuple(_differences(recording, replayed)))


async def _follow(client: Client, started: RunHandle, memory: _Memory, server: LocalServer) -> Run:
    """Do what people and time did, until the run has ended."""
    ending = asyncio.create_task(started.wait())
    last, quiet_s = 0, 0.0
    try:
        while not ending.done():
            await asyncio.wait({ending}, timeout=_LOOK_S)
            async for listed in client.gates(state=GateState.PENDING):
                await memory.decide(listed, server)
            events = (await started.list_events(after_seq=last)).events
            quiet_s = 0.0 if events else quiet_s + _LOOK_S
            last = events[-1].seq if events else last
            if quiet_s >= _QUIET_S:
                server.skip(_SKIP)
                quiet_s = 0.0
        return await ending
    finally:
        ending.cancel()


class _Memory:
    """What was answered then, in order."""

    def __init__(self, recording: Recording) -> None:
        self._steps: defaultdict[tuple[str, str, tuple[int, ...]], deque[RecordedStep]]
        self._steps = defaultdict(deque)
        for step in recording.steps:
            self._steps[step.key].append(step)
        self._gates: defaultdict[tuple[str, str], deque[RecordedGate]] = defaultdict(deque)
        for gate in recording.gates:
            self._gates[gate.workflow, gate.name].append(gate)
        self._decided: set[str] = set()

    def actions(self) -> Actions:
        """Everything that workers did."""
        actions = Actions()

        @actions.fallback
        async def act(task: Task) -> ActionOutput:
            return self._answer(task)

        async def script(task: ScriptTask) -> ActionOutput:
            return self._answer(task)

        actions.scripts(script)
        return actions

    def _answer(self, task: Task) -> ActionOutput:
        rows = self._steps[task.workflow_name, task.step_name, task.iterations]
        if not rows:
            raise FinalError(f"`{task.step_name}` was not executed then", code=NOT_RECORDED)
        # The last one stays: a script keeps one row for all of its attempts.
        row = rows.popleft() if len(rows) > 1 else rows[0]
        if row.status == StepStatus.COMPLETED:
            return ActionOutput(
                markers=row.markers,
                context=row.context,
                result_text=row.result_text,
                structured_output=json.loads(row.structured_output or "null"),
                output_file=row.output_file,
            )
        raise RetryableError(row.error or f"it was {row.status}", code=row.error_code)

    async def decide(self, listed: ListedGate, server: LocalServer) -> None:
        """Decide a gate as it was decided, or let its time run out."""
        gate = listed.gate
        rows = self._gates[gate.workflow_name, gate.name]
        if gate.id in self._decided or not rows:
            return
        self._decided.add(gate.id)
        row = rows.popleft()
        try:
            if row.state == GateState.APPROVED:
                await listed.approve(row.feedback, selections=row.selections)
            elif row.state == GateState.REJECTED:
                await listed.reject(row.feedback)
            elif row.state == GateState.TIMED_OUT and gate.deadline_at is not None:
                server.skip(
                    max(timedelta(), gate.deadline_at - server.now()) + timedelta(seconds=1)
                )
        except PreconditionError:
            return  # its time ran out, or its run has ended: then it is as it is


def _differences(recorded: Recording, replayed: Recording) -> list[str]:
    then = [*(step.outcome for step in recorded.steps), f"run {recorded.status}"]
    now = [*(step.outcome for step in replayed.steps), f"run {replayed.status}"]
    return list(unified_diff(then, now, "recorded", "replayed", lineterm=""))

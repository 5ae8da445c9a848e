"""What workers, providers and people answered in a recorded run, given once more."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_client.errors import PreconditionError
from runkon_client.values import GateState, StepStatus
from runkon_client.worker import ActionOutput, Actions, FinalError, Item, RetryableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_client.handles import ListedGate
    from runkon_client.testing.lineage import Lineage
    from runkon_client.testing.local import LocalServer
    from runkon_client.testing.recording import (
        RecordedGate,
        RecordedItem,
        RecordedStep,
        Recording,
        StepKey,
    )
    from runkon_client.worker import ItemsTask, ScriptTask, Task

NOT_RECORDED: Final = "NOT_RECORDED"
_CANCELLED: Final = "CANCELLED"
_FALLBACK: Final = "*"


class Memory:
    """Everybody's answers, in order."""

    def __init__(self, recording: Recording, lineage: Lineage) -> None:
        self._lineage = lineage
        self._steps: defaultdict[StepKey, deque[tuple[int, RecordedStep]]] = defaultdict(deque)
        for number, step in enumerate(recording.steps):
            self._steps[step.key].append((number, step))
        self._items: defaultdict[StepKey, list[RecordedItem]] = defaultdict(list)
        for item in recording.items:
            self._items[item.key].append(item)
        self._gates: defaultdict[tuple[tuple[str, ...], str, str], deque[RecordedGate]]
        self._gates = defaultdict(deque)
        for gate in recording.gates:
            self._gates[gate.above, gate.workflow, gate.name].append(gate)
        self._decided: set[str] = set()
        self._held: dict[asyncio.Event, tuple[bool, int]] = {}
        self.answered = 0
        """How many tasks were answered so far."""

    def actions(self, today: Actions, providers: Iterable[str]) -> Actions:
        """Everything that workers did, besides what today's do."""
        actions = Actions()
        actions.include(today)
        if _FALLBACK not in actions.names:
            actions.fallback(self._act)
        if not actions.has_scripts:
            actions.scripts(self._script)
        for provider in set(providers).difference(actions.item_providers):
            actions.items(provider)(self._provide)
        return actions

    async def _act(self, task: Task) -> ActionOutput:
        return await self._answer(task)

    async def _script(self, task: ScriptTask) -> ActionOutput:
        return await self._answer(task)

    async def _key(self, task: Task) -> StepKey:
        above = await self._lineage.above(task.run_id)
        return (above, task.workflow_name, task.step_name, task.iterations)

    async def _answer(self, task: Task) -> ActionOutput:
        key = await self._key(task)
        rows = self._steps[key]
        if not rows:
            raise FinalError(f"`{task.step_name}` was not executed then", code=NOT_RECORDED)
        # The last one stays: a script keeps one row for all of its attempts.
        is_last = len(rows) == 1
        number, row = rows[0] if is_last else rows.popleft()
        if row.status != StepStatus.COMPLETED:
            if row.above:
                await self._hold(row, number)
            self.answered += 1
            failure = FinalError if is_last else RetryableError
            raise failure(row.error or f"it was {row.status}", code=row.error_code)
        self.answered += 1
        return ActionOutput(
            markers=row.markers,
            context=row.context,
            result_text=row.result_text,
            structured_output=json.loads(row.structured_output or "null"),
            output_file=row.output_file,
        )

    async def _hold(self, row: RecordedStep, number: int) -> None:
        """Let the other items go as far as they went before the failure of this one stops them.

        What was cancelled then had not answered, and comes last.
        """
        turn = asyncio.Event()
        self._held[turn] = (row.error_code == _CANCELLED, number)
        try:
            await turn.wait()
        finally:
            self._held.pop(turn, None)

    def release_one(self) -> bool:
        """Give the next of the failures that are held back; False: there is none."""
        turn = min(self._held, key=self._held.__getitem__, default=None)
        if turn is None:
            return False
        del self._held[turn]
        turn.set()
        return True

    async def _provide(self, task: ItemsTask) -> list[Item]:
        key = await self._key(task)
        items, rows = self._items[key], self._steps[key]
        self.answered += 1
        if not rows:
            raise FinalError(f"`{task.step_name}` was not executed then", code=NOT_RECORDED)
        _, row = rows[0]
        if not items and row.status != StepStatus.COMPLETED:
            raise FinalError(row.error or f"it was {row.status}", code=row.error_code)
        return [
            Item(
                id=item.id,
                type=item.type,
                ref=item.ref,
                context=item.context,
                depends_on=item.depends_on,
            )
            for item in items
        ]

    async def decide(self, listed: ListedGate, server: LocalServer) -> None:
        """Decide a gate as it was decided, or let its time run out."""
        gate = listed.gate
        if gate.id in self._decided:
            return
        rows = self._gates[await self._lineage.above(gate.run_id), gate.workflow_name, gate.name]
        if not rows:
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

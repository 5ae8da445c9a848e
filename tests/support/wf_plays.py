"""Runs of the documents' examples: a worker, people and a caller that do what the comments say."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from runkon_client import ActionOutput, Actions, Client, FinalError, RetryableError
from runkon_client.values import EventKind, GateWaiting
from support.clusters import working
from support.wf_examples import Deed, script_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runkon_client import Task
    from runkon_client.handles import RunHandle
    from runkon_client.values import Run
    from support.wf_examples import Script

STARTER = "sam"
"""Who starts the runs of the examples."""
_DONE = Deed()
_DEADLINE = timedelta(seconds=40)


class Play(NamedTuple):
    """What came of an example."""

    run: Run
    steps: tuple[tuple[str, str], ...]
    """Name and status of each row, in order."""


class _Cast:
    """The worker of one run."""

    def __init__(self, client: Client, script: Script) -> None:
        self._client = client
        self._script = script
        self._count: Counter[str] = Counter()
        self.actions = Actions()
        self.actions.fallback(self._act)

    async def _act(self, task: Task) -> ActionOutput:
        deeds = self._script.deeds.get(task.action, (_DONE,))
        deed = deeds[min(self._count[task.action], len(deeds) - 1)]
        self._count[task.action] += 1
        if deed.verb == "cancels":
            await self._client.run(task.run_id).cancel()
        if deed.verb in {"cancels", "hangs"}:
            await asyncio.get_running_loop().create_future()
        if deed.verb == "fails":
            raise RetryableError(f"{task.action} does not work")
        if deed.verb == "fails for good":
            raise FinalError(f"{task.action} will never work")
        return ActionOutput(
            markers=deed.markers, structured_output=deed.output, context=deed.context
        )


async def play(
    address: str, namespace: str, text: str, *, stored: Iterable[str] = (), dry_run: bool = False
) -> Play:
    """Run a workflow to its end, its world acting as its comments say.

    Args:
        address: of a server.
        namespace: the example's own.
        text: the workflow.
        stored: other workflows, put there before; what their comments say counts as well.
        dry_run: how to start it.
    """
    others = tuple(stored)
    script = script_of("\n".join((text, *others)))
    async with Client(address, namespace=namespace, principal=STARTER) as client:
        for other in others:
            await client.put_workflow(other)
        cast = _Cast(client, script)
        async with working(address, cast.actions, namespace=namespace):
            started = await client.start_run(source=text, inputs=script.inputs, dry_run=dry_run)
            answering = asyncio.create_task(_answer(address, namespace, started, script))
            try:
                run = await started.wait(_DEADLINE)
                await answering
            finally:
                answering.cancel()
        steps = [(step.step_name, step.status.value) async for step in started.steps()]
    return Play(run, tuple(steps))


async def _answer(address: str, namespace: str, run: RunHandle, script: Script) -> None:
    """Vote at every gate that opens, until the run has ended."""
    async for event in run.events(kinds=[EventKind.GATE_WAITING]):
        assert isinstance(event, GateWaiting)
        for vote in script.votes.get(event.gate.name, ()):
            async with Client(address, namespace=namespace, principal=vote.who) as person:
                gate = person.gate(event.gate.id)
                if vote.approves:
                    chosen = [vote.selection] if vote.selection else []
                    await gate.approve(vote.words, selections=chosen)
                else:
                    await gate.reject(vote.words)

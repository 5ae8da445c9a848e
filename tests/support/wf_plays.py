"""Runs of the documents' examples: a worker, people and a caller that do what the comments say."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_client import ActionOutput, Actions, Client, FinalError, RetryableError
from runkon_client.values import (
    CheckState,
    EventKind,
    GateWaiting,
    PullRequest,
    PullRequestApproval,
    PullRequestCheck,
    ReviewDecision,
)
from runkon_client.worker import Item
from runkon_client.worker.script_tasks import serve_scripts
from runkon_client.worker.scripts import ScriptRunner, View
from runkon_server.dsl.parser import parse
from runkon_server.dsl.queries import schema_refs, snippet_refs
from support.clusters import working
from support.wf_examples import Deed, cues_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from runkon_client import Task
    from runkon_client.handles import RunHandle
    from runkon_client.values import Run
    from runkon_client.worker import ItemsTask
    from support.wf_examples import Cues, Vote

STARTER: Final = "sam"
"""Who starts the runs of the examples."""
_DONE: Final = Deed()
_DEADLINE: Final = timedelta(seconds=120)
_HEAD: Final = "c0ffee"
_PULL_REQUESTS: Final = {
    "approved": PullRequest(
        head_commit=_HEAD,
        author=STARTER,
        approvals=tuple(PullRequestApproval(reviewer=who, commit=_HEAD) for who in ("ann", "bob")),
        review_decision=ReviewDecision.APPROVED,
    ),
    "green": PullRequest(
        head_commit=_HEAD,
        author=STARTER,
        checks=(PullRequestCheck(name="build", state=CheckState.SUCCEEDED),),
    ),
}


class Play(NamedTuple):
    """What came of an example."""

    run: Run
    steps: tuple[tuple[str, str], ...]
    """Name and status of each row, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where an example is played, and what is stored with it."""

    address: str
    namespace: str
    """The example's own."""
    folder: Path
    """Where its scripts run, without a sandbox."""
    schemas: Mapping[str, str] = field(default_factory=dict)
    snippets: Mapping[str, str] = field(default_factory=dict)

    def client(self, principal: str) -> Client:
        return Client(self.address, namespace=self.namespace, principal=principal)

    def needed(self, text: str) -> tuple[dict[str, str], dict[str, str]]:
        """The schemas and the snippets that a workflow refers to."""
        definition = parse(text, "example.wf").definition
        assert definition is not None
        return (
            {name: self.schemas[name] for name in schema_refs(definition)},
            {name: self.snippets[name] for name in snippet_refs(definition)},
        )


class _Cast:
    """The worker of one run."""

    def __init__(self, client: Client, cues: Cues, texts: Iterable[str], folder: Path) -> None:
        self._client = client
        self._cues = cues
        self._count: Counter[str] = Counter()
        self.actions = Actions()
        self.actions.fallback(self._act)
        for provider, ids in cues.items.items():
            self.actions.items(provider)(_finder(ids))
        if any("script " in text for text in texts):
            self.actions.scripts(serve_scripts(ScriptRunner(View(folder=folder, is_writable=True))))

    async def _act(self, task: Task) -> ActionOutput:
        deeds = self._cues.deeds.get(task.action, (_DONE,))
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


def _finder(ids: Sequence[str]) -> Callable[[ItemsTask], list[Item]]:
    def find(task: ItemsTask) -> list[Item]:
        return [Item(id=each, ref=each, context={"title": f"About {each}"}) for each in ids]

    return find


async def play(
    stage: Stage, text: str, *, stored: Sequence[str] = (), dry_run: bool = False
) -> Play:
    """Run a workflow to its end, its world acting as its comments say.

    Args:
        stage: where.
        text: the workflow.
        stored: other workflows, put there before; what their comments say counts as well.
        dry_run: how to start it.
    """
    cues = cues_of("\n".join((*stored, text)))
    schemas, snippets = stage.needed(text)
    async with stage.client(STARTER) as client:
        for other in stored:
            others = stage.needed(other)
            await client.put_workflow(other, output_schemas=others[0], snippets=others[1])
        cast = _Cast(client, cues, (text, *stored), stage.folder)
        async with working(stage.address, cast.actions, namespace=stage.namespace):
            started = await client.start_run(
                source=text,
                output_schemas=schemas,
                snippets=snippets,
                inputs={
                    name: value for name, value in cues.inputs.items() if name in _inputs(text)
                },
                dry_run=dry_run,
            )
            answering = asyncio.create_task(_answer(stage, started, cues))
            try:
                run, _ = await asyncio.gather(started.wait(_DEADLINE), answering)
            finally:
                answering.cancel()
        steps = [(step.step_name, step.status.value) async for step in started.steps()]
    return Play(run, tuple(steps))


def _inputs(text: str) -> set[str]:
    definition = parse(text, "example.wf").definition
    assert definition is not None
    return {each.name for each in definition.inputs}


async def _answer(stage: Stage, run: RunHandle, cues: Cues) -> None:
    """Vote at every gate that opens, until the run has ended."""
    async for event in run.events(kinds=[EventKind.GATE_WAITING]):
        assert isinstance(event, GateWaiting)
        for vote in cues.votes.get(event.gate.name, ()):
            await _vote(stage, event.gate.id, vote)


async def _vote(stage: Stage, gate_id: str, vote: Vote) -> None:
    async with stage.client(vote.who or STARTER) as person:
        gate = person.gate(gate_id)
        if vote.forge:
            await gate.report_pull_request(_PULL_REQUESTS[vote.forge])
        elif vote.approves:
            await gate.approve(vote.words, selections=[vote.selection] if vote.selection else [])
        else:
            await gate.reject(vote.words)

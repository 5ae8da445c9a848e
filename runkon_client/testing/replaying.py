"""Playing a recorded run once more: what would today's definitions make of yesterday's work?"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from difflib import unified_diff
from typing import TYPE_CHECKING, Any, Final

from runkon_client.client import Client
from runkon_client.testing.lineage import Lineage
from runkon_client.testing.memory import Memory
from runkon_client.testing.recording import Recording, record
from runkon_client.values import GateState
from runkon_client.worker import Actions, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_client.handles import RunHandle
    from runkon_client.testing.local import LocalServer
    from runkon_client.values import Run

_LOOK_S: Final = 0.02
_QUIET_S: Final = 0.3
"""After this long without an event or an answer the clock is moved: something waits for it."""
_SKIP: Final = timedelta(minutes=5)
_CONCURRENCY: Final = 256
"""Most children that a `foreach` may have running: an answer held back must not block the rest."""
_OVER_RUNS: Final = re.compile(r'(\bover\s*=\s*)(?:"workflow_runs"|workflow_runs\b)')
_RECORDED_RUNS: Final = r"\1recorded_workflow_runs"
"""The server's own provider would look at the runs of the namespace of the replay."""
_LIST: Final = "list"


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it."""

    run: Run
    differences: tuple[str, ...]
    """Lines as of `diff -u`, recorded and replayed; empty: all the same. Each names its step.

    They tell how the steps ended, what workers answered, and the items of each `foreach`.
    """


async def replay(
    recording: Recording,
    server: LocalServer,
    *,
    sources: Mapping[str, str] | None = None,
    actions: Actions | None = None,
    timeout: timedelta = timedelta(seconds=60),
) -> Replay:
    """Play a recording on a server, in a namespace of its own.

    Actions, scripts and item providers answer what they answered then, attempt by attempt; gates
    are decided as they were, or time out; pauses are skipped. A step that the recording does not
    know fails with the code NOT_RECORDED.

    Args:
        recording: from `record`.
        server: a local one, for its clock is moved.
        sources: definitions to use instead of the recorded ones, by the names of workflows.
        actions: functions to ask instead of the recording, for what they are named after.
        timeout: of the wall clock.

    Raises:
        TimeoutError: the run has not ended by then; a gate that was never decided may be open.
        InvalidArgumentError: a definition is not accepted.
    """
    namespace = server.new_namespace()
    async with Client(server.address, namespace=namespace, principal="replay") as client:
        providers = await _store(client, recording, sources or {})
        memory = Memory(recording, Lineage(client))
        worker = Worker(
            server.address,
            namespace=namespace,
            principal="replay",
            concurrency=_CONCURRENCY,
            actions=memory.actions(actions or Actions(), providers),
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


async def _store(client: Client, recording: Recording, sources: Mapping[str, str]) -> set[str]:
    """Store the definitions; returns the item providers that they ask workers for."""
    providers: set[str] = set()
    for each in recording.workflows:
        source = _OVER_RUNS.sub(_RECORDED_RUNS, sources.get(each.name, each.source))
        await client.put_workflow(
            source, output_schemas=each.output_schemas, snippets=each.snippets
        )
        stored = await client.get_workflow(each.name)
        providers.update(_providers(json.loads(stored.definition_json)))
    return providers - {_LIST}


def _providers(document: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """The `over` of each `foreach`, wherever in a definition it stands."""
    if isinstance(document, dict):
        if document.get("type") == "for_each":
            yield document["over"]
        document = list(document.values())
    if isinstance(document, list):
        for each in document:
            yield from _providers(each)


async def _follow(client: Client, started: RunHandle, memory: Memory, server: LocalServer) -> Run:
    """Do what people and time did, until the run has ended."""
    ending = asyncio.create_task(started.wait())
    last, answered, quiet_s = 0, 0, 0.0
    try:
        while not ending.done():
            await asyncio.wait({ending}, timeout=_LOOK_S)
            async for listed in client.gates(state=GateState.PENDING):
                await memory.decide(listed, server)
            events = (await started.list_events(after_seq=last)).events
            is_quiet = not events and memory.answered == answered
            quiet_s = quiet_s + _LOOK_S if is_quiet else 0.0
            last, answered = events[-1].seq if events else last, memory.answered
            if quiet_s >= _QUIET_S:
                if not memory.release_one():
                    server.skip(_SKIP)
                quiet_s = 0.0
        return await ending
    finally:
        ending.cancel()


def _differences(recorded: Recording, replayed: Recording) -> list[str]:
    return list(
        unified_diff(recorded.outcomes, replayed.outcomes, "recorded", "replayed", lineterm="")
    )

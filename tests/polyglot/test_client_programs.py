"""The programs in `examples/clients` build from the .proto files alone and do what they show.

Each runs against a real replica behind a forwarder. The first test cuts its connections twice: the
answer to StartRun is lost, and so are both streams while the action is being executed. Leases of
tasks last 4 s and the action takes 6 s, so that a worker without heartbeats would never end it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from runkon_client import Client
from runkon_client.values import RunStatus
from support.client_programs import LANGUAGES, ROOT, NotHereError, built
from support.clusters import replicas
from support.cuttable import forwarding_to
from support.postgres import cloned
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.client_programs import Language, Program

WORKFLOW: Final = (ROOT / "examples/clients/greeting.wf").read_text(encoding="utf-8")
EVENTS: Final = Path(__file__).with_name("greeting.events").read_text(encoding="utf-8")
TASK_LEASE_S: Final = 8
WORK_S: Final = 10
PATIENCE_S: Final = 240
"""Ends a program that hangs; nothing is measured by it."""

pytestmark = pytest.mark.timeout(1800)  # a first build fetches and compiles everything


@pytest.fixture(scope="module")
def address(postgres_server: str, template_database: str) -> Iterator[str]:
    """A replica whose tasks have short leases."""
    options = ("--task-lease", str(TASK_LEASE_S))
    with (
        cloned(postgres_server, template_database) as database,
        replicas(database, 1, *options) as (one,),
    ):
        yield one.address


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.name)
def program(request: pytest.FixtureRequest) -> Program:
    """The program of each language that this machine can build."""
    language: Language = request.param
    try:
        return built(language)
    except NotHereError as reason:
        pytest.skip(str(reason))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended, and what it said."""

    code: int
    events: str
    told: str


async def play(program: Program, address: str, namespace: str, *arguments: str) -> Ending:
    """Run it to its end."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RUNKON_")}
    process = await asyncio.create_subprocess_exec(
        *program.command,
        *arguments,
        cwd=program.folder,
        env=inherited | {"RUNKON_ADDRESS": address, "RUNKON_NAMESPACE": namespace},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        events, told = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    lines = [line.rstrip() for line in events.decode().splitlines()]
    return Ending(process.returncode, "".join(f"{line}\n" for line in lines), told.decode())


async def test_a_program_sees_every_event_once_through_lost_connections(
    program: Program, address: str
) -> None:
    """The golden list, one run in spite of two attempts to start it, its greeting, its approval."""
    namespace = f"cuts-{program.folder.name}"
    async with (
        Client(address, namespace=namespace) as client,
        forwarding_to(address) as (forwarder, detour),
    ):
        await client.put_workflow(WORKFLOW)
        forwarder.hold_back_answers(b"greeting")
        playing = asyncio.create_task(play(program, detour, namespace, "Ada", str(WORK_S)))

        async def has_started() -> bool:
            runs = [run async for run in client.list_runs()]
            return playing.done() or (forwarder.is_holding_back and bool(runs))

        async def is_greeting() -> bool:
            runs = [run async for run in client.list_runs()]
            steps = [step for run in runs async for step in client.run(run.id).steps()]
            return playing.done() or any(step.step_name == "greet" for step in steps)

        for moment, what in ((has_started, "a run"), (is_greeting, "the action begins")):
            await eventually(moment, what, within_s=PATIENCE_S)
            forwarder.cut()
        ending = await playing

        assert (ending.code, ending.events) == (0, EVENTS), ending.told
        (run,) = [run async for run in client.list_runs()]
        steps = [step async for step in client.run(run.id).steps()]
        assert run.status is RunStatus.COMPLETED
        assert [step.context for step in steps][-1] == "Hello, Ada!"
        assert [step.gate.approved_by for step in steps if step.gate] == ["ada"]
        assert forwarder.connections >= 3


async def test_a_program_names_the_reason_of_a_refusal(program: Program, address: str) -> None:
    """Nobody stored the workflow: the ErrorInfo of the answer is read, and nothing is retried."""
    ending = await play(program, address, f"empty-{program.folder.name}")

    assert ending.code == 1
    assert ending.events == ""
    assert "WORKFLOW_NOT_FOUND" in ending.told

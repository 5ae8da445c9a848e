"""What operators do, as commands against two replicas: limits, replicas, a workflow that goes."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from runkon_client import Actions, NotFoundError
from runkon_client.cli import main
from runkon_client.values import BlockerKind, RunStatus
from support.clusters import impatient, replicas, working
from support.waiting import eventually

if TYPE_CHECKING:
    from runkon_client import Client, StartedRun, Task


async def told(address: str, *words: str) -> Any:
    """What `runkon WORDS --json` prints."""
    arguments = ["--address", address, "--json", *words]
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def held(client: Client, source: str) -> StartedRun:
    """A run that a limit holds; what is started in the first second may not meet it yet."""
    while True:
        run = await client.start_run(source=source)

        async def is_decided(run: StartedRun = run) -> bool:
            blockers = (await run.explain()).blockers
            is_limited = [each.kind for each in blockers] == [BlockerKind.LIMITED]
            return is_limited or (await run.get()).status is RunStatus.COMPLETED

        await eventually(is_decided, "the limit is what the run waits for, or it has met none")
        if (await run.get()).status is not RunStatus.COMPLETED:
            return run


async def test_a_limit_stops_an_action_until_it_is_cleared(database: str) -> None:
    """Set at one replica, kept by the other, named by its explanation, cleared at the first."""
    actions = Actions()

    @actions.action("deploy")
    async def deploy(_task: Task) -> None:
        return None

    with replicas(database, 2) as (one, two):
        await told(one.address, "limits", "set", "deploy", "--concurrency", "0")
        async with impatient(two.address) as client, working(two.address, actions):
            run = await held(client, "workflow w { call deploy }")
            (listed,) = await told(two.address, "limits", "list")
            await told(one.address, "limits", "clear", "deploy")
            done = await run.wait()

    assert (listed["action"], listed["concurrency"], listed["running"]) == ("deploy", 0, 0)
    assert done.status is RunStatus.COMPLETED


async def test_replicas_come_onto_the_list_and_leave_it(database: str) -> None:
    """One that is killed is gone as soon as its session is; one that is stopped is not listed."""
    with replicas(database, 3) as (one, two, three):

        async def states(address: str) -> list[bool]:
            return sorted(each["is_live"] for each in await told(address, "replicas"))

        async def all_live() -> bool:
            return await states(one.address) == [True, True, True]

        async def one_gone() -> bool:
            return await states(one.address) == [False, True]

        await eventually(all_live, "all three are listed")
        await two.stop(signal.SIGTERM)
        await three.stop(signal.SIGKILL)
        await eventually(one_gone, "the killed one is listed as gone")


async def test_a_workflow_that_is_deleted_starts_no_more_and_comes_back(database: str) -> None:
    """Its run at a gate goes on to the end."""
    source = "workflow w { gate human_review { name = check } call echo }"
    with replicas(database) as (one,):
        async with impatient(one.address) as client:
            await client.put_workflow(source)
            run = await client.start_run("w")
            gone = await told(one.address, "workflows", "delete", "w", "--yes")
            with pytest.raises(NotFoundError) as refused:
                await client.start_run("w")
            await run.gate("check").approve()
            done = await run.wait()
            back = await client.put_workflow(source)

    assert gone == {"name": "w", "deleted": 1}
    assert refused.value.reason == "WORKFLOW_DELETED"
    assert done.status is RunStatus.COMPLETED
    assert (back.created, back.workflow.version) == (True, 2)

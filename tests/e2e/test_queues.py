"""Queues over the wire: workers of the SDK and of the command, each given what it serves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psycopg
from e2e.conftest import Place

from runkon_client import Actions, Client, Task, Worker
from runkon_client.values import RunStatus
from support.clusters import replicas
from support.waiting import eventually
from support.worker_command import worker_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runkon_client import RunHandle

SOURCE = "workflow w { call build call build }"
MODULE = """
from runkon_client import Actions

actions = Actions()

@actions.action("build")
def build(task):
    return "built by the command"
"""


class Builder:
    """A worker that notes whose tasks it was given."""

    def __init__(self, place: Place, *queues: str) -> None:
        self.runs: set[str] = set()
        self.attempts: set[tuple[int, int]] = set()
        actions = Actions()
        actions.action("build")(self._build)
        self.worker = Worker(
            place.address, namespace=place.namespace, actions=actions, queues=queues
        )

    def _build(self, task: Task) -> None:
        self.runs.add(task.run_id)
        self.attempts.add((task.attempt, task.delivery))

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            self.worker.stop()
            await running


async def begin(client: Client, *queues: str | None) -> list[RunHandle]:
    return [
        await client.start_run(source=SOURCE, labels={} if queue is None else {"queue": queue})
        for queue in queues
    ]


async def all_complete(handles: list[RunHandle]) -> bool:
    ended = await asyncio.gather(*(each.wait() for each in handles))
    return {run.status for run in ended} == {RunStatus.COMPLETED}


async def test_each_worker_is_given_what_its_queues_hold(place: Place, client: Client) -> None:
    """Two workers with a queue each, and one for every queue, which alone serves the third."""
    gpu, eu, every = Builder(place, "gpu"), Builder(place, "eu", "default"), Builder(place, "*")
    async with gpu.at_work(), eu.at_work():
        mine = await begin(client, "gpu", "gpu")
        theirs = await begin(client, "eu", None)
        nobodys = await begin(client, "tpu")
        assert await all_complete(mine + theirs)
        waits = await nobodys[0].explain()
        async with every.at_work():
            assert await all_complete(nobodys)

    assert gpu.runs == {each.id for each in mine}
    assert eu.runs == {each.id for each in theirs}
    assert every.runs == {each.id for each in nobodys}
    assert gpu.attempts | eu.attempts | every.attempts == {(0, 0)}
    assert waits.headline == "in queue `tpu`, no worker for `build` has been connected"


async def test_a_run_waits_for_the_command_that_serves_its_queue(
    place: Place, client: Client, tmp_path: Path
) -> None:
    tmp_path.joinpath("building.py").write_text(MODULE, encoding="utf-8")
    module = str(tmp_path / "building.py")
    with worker_command(place.address, place.namespace, module):
        gpu, plain = await begin(client, "gpu", None)
        assert await all_complete([plain])
        assert (await gpu.get()).status is RunStatus.RUNNING
        with worker_command(place.address, place.namespace, module, "--queue", "gpu"):
            assert await all_complete([gpu])


async def test_a_queue_is_served_across_replicas_and_asked_for_in_sql(database: str) -> None:
    """The worker is connected to one replica, the run may be at either; SQL gives the label."""
    with replicas(database, 2) as (one, two):
        elsewhere = Builder(Place(one.address, "default"))
        gpu = Builder(Place(two.address, "default"), "gpu")
        async with Client(one.address) as client, elsewhere.at_work(), gpu.at_work():
            await client.put_workflow("workflow w { call build }")
            async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
                asked = await conn.execute(
                    "SELECT runkon.start_run('w', labels => '{\"queue\": \"gpu\"}')"
                    " FROM generate_series(1, 5)"
                )
                run_ids = {str(row[0]) async for row in asked}

            async def all_are_built() -> bool:
                return gpu.runs >= run_ids

            await eventually(all_are_built, "the worker of the queue is given them")
            assert await all_complete([client.run(each) for each in run_ids])
            assert await all_complete(await begin(client, "gpu"))

    assert gpu.runs > run_ids
    assert elsewhere.runs == set()

"""ValidateWorkflow looks at what a workflow calls, and at who is there to do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runkon.v1 import workers_pb2
from runkon.v1.workflows_pb2 import PutWorkflowRequest, ValidateWorkflowRequest
from support.live_api import live_api, worker_stream
from support.waiting import eventually

if TYPE_CHECKING:
    from support.live_api import LiveApi

SERVED = """workflow w {
  call build
  call echo
  call tst
  foreach f { over = tickets max_parallel = 2 workflow = child }
  foreach g { over = list max_parallel = 2 workflow = child }
  gate deploy { }
  gate human_review { }
  script s { run = "true" }
}"""


async def put(api: LiveApi, *sources: str, **fields: Any) -> None:
    for each in sources:
        await api.workflows.PutWorkflow(PutWorkflowRequest(source=each, **fields))


async def found(api: LiveApi, source: str, **fields: Any) -> list[str]:
    """The codes with their messages."""
    request = ValidateWorkflowRequest(source=source, **fields)
    answer = await api.workflows.ValidateWorkflow(request)
    return [f"{each.code} {each.message}" for each in answer.diagnostics]


async def test_children_are_looked_up_in_the_namespace(api: LiveApi) -> None:
    await put(api, "workflow child { inputs { ticket required } call echo }")
    parent = "workflow w { call workflow child call workflow gone }"

    assert await found(api, parent) == [
        "WF509 `child` needs the input `ticket`",
        "WF508 the workflow `gone` cannot be loaded: the server stores no workflow of that name",
    ]
    assert [each[:5] for each in await found(api, parent, namespace="n")] == ["WF508", "WF508"]


async def test_a_circle_through_stored_workflows_is_found(api: LiveApi) -> None:
    await put(api, "workflow a { call workflow b }", "workflow b { call workflow w }")
    (problem,) = await found(api, "workflow w { call workflow a }")

    assert problem.startswith("WF520 ")


async def test_the_newest_version_counts(api: LiveApi) -> None:
    await put(
        api,
        "workflow child { inputs { ticket required } call echo }",
        "workflow child { call echo }",
    )

    assert await found(api, "workflow w { call workflow child }") == []


async def test_what_no_connected_worker_serves_is_told_on_every_replica(database: str) -> None:
    """A worker of another namespace does not count, nor one that has left."""
    settings: dict[str, Any] = {"poll_s": 0.1}
    mine = workers_pb2.WorkerHello(
        worker_id="w", actions=["build"], item_providers=["tickets"], concurrency=1
    )
    theirs = workers_pb2.WorkerHello(
        worker_id="v",
        namespace="n",
        concurrency=1,
        actions=["*"],
        gate_types=["deploy"],
        scripts=True,
    )
    async with live_api(database, **settings) as one, live_api(database, **settings) as two:
        await put(one, "workflow child { call echo }")

        async def told(count: int) -> list[str]:
            async def enough() -> bool:
                return len(await found(one, SERVED, check_served=True)) == count

            await eventually(enough, f"{count} things are served by nobody")
            return [each[:5] for each in await found(one, SERVED, check_served=True)]

        async with worker_stream(two, theirs), worker_stream(two, mine):
            assert await told(3) == ["WF525", "WF528", "WF529"]
        assert await told(5) == ["WF525", "WF525", "WF512", "WF528", "WF529"]
        assert await found(one, SERVED) == []


async def test_a_fallback_serves_every_action(database: str) -> None:
    hello = workers_pb2.WorkerHello(worker_id="w", actions=["*"], scripts=True, concurrency=1)
    async with live_api(database, poll_s=0.1) as api, worker_stream(api, hello):
        source = 'workflow w { call anything script s { run = "true" } }'

        async def served() -> bool:
            return await found(api, source, check_served=True) == []

        await eventually(served, "all is served")

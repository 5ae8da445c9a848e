"""ListWorkers over gRPC: what workers say of themselves, page by page."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from runkon.v1 import workers_pb2
from support.live_api import live_api, refusal, worker_stream
from support.waiting import eventually

if TYPE_CHECKING:
    from support.live_api import LiveApi

QUICK: dict[str, Any] = {"poll_s": 0.1}


async def listed(api: LiveApi, **fields: Any) -> list[workers_pb2.ConnectedWorker]:
    """Every page of the list, each of at most two workers."""
    found: list[workers_pb2.ConnectedWorker] = []
    token = ""
    while True:
        request = workers_pb2.ListWorkersRequest(page_size=2, page_token=token, **fields)
        page = await api.workers.ListWorkers(request)
        assert len(page.workers) <= 2
        found += page.workers
        token = page.next_page_token
        if not token:
            return found


async def lists(api: LiveApi, *ids: str, **fields: Any) -> list[workers_pb2.ConnectedWorker]:
    """The list, once it has these workers."""

    async def same() -> bool:
        return [each.worker_id for each in await listed(api, **fields)] == list(ids)

    await eventually(same, f"the list is {ids}")
    return await listed(api, **fields)


def connected(
    api: LiveApi, worker_id: str, **fields: Any
) -> contextlib.AbstractAsyncContextManager[str]:
    """A stream of a worker; gives the name of its replica."""
    values: dict[str, Any] = {"actions": ["a"], "concurrency": 1, **fields}
    return worker_stream(api, workers_pb2.WorkerHello(worker_id=worker_id, **values))


async def test_every_replica_lists_what_a_worker_said_of_itself(database: str) -> None:
    """Until its stream ends."""
    offers: dict[str, Any] = {
        "actions": ["b", "*", "a"],
        "item_providers": ["tickets"],
        "gate_types": ["deploy"],
        "scripts": True,
    }
    async with live_api(database, **QUICK) as one, live_api(database, **QUICK) as two:
        async with connected(two, "w", concurrency=7, client="c/1", **offers) as replica:
            (found,) = await lists(one, "w")
        await lists(one)

    assert found.connect_time.ToDatetime() <= found.last_seen_time.ToDatetime()
    found.ClearField("connect_time")
    found.ClearField("last_seen_time")
    assert found == workers_pb2.ConnectedWorker(
        namespace="default",
        worker_id="w",
        concurrency=7,
        client="c/1",
        replica=replica,
        queues=["default"],
        **(offers | {"actions": ["*", "a", "b"]}),
    )


async def test_the_queues_of_workers_are_listed(database: str) -> None:
    """`default` for the one without a name, `*` alone for all."""
    told = {"a": [], "b": ["gpu", ""], "c": ["gpu", "*"], "d": ["default", "eu", "eu"]}
    shown = {"a": ["default"], "b": ["default", "gpu"], "c": ["*"], "d": ["default", "eu"]}
    async with live_api(database, **QUICK) as api, contextlib.AsyncExitStack() as stack:
        for worker_id, queues in told.items():
            await stack.enter_async_context(connected(api, worker_id, queues=queues))

        found = await lists(api, *told)

    assert {each.worker_id: list(each.queues) for each in found} == shown


async def test_a_poller_is_listed_and_says_so(database: str) -> None:
    async with live_api(database, **QUICK) as api:
        request = workers_pb2.PollTasksRequest(worker_id="p", actions=["a"])
        request.wait.FromSeconds(0)
        await api.workers.PollTasks(request)
        (found,) = await lists(api, "p")
    assert (found.polls, found.concurrency, found.client) == (True, 0, "")


async def test_workers_are_listed_by_id_in_their_namespace(database: str) -> None:
    async with live_api(database, **QUICK) as api, contextlib.AsyncExitStack() as stack:
        for worker_id in ("c", "B", "a", "b", "ä"):
            await stack.enter_async_context(connected(api, worker_id))
        await stack.enter_async_context(connected(api, "x", namespace="other"))

        await lists(api, "B", "a", "b", "c", "ä")
        await lists(api, "x", namespace="other")


async def test_a_token_of_another_namespace_is_refused(database: str) -> None:
    async with live_api(database, **QUICK) as api, connected(api, "a"), connected(api, "b"):
        await lists(api, "a", "b")
        first = await api.workers.ListWorkers(workers_pb2.ListWorkersRequest(page_size=1))
        request = workers_pb2.ListWorkersRequest(
            namespace="other", page_token=first.next_page_token
        )
        refused = await refusal(api.workers.ListWorkers(request))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")

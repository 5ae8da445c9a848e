"""Steps, items and places of trees of runs: rows in the tables, asked for over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode
from sqlalchemy import insert

from runkon.v1 import runs_pb2, types_pb2
from runkon_server.store import tables
from support.live_api import refusal
from support.rows import NOON, add_run, add_step, ulid

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from support.live_api import LiveApi

ROOT, CHILD, GRANDCHILD = ulid(1), ulid(2), ulid(3)


async def add_items(conn: AsyncConnection, step_id: str, *rows: dict[str, Any]) -> None:
    """Insert items in the order given; each says what is not the usual of it."""
    for ordinal, row in enumerate(rows):
        values: dict[str, Any] = {
            "workflow_run_id": step_id[:26],
            "step_run_id": step_id,
            "ordinal": ordinal,
            "id": f"{step_id}/{ordinal}",
            "item_type": "ticket",
            "item_id": f"T-{ordinal}",
            "status": "pending",
        }
        await conn.execute(insert(tables.items).values(values | row))


async def items_of(api: LiveApi, step_id: str, **fields: Any) -> list[types_pb2.FanOutItem]:
    """All items, read page by page."""
    found: list[types_pb2.FanOutItem] = []
    token = ""
    while True:
        answer = await api.runs.ListFanOutItems(
            runs_pb2.ListFanOutItemsRequest(step_id=step_id, page_token=token, **fields)
        )
        found += answer.items
        token = answer.next_page_token
        if not token:
            return found


async def run_of(api: LiveApi, run_id: str) -> types_pb2.Run:
    return (await api.runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run


async def test_a_step_is_found_by_its_id_with_its_texts_whole(api: LiveApi) -> None:
    """Also one that a resume replaced; a step of another namespace does not exist."""
    async with api.engine.reads.connect() as conn:
        await add_run(conn, ROOT, status="completed")
        long = "x" * 100_000
        step_id = await add_step(conn, ROOT, "b.0001", result_text=long, superseded_epoch=2)

    step = (await api.runs.GetStep(runs_pb2.GetStepRequest(step_id=step_id))).step
    elsewhere = await refusal(
        api.runs.GetStep(runs_pb2.GetStepRequest(step_id=step_id, namespace="other"))
    )
    nowhere = await refusal(
        api.runs.GetStep(runs_pb2.GetStepRequest(step_id=f"{ROOT}/b.0009/e1/0"))
    )

    assert (step.id, step.result_text, step.superseded_epoch) == (step_id, long, 2)
    for refused in (elsewhere, nowhere):
        assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "STEP_NOT_FOUND")


async def test_a_foreach_shows_its_counts_and_its_items(api: LiveApi) -> None:
    """In the provider's order, page by page, or those in one state only."""
    waits = {"type": "human_review", "gate_id": "g", "gate_name": "check", "run_id": GRANDCHILD}
    async with api.engine.reads.connect() as conn:
        await add_run(conn, ROOT)
        counts = {"fan_out_total": 4, "fan_out_completed": 1, "fan_out_failed": 1}
        step_id = await add_step(
            conn, ROOT, "b.0001", status="running", role="foreach", fan_out_skipped=0, **counts
        )
        await add_items(
            conn,
            step_id,
            {
                "status": "completed",
                "dispatched_at": NOON,
                "completed_at": NOON,
                "structured_output": '{"a":1}',
            },
            {"status": "failed", "error": "no luck", "context": {"title": "T"}},
            {
                "status": "running",
                "child_run_id": CHILD,
                "blocked_on": waits | {"prompt": "é" * 2000, "options": [{"key": "y"}]},
            },
            {"blockers": [0, 2]},
        )

    step = (await api.runs.GetStep(runs_pb2.GetStepRequest(step_id=step_id))).step
    items = await items_of(api, step_id, page_size=3)
    failed = await items_of(api, step_id, status=types_pb2.FAN_OUT_ITEM_STATUS_FAILED)

    assert (step.fan_out.total, step.fan_out.completed, step.fan_out.failed) == (4, 1, 1)
    assert [item.item_id for item in items] == ["T-0", "T-1", "T-2", "T-3"]
    assert [item.position for item in items] == [0, 1, 2, 3]
    assert items[0].structured_output == '{"a":1}'
    assert items[0].HasField("dispatch_time")
    assert (items[1].error, dict(items[1].context)) == ("no luck", {"title": "T"})
    assert (items[2].child_run_id, items[2].blocked_on.run_id) == (CHILD, GRANDCHILD)
    assert items[2].blocked_on.human_review.prompt == "é" * 512
    assert not items[2].blocked_on.human_review.options
    assert list(items[3].blockers) == [0, 2]
    assert [item.item_id for item in failed] == ["T-1"]


async def test_a_step_without_items_has_none(api: LiveApi) -> None:
    async with api.engine.reads.connect() as conn:
        await add_run(conn, ROOT)
        step_id = await add_step(conn, ROOT, "b.0001")

    assert await items_of(api, step_id) == []


@pytest.mark.parametrize("namespace", ["other", ""])
async def test_items_of_a_step_that_is_not_there(api: LiveApi, namespace: str) -> None:
    request = runs_pb2.ListFanOutItemsRequest(step_id=f"{ROOT}/b.0001/e1/0", namespace=namespace)
    refused = await refusal(api.runs.ListFanOutItems(request))

    assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "STEP_NOT_FOUND")


async def test_a_page_token_belongs_to_its_filter(api: LiveApi) -> None:
    """With another state asked for, it is refused."""
    async with api.engine.reads.connect() as conn:
        await add_run(conn, ROOT)
        step_id = await add_step(conn, ROOT, "b.0001", status="running", role="foreach")
        await add_items(conn, step_id, {}, {})
    request = runs_pb2.ListFanOutItemsRequest(step_id=step_id, page_size=1)
    token = (await api.runs.ListFanOutItems(request)).next_page_token

    refused = await refusal(
        api.runs.ListFanOutItems(
            runs_pb2.ListFanOutItemsRequest(
                step_id=step_id, page_token=token, status=types_pb2.FAN_OUT_ITEM_STATUS_PENDING
            )
        )
    )

    assert token
    assert refused.reason == "PAGE_TOKEN_INVALID"


async def add_tree(conn: AsyncConnection) -> None:
    """A root that calls a child, whose foreach has a run below it that stands at a gate."""
    await add_run(conn, ROOT, workflow_name="root")
    await add_step(
        conn, ROOT, "b.0001", status="running", step_name="workflow:child", child_run_id=CHILD
    )
    details = {"root_run_id": ROOT, "depth": 1, "parent_step_id": f"{ROOT}/b.0001/e1/0"}
    await add_run(conn, CHILD, workflow_name="child", parent_workflow_run_id=ROOT, details=details)
    foreach = await add_step(
        conn, CHILD, "b.0000", status="running", step_name="foreach:each", role="foreach"
    )
    await add_items(
        conn, foreach, {"status": "completed"}, {"status": "running", "child_run_id": GRANDCHILD}
    )
    details = {"root_run_id": ROOT, "depth": 2, "fan_out_item_id": f"{foreach}/1"}
    await add_run(
        conn,
        GRANDCHILD,
        workflow_name="grandchild",
        status="waiting",
        parent_workflow_run_id=CHILD,
        details=details | {"parent_step_id": foreach},
    )
    await add_step(
        conn, GRANDCHILD, "b.0002", status="waiting", step_name="check", role="gate", iteration=3
    )


async def test_a_run_says_where_it_is_from_the_root_to_the_innermost_child(api: LiveApi) -> None:
    """The same step and the same chain, whichever run of the tree is asked, alone or in a list."""
    async with api.engine.reads.connect() as conn:
        await add_tree(conn)

    asked = [await run_of(api, run_id) for run_id in (ROOT, CHILD, GRANDCHILD)]
    listed = (await api.runs.ListRuns(runs_pb2.ListRunsRequest())).runs

    for run in (*asked, *listed):
        place = run.current_step
        assert (place.step_name, place.iteration, place.run_id) == ("check", 3, GRANDCHILD)
        assert list(place.workflow_chain) == ["root", "child", "grandchild"]
    assert len(listed) == 3


async def test_a_run_says_where_it_stands_in_its_tree(api: LiveApi) -> None:
    async with api.engine.reads.connect() as conn:
        await add_tree(conn)

    root, child, grandchild = [await run_of(api, each) for each in (ROOT, CHILD, GRANDCHILD)]

    assert [run.root_run_id for run in (root, child, grandchild)] == [ROOT] * 3
    assert [run.depth for run in (root, child, grandchild)] == [0, 1, 2]
    assert (root.parent_step_id, child.parent_step_id) == ("", f"{ROOT}/b.0001/e1/0")
    assert (child.parent_workflow_run_id, child.fan_out_item_id) == (ROOT, "")
    assert grandchild.fan_out_item_id == f"{grandchild.parent_step_id}/1"


async def test_an_ended_run_is_nowhere(api: LiveApi) -> None:
    async with api.engine.reads.connect() as conn:
        await add_run(conn, ROOT, status="completed")
        await add_step(conn, ROOT, "b.0001", step_name="workflow:child", child_run_id=CHILD)

    assert not (await run_of(api, ROOT)).HasField("current_step")


async def test_a_snapshot_says_where_the_run_is_in_its_tree(api: LiveApi) -> None:
    async with api.engine.reads.connect() as conn:
        await add_tree(conn)
    request = runs_pb2.StreamRunEventsRequest(run_id=ROOT, from_snapshot=True)

    async for frame in api.runs.StreamRunEvents(request):
        if frame.HasField("snapshot"):
            assert list(frame.snapshot.run.current_step.workflow_chain) == [
                "root",
                "child",
                "grandchild",
            ]
            break

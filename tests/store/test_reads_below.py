"""Reading what lies below a run: items, single steps, chains of children; rows put in by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy import insert

from runkon_server.errors import StepNotFoundError
from runkon_server.store import tables
from runkon_server.store.reads import chains, items, steps
from support.rows import add_run, add_step, engine_of, ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    async with engine_of(database) as engine, engine.connect() as connection:
        yield connection


async def add_item(conn: AsyncConnection, step_id: str, ordinal: int, **columns: Any) -> None:
    values = {"item_id": f"i{ordinal}", "item_type": "", "status": "pending", "context": {}}
    await conn.execute(
        insert(tables.items).values(
            workflow_run_id=step_id[:26],
            step_run_id=step_id,
            ordinal=ordinal,
            id=f"{step_id}/{ordinal}",
            **{**values, **columns},
        )
    )


async def test_items_are_listed_in_the_order_of_their_provider(conn: AsyncConnection) -> None:
    """Twelve items, so that the order of texts would be another; another step has one as well."""
    await add_run(conn, ulid(1))
    step_id = await add_step(conn, ulid(1), "b.0000", status="running", role="foreach")
    other = await add_step(conn, ulid(1), "b.0001", status="running", role="foreach")
    for ordinal in reversed(range(12)):
        status = "completed" if ordinal % 2 else "pending"
        await add_item(conn, step_id, ordinal, status=status, blockers=[0] if ordinal else [])
    await add_item(conn, other, 0)

    first = await items.list_items(conn, step_id=step_id, limit=7)
    rest = await items.list_items(conn, step_id=step_id, limit=7, after=first.rows[-1].ordinal)
    done = await items.list_items(conn, step_id=step_id, limit=99, status="completed")

    assert [row.ordinal for row in (*first.rows, *rest.rows)] == list(range(12))
    assert (first.more, rest.more) == (True, False)
    assert [row.ordinal for row in done.rows] == [1, 3, 5, 7, 9, 11]
    assert (first.rows[1].blockers, first.rows[1].id) == ([0], f"{step_id}/1")


async def test_a_step_is_found_in_its_namespace_only(conn: AsyncConnection) -> None:
    """Also one that a resume replaced."""
    await add_run(conn, ulid(1))
    step_id = await add_step(conn, ulid(1), "b.0000", superseded_epoch=2, result_text="text")

    found = await steps.step_by_id(conn, namespace="default", step_id=step_id)

    assert (found.id, found.result_text) == (step_id, "text")
    for namespace, wanted in (("other", step_id), ("default", f"{step_id}x"), ("default", "")):
        with pytest.raises(StepNotFoundError):
            await steps.step_by_id(conn, namespace=namespace, step_id=wanted)


async def test_a_chain_goes_down_to_the_innermost_open_step(conn: AsyncConnection) -> None:
    """Through a called workflow and through the first item of a `foreach` that runs."""
    top, middle, bottom = (ulid(n) for n in range(3))
    await add_run(conn, top, workflow_name="top")
    await add_step(conn, top, "b.0000")
    await add_step(conn, top, "b.0001", status="running", child_run_id=middle)
    await add_run(conn, middle, workflow_name="middle", parent_workflow_run_id=top)
    step_id = await add_step(conn, middle, "b.0000", status="running", role="foreach")
    await add_item(conn, step_id, 0, status="completed", child_run_id=ulid(8))
    await add_item(conn, step_id, 1, status="running", child_run_id=bottom)
    await add_item(conn, step_id, 2, status="running", child_run_id=ulid(9))
    await add_run(conn, bottom, workflow_name="bottom", parent_workflow_run_id=middle)
    await add_step(conn, bottom, "b.0000", status="running", step_name="build", iteration=3)
    ended = await add_run(conn, ulid(5), status="completed")
    await add_step(conn, ended, "b.0000")

    found = await chains.chains(conn, [top, middle, ended])

    assert found.keys() == {top, middle}
    assert found[top] == (
        bottom, f"{bottom}/b.0000/e1/0", "build", 3, ("top", "middle", "bottom"),
    )  # fmt: skip
    assert found[middle].workflow_names == ("middle", "bottom")


async def test_a_chain_ends_where_the_child_has_not_begun(conn: AsyncConnection) -> None:
    top, child = ulid(1), ulid(2)
    await add_run(conn, top, workflow_name="top")
    await add_step(conn, top, "b.0000", status="running", child_run_id=child, step_name="c")
    await add_run(conn, child, workflow_name="child", status="pending")

    found = await chains.chains(conn, [top])

    assert (found[top].run_id, found[top].step_name) == (top, "c")
    assert found[top].workflow_names == ("top",)

"""Reading the items of a `foreach`."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select

from runkon_server.store.locking import run_of
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import ItemRow, Page
from runkon_server.store.tables import items

if TYPE_CHECKING:
    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS: Final = tuple(each.name for each in fields(ItemRow))


async def list_items(
    conn: AsyncConnection,
    *,
    step_id: str,
    limit: int,
    status: str | None = None,
    after: int | None = None,
    budget: int = PAGE_BYTES,
) -> Page[ItemRow]:
    """The items of one step in the order of its provider.

    Args:
        step_id: of a step that the caller has found in its namespace.
        status: only items in this state.
        after: ordinal of the last item of the page before.
    """
    statement = _item_list(status is not None)
    parameters = {
        "run_id": run_of(step_id),
        "step_id": step_id,
        "status": status,
        "after": -1 if after is None else after,
    }
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    return Page([_item(row) for row in page.rows], page.more)


@cache
def _item_list(by_status: bool) -> Select[Any]:  # noqa: FBT001 - a key of the cache
    statement = select(*(items.c[name] for name in _COLUMNS)).where(
        items.c.workflow_run_id == bindparam("run_id"),
        items.c.step_run_id == bindparam("step_id"),
        items.c.ordinal > bindparam("after"),
    )
    if by_status:
        statement = statement.where(items.c.status == bindparam("status"))
    weight = weight_of([items.c.structured_output, items.c.error], [items.c.context])
    return paged(statement, order=[items.c.ordinal], weight=weight)


def _item(row: Row[Any]) -> ItemRow:
    return ItemRow(**dict(zip(_COLUMNS, row, strict=False)))

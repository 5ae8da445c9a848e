"""Pages that are short enough in rows and in bytes, read by keyset in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Text, cast, func, literal, select

from runkon_server.store.rows import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql import ColumnElement
    from sqlalchemy.sql.elements import UnaryExpression

    Order: TypeAlias = ColumnElement[Any] | UnaryExpression[Any]
    Weight: TypeAlias = ColumnElement[int]

PAGE_BYTES: Final = 1024 * 1024
"""Rows are taken while those before them weigh less than this, so at least one always is. With the
heaviest row there can be, a page still fits a message of 4 MiB."""
ROW_BYTES: Final = 256
"""What a row weighs besides its long texts."""


def weight_of(
    texts: Sequence[ColumnElement[Any]], jsons: Sequence[ColumnElement[Any]] = ()
) -> Weight:
    """An SQL expression: about how many bytes of a message a row takes."""
    total: Weight = literal(ROW_BYTES)
    for text in texts:
        total = total + func.coalesce(func.octet_length(text), 0)
    for json in jsons:
        total = total + func.coalesce(func.octet_length(cast(json, Text)), 0)
    return total


async def fetch_page(
    conn: AsyncConnection,
    statement: Select[Any],
    *,
    order: Sequence[Order],
    weight: Weight,
    limit: int,
    budget: int = PAGE_BYTES,
) -> Page[RowMapping]:
    """Run a SELECT for one page.

    Args:
        statement: with its conditions, the cursor's among them, but without order and limit.
        order: unambiguous.
        weight: of a row, in bytes; see `weight_of`.
        limit: most rows.
        budget: most bytes, but for the last row.
    """
    candidates = statement.add_columns(
        weight.label("page_weight"),
        func.row_number().over(order_by=list(order)).label("page_number"),
    )
    inner = candidates.order_by(*order).limit(limit + 1).subquery()
    before = func.sum(inner.c.page_weight).over(order_by=inner.c.page_number) - inner.c.page_weight
    weighed = select(
        inner, before.label("page_before"), func.count().over().label("page_found")
    ).subquery()
    chosen = (
        select(weighed)
        .where(weighed.c.page_before < budget, weighed.c.page_number <= limit)
        .order_by(weighed.c.page_number)
    )
    rows = (await conn.execute(chosen)).mappings().all()
    return Page(rows, more=bool(rows) and rows[0]["page_found"] > len(rows))

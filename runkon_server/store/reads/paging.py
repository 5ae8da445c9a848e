"""Pages that are short enough in rows and in bytes, read by keyset in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Text, bindparam, cast, func, literal, select

from runkon_server.store.rows import Page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row, Select
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


def paged(statement: Select[Any], *, order: Sequence[Order], weight: Weight) -> Select[Any]:
    """A SELECT that gives one page at a time; for `fetch_page`.

    Making it takes milliseconds, so callers keep it and give everything that varies as bound
    parameters: then SQLAlchemy need not look at the whole of it for every call.

    Args:
        statement: with its conditions, the cursor's among them, but without order and limit.
        order: unambiguous.
        weight: of a row, in bytes; see `weight_of`.
    """
    number = func.row_number().over(order_by=list(order))
    candidates = statement.add_columns(weight.label("page_weight"), number.label("page_number"))
    limited = candidates.order_by(*order).limit(bindparam("page_candidates"))
    inner = limited.subquery()
    before = func.sum(inner.c.page_weight).over(order_by=inner.c.page_number) - inner.c.page_weight
    found = func.count().over()
    weighed = select(inner, before.label("page_before"), found.label("page_found")).subquery()
    return (
        select(weighed)
        .where(
            weighed.c.page_before < bindparam("page_budget"),
            weighed.c.page_number < bindparam("page_candidates"),
        )
        .order_by(weighed.c.page_number)
    )


async def fetch_page(
    conn: AsyncConnection,
    statement: Select[Any],
    parameters: Mapping[str, Any],
    *,
    limit: int,
    budget: int = PAGE_BYTES,
) -> Page[Row[Any]]:
    """Run what `paged` made.

    Args:
        parameters: of the conditions.
        limit: most rows.
        budget: most bytes, but for the last row.

    Returns:
        Rows of the statement's columns in their order, followed by some of ours.
    """
    bounds = {"page_candidates": limit + 1, "page_budget": budget}
    rows = (await conn.execute(statement, {**parameters, **bounds})).all()
    return Page(rows, more=bool(rows) and rows[0].page_found > len(rows))

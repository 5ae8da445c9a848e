"""Reading which workers are connected."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, func, select, tuple_

from runkon_server.dsl.checking.offers import Offers
from runkon_server.store.database import fetch
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import Page, WorkerRow
from runkon_server.store.tables import workers

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

_OFFERED: Final = """
WITH live AS MATERIALIZED (
    SELECT actions, item_providers, gate_types, scripts FROM workers
    WHERE namespace = %(namespace)s AND expires_at >= clock_timestamp())
SELECT 'action', unnest(actions) FROM live
UNION SELECT 'items', unnest(item_providers) FROM live
UNION SELECT 'gate', unnest(gate_types) FROM live
UNION SELECT 'script', '*' FROM live WHERE scripts"""

_FIELDS: Final = tuple(WorkerRow.__dataclass_fields__)
_OFFERS: Final = (
    workers.c.queues, workers.c.actions, workers.c.item_providers, workers.c.gate_types
)  # fmt: skip


async def list_workers(
    conn: AsyncConnection,
    *,
    namespace: str,
    limit: int,
    after: tuple[str, str] | None = None,
    budget: int = PAGE_BYTES,
) -> Page[WorkerRow]:
    """The workers of a namespace that are connected now, by id.

    Args:
        after: id and replica token of the last one of the page before.
    """
    worker_id, token = after or (None, None)
    parameters = {"namespace": namespace, "after_id": worker_id, "after_token": token}
    statement = _statement(goes_on=after is not None)
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    rows = [WorkerRow(**dict(zip(_FIELDS, row, strict=False))) for row in page.rows]
    return Page(rows, page.more)


@cache
def _statement(*, goes_on: bool) -> Select[Any]:
    columns = workers.c
    statement = select(*(columns[name] for name in _FIELDS)).where(
        columns.namespace == bindparam("namespace"),
        columns.expires_at >= func.clock_timestamp(),
    )
    if goes_on:
        place = tuple_(bindparam("after_id", type_=Text), bindparam("after_token", type_=Text))
        statement = statement.where(tuple_(columns.worker_id, columns.replica_token) > place)
    order = [columns.worker_id, columns.replica_token]
    return paged(statement, order=order, weight=weight_of([columns.client], _OFFERS))


async def offers_in(conn: AsyncConnection, *, namespace: str) -> Offers:
    """All that connected workers of a namespace serve."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for kind, name in await fetch(conn, _OFFERED, {"namespace": namespace}):
        names[kind].add(name)
    return Offers(
        actions=frozenset(names["action"]),
        item_providers=frozenset(names["items"]),
        gate_types=frozenset(names["gate"]),
        scripts="script" in names,
    )

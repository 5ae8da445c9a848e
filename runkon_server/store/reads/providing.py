"""Reading runs as items of a `foreach`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.core.filters import All, Any, Comparison, LabelIs, Not, Relative
from runkon_server.store.reads.finding import RunQuery, find_ids
from runkon_server.store.tables import run_details, runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.filters import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs of a namespace; what is empty or None does not matter."""

    namespace: str
    statuses: tuple[str, ...] = ()
    workflow_name: str | None = None
    labels: dict[str, str]
    """All of them, with these values."""
    older_than: timedelta | None = None
    """Created at least so long ago."""
    newer_than: timedelta | None = None
    """Created at most so long ago."""


class FoundRun(NamedTuple):
    """What is told of a run."""

    id: str
    workflow_name: str
    status: str
    title: str | None
    created_at: datetime


_EXAMINED_AT_ONCE: Final = 20_000
_FOUND: Final = (
    select(
        runs.c.id,
        runs.c.workflow_name,
        runs.c.status,
        run_details.c.workflow_title,
        runs.c.created_at,
    )
    .join(run_details, run_details.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_())
    .order_by(runs.c.id)
)


async def find_runs(
    conn: AsyncConnection, wanted: RunFilter, *, except_root: str, limit: int
) -> list[FoundRun]:
    """Runs in the order of their creation, at most `limit`.

    Args:
        except_root: the tree of runs that asks; finding itself would never end.
    """
    terms = All((*_terms(wanted), Not(Comparison("root_run_id", "=", except_root))))
    ids: list[str] = []
    after: str | None = None
    while len(ids) < limit:
        query = RunQuery(namespace=wanted.namespace, wanted=terms, after=after, newest_first=False)
        found = await find_ids(conn, query, limit=limit - len(ids), examine=_EXAMINED_AT_ONCE)
        ids += found.ids
        after = found.examined
        if after is None:
            break
    return [FoundRun(*row) for row in await conn.execute(_FOUND, {"ids": ids})]


def _terms(wanted: RunFilter) -> Iterator[Filter]:
    """What is asked, as a list would say it."""
    if wanted.statuses:
        yield Any(tuple(Comparison("status", "=", status) for status in wanted.statuses))
    if wanted.workflow_name:
        yield Comparison("workflow", "=", wanted.workflow_name)
    for key, value in wanted.labels.items():
        yield LabelIs(key, value)
    if wanted.older_than:
        yield Comparison("create_time", "<=", Relative(-wanted.older_than))
    if wanted.newer_than:
        yield Comparison("create_time", ">=", Relative(-wanted.newer_than))

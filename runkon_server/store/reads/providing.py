"""Reading runs as items of a `foreach`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import Interval, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT

from runkon_server.store.tables import run_details, runs

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection


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


_CREATED_BEFORE: Final = func.clock_timestamp() - bindparam("older_than", type_=Interval)
_CREATED_AFTER: Final = func.clock_timestamp() - bindparam("newer_than", type_=Interval)
_CONDITIONS: Final[dict[str, ColumnElement[bool]]] = {
    "statuses": runs.c.status == bindparam("statuses", type_=ARRAY(TEXT)).any_(),
    "workflow_name": runs.c.workflow_name == bindparam("workflow_name"),
    "labels": run_details.c.labels.contains(bindparam("labels", type_=JSONB)),
    "older_than": runs.c.created_at <= _CREATED_BEFORE,
    "newer_than": runs.c.created_at >= _CREATED_AFTER,
}


async def find_runs(
    conn: AsyncConnection, wanted: RunFilter, *, except_root: str, limit: int
) -> list[FoundRun]:
    """Runs in the order of their creation, at most `limit`.

    Args:
        except_root: the tree of runs that asks; finding itself would never end.
    """
    statement = (
        select(
            runs.c.id,
            runs.c.workflow_name,
            runs.c.status,
            run_details.c.workflow_title,
            runs.c.created_at,
        )
        .join(run_details, run_details.c.run_id == runs.c.id)
        .where(
            runs.c.namespace == bindparam("namespace"),
            func.coalesce(run_details.c.root_run_id, runs.c.id) != bindparam("except_root"),
        )
        .order_by(runs.c.id)
        .limit(bindparam("limit"))
    )
    parameters = {
        "namespace": wanted.namespace,
        "statuses": list(wanted.statuses),
        "workflow_name": wanted.workflow_name,
        "labels": wanted.labels,
        "older_than": wanted.older_than,
        "newer_than": wanted.newer_than,
    }
    for name, condition in _CONDITIONS.items():
        if parameters[name]:
            statement = statement.where(condition)
    bound = {name: value for name, value in parameters.items() if value}
    found = await conn.execute(statement, {**bound, "except_root": except_root, "limit": limit})
    return [FoundRun(*row) for row in found]

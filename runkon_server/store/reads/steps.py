"""Reading the steps of a run."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Integer, Text, bindparam, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on

from runkon_server.core.records import StepRecord
from runkon_server.errors import StepNotFoundError
from runkon_server.store.locking import run_of
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import Page, StepRow
from runkon_server.store.tables import runs, steps

if TYPE_CHECKING:
    from sqlalchemy import Row, RowMapping, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS: Final = tuple(each.name for each in fields(StepRow))
_RECORD: Final = tuple(each.name for each in fields(StepRecord))
_LEFT_OUT: Final = frozenset(
    {
        "result_text",
        "context_out",
        "structured_output",
        "gate_prompt",
        "gate_feedback",
        "step_error",
        "child_results",
    }
)
_ERROR_LENGTH: Final = 400
_TUPLES: Final = ("iterations", "markers_out", "gate_selections")


class StepCursor(NamedTuple):
    """The place of a step: program order, then epochs, then attempts; none of it ever changes."""

    at: str
    epoch: int
    id: str


def cursor_of(step: StepRow) -> StepCursor:
    """Where the page behind this step begins."""
    return StepCursor(step.at, step.epoch, step.id)


_STEP_BY_ID: Final = (
    select(*(steps.c[name] for name in _COLUMNS))
    .join(runs, runs.c.id == steps.c.workflow_run_id)
    .where(
        steps.c.workflow_run_id == bindparam("run_id"),
        steps.c.id == bindparam("id"),
        runs.c.namespace == bindparam("namespace"),
    )
)


async def step_by_id(conn: AsyncConnection, *, namespace: str, step_id: str) -> StepRow:
    """One step, texts whole; rows that a resume replaced are found as well.

    Raises:
        StepNotFoundError: the namespace has no such step.
    """
    wanted = {"namespace": namespace, "run_id": run_of(step_id), "id": step_id}
    row = (await conn.execute(_STEP_BY_ID, wanted)).one_or_none()
    if row is None:
        raise StepNotFoundError(step_id)
    return _step(row)


async def list_steps(
    conn: AsyncConnection,
    *,
    run_id: str,
    limit: int,
    after: StepCursor | None = None,
    include_superseded: bool = False,
    budget: int = PAGE_BYTES,
) -> Page[StepRow]:
    """The steps of a run in program order, attempts at one step in their order, texts whole.

    Args:
        run_id: of a run that the caller has found in its namespace.
    """
    statement = _step_list(include_superseded, after is not None)
    parameters: dict[str, Any] = {"run_id": run_id}
    if after is not None:
        parameters |= {**after._asdict(), "length": len(after.id)}
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    return Page([_step(row) for row in page.rows], page.more)


@cache
def _step_list(include_superseded: bool, goes_on: bool) -> Select[Any]:  # noqa: FBT001 - a key of the cache
    # Ids at one place and of one epoch differ in the attempt, which ends them.
    order = (steps.c.at, steps.c.epoch, func.length(steps.c.id), steps.c.id)
    statement = select(*(steps.c[name] for name in _COLUMNS)).where(
        steps.c.workflow_run_id == bindparam("run_id")
    )
    if not include_superseded:
        statement = statement.where(steps.c.superseded_epoch.is_(None))
    if goes_on:
        place = tuple_(
            bindparam("at", type_=Text),
            bindparam("epoch", type_=Integer),
            bindparam("length", type_=Integer),
            bindparam("id", type_=Text),
        )
        statement = statement.where(tuple_(*order) > place)
    weight = weight_of(
        [
            steps.c.result_text,
            steps.c.context_out,
            steps.c.structured_output,
            steps.c.step_error,
            steps.c.gate_prompt,
            steps.c.gate_feedback,
        ],
        [steps.c.markers_out, steps.c.gate_options],
    )
    return paged(statement, order=order, weight=weight)


_OUTLINES: Final = (
    select(
        *(steps.c[name] for name in _RECORD if name not in _LEFT_OUT),
        func.left(steps.c.step_error, _ERROR_LENGTH).label("step_error"),
    )
    .where(steps.c.workflow_run_id == bindparam("run_id"), steps.c.superseded_epoch.is_(None))
    .order_by(steps.c.position, steps.c.id)
)


async def step_outlines(conn: AsyncConnection, *, run_id: str) -> list[StepRecord]:
    """Every standing step of a run in the order of making, without the texts that it produced."""
    found = await conn.execute(_OUTLINES, {"run_id": run_id})
    return [_record(row) for row in found.mappings()]


_STATUSES: Final = (
    select(steps.c.path, steps.c.status)
    .ext(distinct_on(steps.c.path))
    .where(steps.c.workflow_run_id == bindparam("run_id"), steps.c.superseded_epoch.is_(None))
    .order_by(
        steps.c.path,
        steps.c.at.desc(),
        steps.c.epoch.desc(),
        func.length(steps.c.id).desc(),
        steps.c.id.desc(),
    )
)


async def step_statuses(conn: AsyncConnection, *, run_id: str) -> dict[str, str]:
    """The status of each path of a run's definition: of the last pass, and there of the last try.

    Args:
        run_id: of a run that the caller has found in its namespace.
    """
    found = await conn.execute(_STATUSES, {"run_id": run_id})
    return {row.path: row.status for row in found}


def _step(row: Row[Any]) -> StepRow:
    return StepRow(**dict(zip(_COLUMNS, row, strict=False)))


def _record(row: RowMapping) -> StepRecord:
    values: dict[str, Any] = dict(row)
    for name in _TUPLES:
        if values[name] is not None:
            values[name] = tuple(values[name])
    if values["gate_options"] is not None:
        values["gate_options"] = tuple((key, label) for key, label in values["gate_options"])
    return StepRecord(**values)

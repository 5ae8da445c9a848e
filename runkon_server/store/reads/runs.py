"""Reading runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, case, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from runkon_server.errors import RunNotFoundError, RunPurgedError
from runkon_server.store.quick_reads import Quick
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import Page, RunHead, RunRow
from runkon_server.store.tables import (
    definitions,
    run_details,
    run_events,
    run_keys,
    run_tombstones,
    runs,
    steps,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql.selectable import LateralFromClause

    from runkon_server.store.quick_reads import QuickReads

_COLUMNS: Final = tuple(each.name for each in fields(RunRow) if each.name != "current_step")
_LOOK_BACK: Final = 32
"""Rows, from the last in program order, among which the current step is looked for: more than the
branches of any sensible `parallel`, and the same effort for a run of any length."""
_ACTIVE: Final = ("running", "waiting")


def _select_runs() -> Select[Any]:
    current = _current_step()
    columns = {**run_details.c, **runs.c}
    return (
        select(
            *(columns[name] for name in _COLUMNS),
            current.c.step_name.label("current_name"),
            current.c.iteration.label("current_iteration"),
        )
        .select_from(runs.join(run_details, run_details.c.run_id == runs.c.id))
        .outerjoin(current, true())
    )


def _current_step() -> LateralFromClause:
    """Of a live run: its first open step in program order, or else the last step of all."""
    last = (
        select(steps.c.step_name, steps.c.iteration, steps.c.status, steps.c.at)
        .where(
            steps.c.workflow_run_id == runs.c.id,
            steps.c.superseded_epoch.is_(None),
            runs.c.ended_at.is_(None),
        )
        .order_by(steps.c.id.desc())
        .limit(_LOOK_BACK)
        .correlate(runs)
        .subquery("last_steps")
    )
    is_open = last.c.status.in_(_ACTIVE)
    return (
        select(last.c.step_name, last.c.iteration)
        .order_by(is_open.desc(), case((is_open, last.c.at)).asc(), last.c.at.desc())
        .limit(1)
        .lateral("current_step")
    )


def _run(row: Sequence[Any]) -> RunRow:
    """A run from its columns and its current step; what a page needs may follow."""
    name, iteration = row[len(_COLUMNS) : len(_COLUMNS) + 2]
    current = None if name is None else (name, iteration)
    return RunRow(**dict(zip(_COLUMNS, row, strict=False)), current_step=current)


_SELECT_RUNS: Final = _select_runs()
_RUNS_BY_ID: Final = _SELECT_RUNS.where(runs.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_())
_KNOWN_RUNS: Final = Quick(_RUNS_BY_ID)


async def runs_by_id(conn: AsyncConnection, run_ids: Collection[str]) -> dict[str, RunRow]:
    """The runs of these ids, of any namespace; the caller compares it. Unknown ids are left out."""
    found = await conn.execute(_RUNS_BY_ID, {"ids": list(run_ids)})
    return {row.id: _run(row) for row in found}


async def known_runs(reads: QuickReads, run_ids: Collection[str]) -> dict[str, RunRow]:
    """The same as `runs_by_id`, at the price of a read that every call makes."""
    found = map(_run, await reads.fetch(_KNOWN_RUNS, ids=list(run_ids)))
    return {run.id: run for run in found}


async def list_runs(
    conn: AsyncConnection,
    *,
    namespace: str,
    limit: int,
    after: str | None = None,
    newest_first: bool = True,
    budget: int = PAGE_BYTES,
) -> Page[RunRow]:
    """The runs of a namespace in the order of their creation, or against it.

    Args:
        after: id of the last run of the page before.
    """
    statement = _run_list(newest_first, after is not None)
    parameters = {"namespace": namespace, "after": after}
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    return Page([_run(row) for row in page.rows], page.more)


async def read_page(
    conn: AsyncConnection, run_ids: Sequence[str], *, newest_first: bool, budget: int = PAGE_BYTES
) -> Page[RunRow]:
    """The runs of these ids in the order of their creation, or against it; as many as fit."""
    page = await fetch_page(
        conn,
        _run_page(newest_first),
        {"ids": list(run_ids)},
        limit=len(run_ids),
        budget=budget,
    )
    return Page([_run(row) for row in page.rows], page.more)


@cache
def _run_page(newest_first: bool) -> Select[Any]:  # noqa: FBT001 - a key of the cache
    return _in_pages(_RUNS_BY_ID, newest_first=newest_first)


@cache
def _run_list(newest_first: bool, goes_on: bool) -> Select[Any]:  # noqa: FBT001 - a key of the cache
    statement = _SELECT_RUNS.where(runs.c.namespace == bindparam("namespace"))
    if goes_on:
        after = bindparam("after", type_=Text)
        statement = statement.where(runs.c.id < after if newest_first else runs.c.id > after)
    return _in_pages(statement, newest_first=newest_first)


def _in_pages(statement: Select[Any], *, newest_first: bool) -> Select[Any]:
    return paged(
        statement,
        order=[runs.c.id.desc() if newest_first else runs.c.id],
        weight=weight_of(
            [run_details.c.error, run_details.c.result_summary, run_details.c.cancel_reason],
            [run_details.c.inputs, run_details.c.labels, runs.c.blocked_on],
        ),
    )


_OLDEST: Final = (
    select(func.min(run_events.c.seq)).where(run_events.c.run_id == runs.c.id).scalar_subquery()
)
_HEAD_COLUMNS: Final = (
    runs.c.last_seq,
    func.coalesce(_OLDEST, runs.c.last_seq + 1).label("oldest_seq"),
    runs.c.status,
    runs.c.epoch,
)
_HEAD: Final = select(*_HEAD_COLUMNS).where(
    runs.c.id == bindparam("run_id"), runs.c.namespace == bindparam("namespace")
)
_HEADS: Final = Quick(
    select(runs.c.namespace, runs.c.id, *_HEAD_COLUMNS).where(
        runs.c.id == bindparam("ids", type_=ARRAY(TEXT)).any_()
    )
)


async def run_heads(
    reads: QuickReads, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], RunHead]:
    """The same of many runs, each named by its namespace and id; those removed are left out."""
    rows = await reads.fetch(_HEADS, ids=[run_id for _, run_id in names])
    return {
        (namespace, run_id): RunHead(
            run_id=run_id, last_seq=last, oldest_seq=oldest, status=status, epoch=epoch
        )
        for namespace, run_id, last, oldest, status, epoch in rows
    }


async def run_head(conn: AsyncConnection, *, namespace: str, run_id: str) -> RunHead:
    """How far the run's events go, or went if it was removed, at one moment.

    Raises:
        RunNotFoundError: the namespace has no such run.
    """
    found = await conn.execute(_HEAD, {"run_id": run_id, "namespace": namespace})
    row = found.mappings().one_or_none()
    if row is None:
        tombstone = await find_tombstone(conn, namespace=namespace, run_id=run_id)
        if tombstone is None:
            raise RunNotFoundError(run_id)
        return tombstone
    return RunHead(run_id=run_id, **row)


async def run_by_id(conn: AsyncConnection, *, namespace: str, run_id: str) -> RunRow:
    """One run.

    Raises:
        RunNotFoundError: the namespace has no such run.
        RunPurgedError: it had one, which was removed.
    """
    row = (await runs_by_id(conn, [run_id])).get(run_id)
    if row is not None and row.namespace == namespace:
        return row
    raise await refusal_of_absent(conn, namespace=namespace, run_id=run_id)


async def refusal_of_absent(
    conn: AsyncConnection, *, namespace: str, run_id: str
) -> RunNotFoundError:
    """What to tell whoever asks for a run that is not there: whether it once was."""
    head = await find_tombstone(conn, namespace=namespace, run_id=run_id)
    if head is None or head.purged_at is None:
        return RunNotFoundError(run_id)
    return RunPurgedError(
        run_id, status=head.status, last_seq=head.last_seq, purged_at=head.purged_at
    )


@asynccontextmanager
async def telling_removed(reads: AsyncEngine, namespace: str) -> AsyncIterator[None]:
    """Tell who asked something of a run that is not there whether it once was.

    Raises:
        RunPurgedError: instead of the RunNotFoundError inside, of a run that was removed.
    """
    try:
        yield
    except RunNotFoundError as error:
        async with reads.connect() as conn:
            raise await refusal_of_absent(conn, namespace=namespace, run_id=error.name) from error


async def find_tombstone(conn: AsyncConnection, *, namespace: str, run_id: str) -> RunHead | None:
    """How far the events of a run went that was removed; None: there was none, or long ago."""
    columns = run_tombstones.c
    statement = select(
        columns.last_seq,
        (columns.last_seq + 1).label("oldest_seq"),
        columns.status,
        columns.epoch,
        columns.purged_at,
    ).where(columns.run_id == run_id, columns.namespace == namespace)
    row = (await conn.execute(statement)).mappings().one_or_none()
    return None if row is None else RunHead(run_id=run_id, **row)


async def run_id_of_key(conn: AsyncConnection, *, namespace: str, key: str) -> str:
    """The run that holds the key now, or held it last.

    Raises:
        RunNotFoundError: the key was never used in this namespace.
    """
    statement = select(run_keys.c.run_id).where(
        run_keys.c.namespace == namespace, run_keys.c.key == key
    )
    run_id: str | None = (await conn.execute(statement)).scalar_one_or_none()
    if run_id is None:
        raise RunNotFoundError(key)
    return run_id


async def snapshots(
    conn: AsyncConnection, *, namespace: str, content_hashes: Collection[str]
) -> dict[str, str]:
    """The stored definitions of these content hashes, as JSON text."""
    statement = select(definitions.c.content_hash, definitions.c.snapshot).where(
        definitions.c.namespace == namespace, definitions.c.content_hash.in_(content_hashes)
    )
    return {row.content_hash: row.snapshot for row in await conn.execute(statement)}

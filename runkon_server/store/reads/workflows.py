"""Reading stored workflows."""

from __future__ import annotations

from datetime import UTC
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlalchemy import BigInteger, Text, bindparam, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from runkon_server.errors import WorkflowDeletedError, WorkflowNotFoundError
from runkon_server.store.quick_reads import Quick
from runkon_server.store.reads.paging import PAGE_BYTES, fetch_page, paged, weight_of
from runkon_server.store.rows import Page, WorkflowRow
from runkon_server.store.tables import definitions, deleted_workflows, workflows

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Row, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.quick_reads import QuickReads
    from runkon_server.store.reads.paging import Weight

_HEAD: Final = ("namespace", "name", "version", "content_hash", "created_at", "created_by")
_BODY: Final = ("source", "output_schemas", "snippets")
_BASIC: Final = (*_HEAD, "head")
_FULL: Final = (*_HEAD, *_BODY, "head", "snapshot")


@cache
def _select_workflows(*, full: bool) -> Select[Any]:
    snapshot = definitions.c.snapshot
    steps = literal(["body", "always"], ARRAY(Text))
    head = cast(snapshot, JSONB).op("-", return_type=JSONB())(steps).label("head")
    columns = [workflows.c[name] for name in (*_HEAD, *(_BODY if full else ()))]
    return select(*columns, head, *([snapshot] if full else [])).join_from(
        workflows,
        definitions,
        (definitions.c.namespace == workflows.c.namespace)
        & (definitions.c.content_hash == workflows.c.content_hash),
    )


def _weight(*, full: bool) -> Weight:
    if full:
        return weight_of(
            [workflows.c.source, definitions.c.snapshot],
            [workflows.c.output_schemas, workflows.c.snippets],
        )
    # Declared inputs, with descriptions and defaults, are most of what is left of the source.
    return weight_of([workflows.c.source])


def _workflow(row: Row[Any], *, full: bool) -> WorkflowRow:
    names = _FULL if full else _BASIC
    return WorkflowRow(**dict(zip(names, row, strict=False)))


async def workflow(
    conn: AsyncConnection, *, namespace: str, name: str, version: int | None = None, full: bool
) -> WorkflowRow:
    """One version of a workflow; None means the newest.

    Raises:
        WorkflowNotFoundError: the namespace has no such workflow, or it has no such version.
        WorkflowDeletedError: it had.
    """
    statement = _select_workflows(full=full).where(
        workflows.c.namespace == namespace, workflows.c.name == name
    )
    if version is not None:
        statement = statement.where(workflows.c.version == version)
    statement = statement.order_by(workflows.c.version.desc()).limit(1)
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        await refuse_missing(conn, namespace=namespace, name=name, version=version)
    return _workflow(row, full=full)


async def refuse_missing(
    conn: AsyncConnection, *, namespace: str, name: str, version: int | None
) -> NoReturn:
    """Say why there is no such workflow, or no such version of it.

    Raises:
        WorkflowDeletedError: it was deleted.
        WorkflowNotFoundError: it was never there.
    """
    called = name if version is None else f"{name}@{version}"
    statement = select(
        deleted_workflows.c.last_version,
        deleted_workflows.c.deleted_by,
        deleted_workflows.c.deleted_at,
    ).where(deleted_workflows.c.namespace == namespace, deleted_workflows.c.name == name)
    found = (await conn.execute(statement)).one_or_none()
    if found is None or (version or 1) > found.last_version:
        raise WorkflowNotFoundError(called)
    at = found.deleted_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    raise WorkflowDeletedError(called, deleted_by=found.deleted_by, deleted_at=at)


async def newest_workflows(
    conn: AsyncConnection,
    *,
    namespace: str,
    limit: int,
    after: str | None = None,
    full: bool = False,
    budget: int = PAGE_BYTES,
) -> Page[WorkflowRow]:
    """The newest version of every workflow of a namespace, by name.

    Args:
        after: name of the last one of the page before.
    """
    statement = _newest_list(full=full, goes_on=after is not None)
    parameters = {"namespace": namespace, "after": after}
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    return Page([_workflow(row, full=full) for row in page.rows], page.more)


@cache
def _newest_list(*, full: bool, goes_on: bool) -> Select[Any]:
    newest = (
        select(workflows.c.name, func.max(workflows.c.version).label("version"))
        .where(workflows.c.namespace == bindparam("namespace"))
        .group_by(workflows.c.name)
        .order_by(workflows.c.name)
        .limit(bindparam("page_candidates"))
    )
    if goes_on:
        newest = newest.where(workflows.c.name > bindparam("after", type_=Text))
    chosen = newest.subquery("newest")
    statement = (
        _select_workflows(full=full)
        .join(
            chosen,
            (chosen.c.name == workflows.c.name) & (chosen.c.version == workflows.c.version),
        )
        .where(workflows.c.namespace == bindparam("namespace"))
    )
    return paged(statement, order=[workflows.c.name], weight=_weight(full=full))


async def versions(
    conn: AsyncConnection,
    *,
    namespace: str,
    name: str,
    limit: int,
    below: int | None = None,
    full: bool = False,
    budget: int = PAGE_BYTES,
) -> Page[WorkflowRow]:
    """Every version of one workflow, newest first.

    Args:
        below: version that ended the page before.
    """
    statement = _version_list(full=full, goes_on=below is not None)
    parameters = {"namespace": namespace, "name": name, "below": below}
    page = await fetch_page(conn, statement, parameters, limit=limit, budget=budget)
    return Page([_workflow(row, full=full) for row in page.rows], page.more)


@cache
def _version_list(*, full: bool, goes_on: bool) -> Select[Any]:
    statement = _select_workflows(full=full).where(
        workflows.c.namespace == bindparam("namespace"), workflows.c.name == bindparam("name")
    )
    if goes_on:
        statement = statement.where(workflows.c.version < bindparam("below", type_=BigInteger))
    return paged(statement, order=[workflows.c.version.desc()], weight=_weight(full=full))


def _newest_hashes() -> Select[Any]:
    wanted = (
        func.unnest(
            bindparam("namespaces", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text))
        )
        .table_valued("namespace", "name")
        .render_derived("wanted")
    )
    newest = (
        select(workflows.c.version, workflows.c.content_hash)
        .where(
            workflows.c.namespace == wanted.c.namespace.collate("C"),
            workflows.c.name == wanted.c.name.collate("C"),
        )
        .order_by(workflows.c.version.desc())
        .limit(1)
        .lateral("newest")
    )
    return select(wanted.c.namespace, wanted.c.name, newest).select_from(wanted, newest)


_NEWEST_HASHES: Final = _newest_hashes()
_NEWEST: Final = Quick(_NEWEST_HASHES)


async def newest_hashes(
    conn: AsyncConnection, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, str]]:
    """Version and content hash of the newest version, by namespace and name."""
    wanted = {
        "namespaces": [namespace for namespace, _ in names],
        "names": [name for _, name in names],
    }
    return {
        (row.namespace, row.name): (row.version, row.content_hash)
        for row in await conn.execute(_NEWEST_HASHES, wanted)
    }


async def newest_versions(
    reads: QuickReads, names: Collection[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, str]]:
    """The same as `newest_hashes`, at the price of a read that every start makes."""
    rows = await reads.fetch(
        _NEWEST,
        namespaces=[namespace for namespace, _ in names],
        names=[name for _, name in names],
    )
    return {(namespace, name): (version, found) for namespace, name, version, found in rows}


async def content_hash(
    conn: AsyncConnection, *, namespace: str, name: str, version: int
) -> str | None:
    """The content hash of one version; None if there is no such version."""
    statement = select(workflows.c.content_hash).where(
        workflows.c.namespace == namespace,
        workflows.c.name == name,
        workflows.c.version == version,
    )
    return (await conn.execute(statement)).scalar_one_or_none()

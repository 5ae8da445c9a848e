"""Storing workflows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert

from runkon_server.errors import WorkflowNotFoundError
from runkon_server.store.tables import definitions, deleted_workflows, requests, workflows

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A checked definition to be stored under its name."""

    namespace: str
    name: str
    content_hash: str
    title: str | None
    description: str
    source: str
    snapshot: str
    created_by: str
    output_schemas: dict[str, str] = field(default_factory=dict)
    snippets: dict[str, str] = field(default_factory=dict)


async def put_version(conn: AsyncConnection, new: NewVersion) -> tuple[int, bool]:
    """Store a definition, unless the newest version has the same content.

    Callers of the same name wait for each other, so versions have no gaps.

    Args:
        conn: open transaction; the caller commits.

    Returns:
        The version that has this content now, and whether it was made now.
    """
    await _lock_name(conn, new.namespace, new.name)
    newest = (
        await conn.execute(
            select(workflows.c.version, workflows.c.content_hash)
            .where(workflows.c.namespace == new.namespace, workflows.c.name == new.name)
            .order_by(workflows.c.version.desc())
            .limit(1)
        )
    ).one_or_none()
    if newest is not None and newest.content_hash == new.content_hash:
        return newest.version, False
    last = await _last_deleted(conn, new.namespace, new.name) if newest is None else newest.version
    version = last + 1
    await conn.execute(
        insert(definitions)
        .values(
            namespace=new.namespace,
            content_hash=new.content_hash,
            snapshot=new.snapshot,
            output_schemas=new.output_schemas,
            snippets=new.snippets,
        )
        .on_conflict_do_nothing()
    )
    await conn.execute(
        insert(workflows).values(
            namespace=new.namespace,
            name=new.name,
            version=version,
            content_hash=new.content_hash,
            title=new.title,
            description=new.description,
            source=new.source,
            output_schemas=new.output_schemas,
            snippets=new.snippets,
            created_by=new.created_by,
        )
    )
    return version, True


async def delete_name(conn: AsyncConnection, *, namespace: str, name: str, principal: str) -> int:
    """Take every version of a name away; gives how many, 0 if it was deleted before.

    Runs have the definition that they were started with by its content, which stays.

    Args:
        conn: open transaction; the caller commits.

    Raises:
        WorkflowNotFoundError: no workflow of this name was ever stored.
    """
    await _lock_name(conn, namespace, name)
    gone = workflows.delete().where(workflows.c.namespace == namespace, workflows.c.name == name)
    versions = (await conn.execute(gone.returning(workflows.c.version))).scalars().all()
    if not versions:
        if not await _last_deleted(conn, namespace, name):
            raise WorkflowNotFoundError(name)
        return 0
    said = {"last_version": max(versions), "deleted_by": principal}
    mark = insert(deleted_workflows).values(namespace=namespace, name=name, **said)
    again = {**said, "deleted_at": func.clock_timestamp()}
    keys = [deleted_workflows.c.namespace, deleted_workflows.c.name]
    await conn.execute(mark.on_conflict_do_update(index_elements=keys, set_=again))
    return len(versions)


async def _lock_name(conn: AsyncConnection, namespace: str, name: str) -> None:
    place = func.hashtextextended(f"{namespace}/{name}", 0)
    await conn.execute(select(func.pg_advisory_xact_lock(place)))


async def _last_deleted(conn: AsyncConnection, namespace: str, name: str) -> int:
    """The last version that the name had when it was deleted; 0 if it never was."""
    statement = select(deleted_workflows.c.last_version).where(
        deleted_workflows.c.namespace == namespace, deleted_workflows.c.name == name
    )
    return (await conn.execute(statement)).scalar_one_or_none() or 0


async def claim_request(
    conn: AsyncConnection,
    *,
    namespace: str,
    request_id: str,
    method: str,
    digest: str,
) -> bool:
    """Take a request id, or find that an earlier call has it; waits for one that is under way.

    Args:
        conn: open transaction; the caller stores the answer with `store_response` and commits.
    """
    claim = (
        insert(requests)
        .values(
            namespace=namespace, request_id=request_id, method=method, digest=digest, response={}
        )
        .on_conflict_do_nothing()
        .returning(literal(1))
    )
    return (await conn.execute(claim)).scalar_one_or_none() is not None


async def store_response(
    conn: AsyncConnection, *, namespace: str, request_id: str, response: dict[str, Any]
) -> None:
    """Remember the answer to a claimed request."""
    await conn.execute(
        requests.update()
        .where(requests.c.namespace == namespace, requests.c.request_id == request_id)
        .values(response=response)
    )

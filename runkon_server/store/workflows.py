"""Storing workflows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert

from runkon_server.store.tables import definitions, requests, workflows

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
    place = f"{new.namespace}/{new.name}"
    await conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(place, 0))))
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
    version = 1 if newest is None else newest.version + 1
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

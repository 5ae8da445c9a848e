"""Reading what earlier calls were answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from runkon_server.store.rows import StoredRequest
from runkon_server.store.tables import requests

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def stored_request(
    conn: AsyncConnection, *, namespace: str, request_id: str
) -> StoredRequest | None:
    """The request of this id, if one succeeded lately."""
    statement = select(requests.c.method, requests.c.digest, requests.c.response).where(
        requests.c.namespace == namespace, requests.c.request_id == request_id
    )
    row = (await conn.execute(statement)).mappings().one_or_none()
    return None if row is None else StoredRequest(**row)

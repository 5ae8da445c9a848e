"""Request ids of calls that are transactions of their own, outside the committer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.errors import RequestIdReusedError
from runkon_server.store.database import fetch
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.locking import NewRequest

_CLAIM = """
INSERT INTO requests (namespace, request_id, method, digest, response)
VALUES (%(namespace)s, %(request_id)s, %(method)s, %(digest)s, %(response)s::jsonb)
ON CONFLICT DO NOTHING RETURNING request_id"""
_STORED = """
SELECT digest FROM requests
WHERE namespace = %(namespace)s AND request_id = %(request_id)s"""


async def claim_request(conn: AsyncConnection, request: NewRequest | None) -> bool:
    """Whether the request is new, and this transaction's; False: it was answered before.

    Raises:
        RequestIdReusedError: the id came with another payload.
    """
    if request is None:
        return True
    named = {"namespace": request.namespace, "request_id": request.request_id}
    values = {
        "method": request.method,
        "digest": request.digest,
        "response": to_json(request.response),
    }
    if await fetch(conn, _CLAIM, {**named, **values}):
        return True
    ((digest,),) = await fetch(conn, _STORED, named)
    if digest != request.digest:
        raise RequestIdReusedError(request.request_id)
    return False

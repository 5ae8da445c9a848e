"""Page tokens: opaque, signed, and good only for the list they came from.

A token holds the place where the next page begins. Its signature covers the request as well, so
that a token of another list, namespace or filter is refused instead of giving nonsense. The key is
made once per database; every replica has the same.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from runkon_server.api.parsing.checks import namespace_of
from runkon_server.errors import PageTokenInvalidError
from runkon_server.store.settings import shared_value

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon.v1 import admin_pb2, gates_pb2, runs_pb2, workers_pb2, workflows_pb2
    from runkon_server.runtime.ambient import Ambient

    ListRequest: TypeAlias = (
        admin_pb2.ListActionLimitsRequest
        | admin_pb2.ListReplicasRequest
        | gates_pb2.ListGatesRequest
        | runs_pb2.ListRunsRequest
        | runs_pb2.ListStepsRequest
        | runs_pb2.ListFanOutItemsRequest
        | workers_pb2.ListWorkersRequest
        | workflows_pb2.ListWorkflowsRequest
    )

__all__ = ["PageTokens", "stored_key"]

SETTING: Final = "page_token_key"
_MAC_BYTES: Final = 16


class Keeper(Protocol):
    """The part of the engine that leads to the key."""

    @property
    def ambient(self) -> Ambient:
        """Makes the key of a new database."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""


def stored_key(engine: Keeper) -> Callable[[], Awaitable[bytes]]:
    """A way to the database's key, which is made if there is none yet."""

    async def load() -> bytes:
        proposal = engine.ambient.token() + engine.ambient.token()
        async with engine.reads.connect() as conn:
            return (await shared_value(conn, SETTING, proposal=proposal)).encode()

    return load


class PageTokens:
    """Makes and reads tokens.

    Args:
        load_key: gives the signing key; asked once.
    """

    def __init__(self, load_key: Callable[[], Awaitable[bytes]]) -> None:
        self._load_key = load_key
        self._key: bytes | None = None

    async def seal(self, request: ListRequest, place: Sequence[str | int | bool]) -> str:
        """The token for the page behind `place`."""
        body = json.dumps(list(place), separators=(",", ":")).encode()
        mac = self._mac(await self._signing_key(), request, body)
        return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()

    async def open(self, request: ListRequest) -> list[Any] | None:
        """The place in the request's token; None on the first page.

        Raises:
            PageTokenInvalidError: the token is garbage, forged, or of another list.
        """
        token = request.page_token
        if not token:
            return None
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise PageTokenInvalidError from None
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        expected = self._mac(await self._signing_key(), request, body)
        if not hmac.compare_digest(mac, expected):
            raise PageTokenInvalidError
        place: list[Any] = json.loads(body)
        return place

    async def _signing_key(self) -> bytes:
        if self._key is None:
            self._key = await self._load_key()
        return self._key

    def _mac(self, key: bytes, request: ListRequest, body: bytes) -> bytes:
        """Over everything that decides what the list holds; the size of a page does not."""
        bound = copy.deepcopy(request)
        bound.namespace = namespace_of(request.namespace)
        bound.ClearField("page_token")
        bound.ClearField("page_size")
        name = request.DESCRIPTOR.full_name.encode()
        scope = bound.SerializeToString(deterministic=True)
        message = b"".join(len(part).to_bytes(4) + part for part in (name, scope, body))
        return hmac.digest(key, message, hashlib.sha256)[:_MAC_BYTES]

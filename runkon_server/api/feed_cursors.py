"""Cursors of feeds: opaque, signed, and good only for their namespace and their database cluster.

A cursor names a place among all events of a cluster. Transaction ids begin anew in another cluster,
so it carries the cluster's identity as well: there it would silently skip or repeat.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import TYPE_CHECKING, Final, Protocol

from runkon_server.api.page_tokens import stored_key
from runkon_server.errors import CursorForeignError, CursorInvalidError
from runkon_server.store.reads.feed import FeedPlace, system_identifier

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient

__all__ = ["FeedCursors"]

_VERSION: Final = 1
_MAC_BYTES: Final = 8
_PLACE: Final = struct.Struct(">BQQQ")
"""Version, cluster, transaction, sequence; then the run."""


class Keeper(Protocol):
    """The part of the engine that leads to the key and to the cluster."""

    @property
    def ambient(self) -> Ambient:
        """Makes the key of a new database."""

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads, in autocommit mode."""


class FeedCursors:
    """Makes and reads cursors.

    Args:
        engine: leads to the key and the cluster's identity, both asked for once.
    """

    def __init__(self, engine: Keeper) -> None:
        self._engine = engine
        self._key = b""
        self._cluster = 0

    async def prepare(self) -> None:
        """Learn what the other methods need."""
        if self._key:
            return
        async with self._engine.reads.connect() as conn:
            self._cluster = await system_identifier(conn)
        self._key = await stored_key(self._engine)()

    def seal(self, namespace: str, place: FeedPlace) -> str:
        """The cursor of a place, for readers of a namespace."""
        body = _PLACE.pack(_VERSION, self._cluster, place.xid, place.seq) + place.run_id.encode()
        return base64.urlsafe_b64encode(self._mac(namespace, body) + body).decode().rstrip("=")

    def open(self, namespace: str, cursor: str) -> FeedPlace:
        """The place that a cursor names.

        Raises:
            CursorInvalidError: it is garbage, forged, or of another namespace.
            CursorForeignError: it is of another cluster.
        """
        try:
            data = base64.b64decode(
                cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError):
            raise CursorInvalidError from None
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(namespace, body)):
            raise CursorInvalidError
        version, cluster, xid, seq = _PLACE.unpack_from(body)
        if version != _VERSION:
            raise CursorInvalidError
        if cluster != self._cluster:
            raise CursorForeignError(namespace)
        return FeedPlace(xid, body[_PLACE.size :].decode(), seq)

    def _mac(self, namespace: str, body: bytes) -> bytes:
        scope = b"runkon.feed\0" + namespace.encode() + b"\0"
        return hmac.digest(self._key, scope + body, hashlib.sha256)[:_MAC_BYTES]

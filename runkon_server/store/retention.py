"""How long the runs of a namespace are kept after their end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runkon_server.store.database import fetch

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

KEPT: Final = timedelta(days=30)
"""Where nobody has said otherwise."""
EVERY_NAMESPACE: Final = ""
"""The name under which the default of a database is kept."""

_READ: Final = "SELECT namespace, keep_for FROM retention ORDER BY namespace"
_SET: Final = """
INSERT INTO retention (namespace, keep_for) VALUES (%(namespace)s, %(keep_for)s::interval)
ON CONFLICT (namespace) DO UPDATE SET keep_for = excluded.keep_for,
    updated_at = clock_timestamp()"""
_UNSET: Final = "DELETE FROM retention WHERE namespace = %(namespace)s"


class Retention:
    """What was set; None means for ever."""

    def __init__(self, policies: dict[str, timedelta | None]) -> None:
        self.policies = policies

    def of(self, namespace: str) -> timedelta | None:
        """How long runs of the namespace are kept."""
        if namespace in self.policies:
            return self.policies[namespace]
        return self.policies.get(EVERY_NAMESPACE, KEPT)


async def read_retention(conn: AsyncConnection) -> Retention:
    """What holds now."""
    rows = [(name, keep_for) for name, keep_for in await fetch(conn, _READ, {})]
    return Retention(dict(rows))


async def set_retention(conn: AsyncConnection, namespace: str, keep_for: timedelta | None) -> None:
    """Keep the runs of a namespace for so long; None: for ever."""
    await conn.exec_driver_sql(_SET, {"namespace": namespace, "keep_for": keep_for})


async def unset_retention(conn: AsyncConnection, namespace: str) -> None:
    """Let the default hold for a namespace again."""
    await conn.exec_driver_sql(_UNSET, {"namespace": namespace})

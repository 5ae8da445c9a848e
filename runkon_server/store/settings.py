"""Values that all replicas of one database share and nobody configures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from runkon_server.store.tables import settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def shared_value(conn: AsyncConnection, name: str, *, proposal: str) -> str:
    """The value of a setting; the first to ask makes it.

    Args:
        conn: in autocommit mode: a proposal that won must be there for others at once.
        proposal: what becomes the value if there is none yet.
    """
    wanted = select(settings.c.value).where(settings.c.name == name)
    value: str | None = (await conn.execute(wanted)).scalar_one_or_none()
    if value is not None:
        return value
    await conn.execute(insert(settings).values(name=name, value=proposal).on_conflict_do_nothing())
    agreed: str = (await conn.execute(wanted)).scalar_one()
    return agreed

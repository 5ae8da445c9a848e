"""Commands that ask or change the database without a replica."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

_Result = TypeVar("_Result")
_CONNECTIONS: Final = 2
_LEASE_TTL_S: Final = 30.0


def ask_database(dsn: str, work: Callable[[AsyncEngine], Awaitable[_Result]]) -> _Result:
    """What `work` gives on a database of the right schema."""
    from runkon_server.cli.schema import check_schema, refusals_told
    from runkon_server.store.database import close_reads, create_reads

    check_schema(dsn, migrate=False, wait_s=0)

    async def run() -> _Result:
        engine = create_reads(dsn, _LEASE_TTL_S, _CONNECTIONS)
        try:
            return await work(engine)
        finally:
            await close_reads(engine)

    with refusals_told():
        return asyncio.run(run())

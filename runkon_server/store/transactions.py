"""Short transactions outside the committer: begun, committed and repeated here and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import psycopg
from sqlalchemy.exc import DBAPIError

from runkon_server.errors import ConflictError, OutcomeUnknownError
from runkon_server.failpoints import failpoint_async
from runkon_server.store.database import is_connection_loss, is_retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_Result = TypeVar("_Result")
_ATTEMPTS_MAX: Final = 5


async def in_transaction(
    engine: AsyncEngine, body: Callable[[AsyncConnection], Awaitable[_Result]]
) -> _Result:
    """What `body` gives, once its work is committed. After a deadlock it runs anew.

    Raises:
        ConflictError: it kept losing against concurrent work.
        OutcomeUnknownError: the connection broke while the commit was under way.
    """
    transactional = engine.execution_options(isolation_level="READ COMMITTED")
    for _ in range(_ATTEMPTS_MAX):
        async with transactional.connect() as conn:
            try:
                await failpoint_async("transaction.begun")
                result = await body(conn)
                await failpoint_async("transaction.done")
            except (DBAPIError, psycopg.Error) as error:
                if not is_retryable(error):
                    raise
                continue
            try:
                await conn.commit()
                await failpoint_async("transaction.committed")
            except (DBAPIError, psycopg.Error) as error:
                if is_connection_loss(error):
                    raise OutcomeUnknownError from error
                raise
            return result
    raise ConflictError

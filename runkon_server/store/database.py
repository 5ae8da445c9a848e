"""Connections to PostgreSQL: their settings, and which driver errors mean what.

Everything here that fails raises the driver's errors; `is_connection_loss` and friends classify
them, so that no other module needs to know SQLSTATEs.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from runkon_server.failpoints import failpoint_async
from runkon_server.store.migrations import sqlalchemy_url
from runkon_server.store.session_settings import connection_options, guards, pooled_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

# A plan made while a table was empty is a sequential scan for ever (measured: 7 times slower), so
# the committer's connections never plan by statistics: every statement there goes by a key.
COMMITTER_SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "random_page_cost": "0.1",
    "jit": "off",
    "statement_timeout": "5000",
}
_LOCK_TIMEOUT: Final = "55P03"
_RETRYABLE: Final = frozenset({"40001", "40P01", _LOCK_TIMEOUT})
# 08P01 is what PgBouncer says of everything: its server is gone, its queue was too long.
_AWAY: Final = frozenset(
    {
        "57P01", "57P02", "57P03", "57P05", "53300", "08000", "08001", "08003", "08004", "08006",
        "08P01",
    }
)  # fmt: skip
_READ_ONLY: Final = "25006"
_FULL: Final = "53100"


def transaction_settings(lease_ttl_s: float) -> str:
    """The statement that gives one transaction of a pooled committer the settings of its own."""
    settings = {**COMMITTER_SETTINGS, **guards(lease_ttl_s)}
    calls = (f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


async def connect_committer(
    dsn: str, lease_ttl_s: float, *, is_pooled: bool = False
) -> psycopg.AsyncConnection[Any]:
    """A connection for the committer."""
    if is_pooled:
        return await _connect(dsn, pooled_options(dsn))
    return await _connect(dsn, connection_options(dsn, lease_ttl_s, **COMMITTER_SETTINGS))


async def connect_quick(
    dsn: str, lease_ttl_s: float, *, is_pooled: bool = False
) -> psycopg.AsyncConnection[Any]:
    """A connection for `QuickReads`, with the settings of the other reads."""
    if is_pooled:
        return await _connect(dsn, pooled_options(dsn))
    return await _connect(dsn, connection_options(dsn, lease_ttl_s, statement_timeout="15000"))


async def connect_listener(dsn: str, lease_ttl_s: float) -> psycopg.AsyncConnection[Any]:
    """A session connection for LISTEN and the advisory lock; never through a pooler."""
    return await _connect(dsn, connection_options(dsn, lease_ttl_s, statement_timeout="5000"))


async def connect_unflushed(dsn: str, lease_ttl_s: float) -> psycopg.AsyncConnection[Any]:
    """A session connection whose commits do not wait for the disk; for what may be lost only."""
    settings = {"statement_timeout": "5000", "synchronous_commit": "off"}
    return await _connect(dsn, connection_options(dsn, lease_ttl_s, **settings))


async def _connect(dsn: str, options: dict[str, Any]) -> psycopg.AsyncConnection[Any]:
    """Connect; a cancel takes effect when the handshake is over, and the session closed.

    Given up in its middle, a handshake holds its backend for `authentication_timeout`, a minute,
    in which nobody can drop a database of that server (measured: DROP DATABASE waits for all
    backends to answer a barrier, and one that waits for a password does not).
    """
    connecting = asyncio.ensure_future(psycopg.AsyncConnection.connect(dsn, **options))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        while not connecting.done():
            with contextlib.suppress(asyncio.CancelledError):  # told once is told
                await asyncio.wait({connecting})
        if not connecting.cancelled() and connecting.exception() is None:
            await connecting.result().close()
        raise


def connect_lessor(dsn: str, lease_ttl_s: float) -> psycopg.Connection[Any]:
    """A synchronous connection for the renewal thread."""
    timeout_ms = max(1_000, min(5_000, int(lease_ttl_s * 1000 / 3)))
    options = connection_options(dsn, lease_ttl_s, statement_timeout=str(timeout_ms))
    return psycopg.connect(dsn, **options)


def create_reads(
    dsn: str, lease_ttl_s: float, pool_size: int, *, is_pooled: bool = False
) -> AsyncEngine:
    """The pool for reads and single-statement writes, each in autocommit."""
    if is_pooled:
        options = pooled_options(dsn)
    else:
        options = connection_options(dsn, lease_ttl_s, statement_timeout="15000")
    del options["autocommit"]
    engine = create_async_engine(
        sqlalchemy_url(dsn),
        async_creator=partial(_connect, dsn, options),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        isolation_level="AUTOCOMMIT",
        pool_use_lifo=True,
    )
    event.listen(engine.sync_engine, "handle_error", _drop_read_only)
    return engine


def _drop_read_only(context: ExceptionContext) -> None:
    """Drop the pool's sessions: one that began while the database was read-only may stay so."""
    if is_read_only(context.original_exception):
        context.is_disconnect = True


async def close_reads(reads: AsyncEngine) -> None:
    """Close the pool: idle sessions now, those in use as soon as they are given back.

    Disposing of the pool leaves the latter open for ever, in a queue that nobody looks at again,
    until the garbage collector finds them. Closing them at once would take them from calls that
    still have an answer to give.
    """
    event.listen(reads.sync_engine.pool, "checkin", _close_returned)
    await reads.dispose()


def _close_returned(_session: object, record: ConnectionPoolEntry) -> None:
    record.close()


async def fetch(
    conn: AsyncConnection, statement: str, parameters: dict[str, Any]
) -> Sequence[Sequence[Any]]:
    """All rows of one plain statement; its parameters are `%(name)s`."""
    result = await conn.exec_driver_sql(statement, parameters)
    await failpoint_async("statement.answered")
    return cast("Sequence[Sequence[Any]]", result.all())


def _driver_error(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error


def is_connection_loss(error: BaseException) -> bool:
    """Whether the session is gone, or the server refuses sessions."""
    cause = _driver_error(error)
    if isinstance(cause, psycopg.errors.IdleInTransactionSessionTimeout):
        return True
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return isinstance(cause, OSError | TimeoutError)
    return cause.sqlstate is None or cause.sqlstate in _AWAY


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may work in a moment: for loops that try again anyway.

    Beside lost sessions and conflicts: statements that took too long, a full disk, a server that
    became a standby, a pool whose connections are all in use.
    """
    cause = _driver_error(error)
    return (
        isinstance(cause, psycopg.OperationalError | psycopg.InternalError | PoolTimeoutError)
        or is_connection_loss(error)
        or is_retryable(error)
    )


def is_read_only(error: BaseException) -> bool:
    """Whether the server takes no writes: a standby, or set so."""
    cause = _driver_error(error)
    return isinstance(cause, psycopg.Error) and cause.sqlstate == _READ_ONLY


def is_full(error: BaseException) -> bool:
    """Whether the server's disk has no room."""
    cause = _driver_error(error)
    return isinstance(cause, psycopg.Error) and cause.sqlstate == _FULL


def is_lock_timeout(error: BaseException) -> bool:
    """Whether a lock was waited for in vain: somebody keeps a row."""
    cause = _driver_error(error)
    return isinstance(cause, psycopg.Error) and cause.sqlstate == _LOCK_TIMEOUT


def is_too_slow(error: BaseException) -> bool:
    """Whether a statement took longer than its session allows: less of it may not."""
    return isinstance(_driver_error(error), psycopg.errors.QueryCanceled)


def is_retryable(error: BaseException) -> bool:
    """Whether the same transaction may be tried again: deadlock, serialization, lock timeout."""
    cause = _driver_error(error)
    return isinstance(cause, psycopg.Error) and cause.sqlstate in _RETRYABLE

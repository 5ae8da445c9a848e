"""What the database driver's errors mean to a caller. Only `store` knows the driver."""

from __future__ import annotations

import psycopg
import sqlalchemy.exc

from runkon_server.errors import (
    ConflictError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    RunkonError,
    UnavailableError,
)
from runkon_server.store.database import is_connection_loss, is_full, is_read_only, is_retryable


def refusal_to_write(error: BaseException) -> UnavailableError | None:
    """Why the database, which answers, takes no writes from anybody now; None: it is not that.

    The same statement may work in a moment, for whoever can wait.
    """
    if is_read_only(error):
        return DatabaseReadOnlyError()
    return DatabaseFullError() if is_full(error) else None


def as_domain_error(error: BaseException) -> RunkonError | None:
    """The domain error that a driver's error amounts to; None if it is a bug or not the driver's.

    Connections that are refused, lost or not to be had, statements that took too long, sessions
    that stood still in a transaction, servers that shut down or are full: to a caller all of it is
    a database that cannot answer now.
    """
    if is_retryable(error):
        return ConflictError()
    if (refusal := refusal_to_write(error)) is not None:
        return refusal
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    is_lost = isinstance(cause, psycopg.Error) and is_connection_loss(error)
    if is_lost or isinstance(
        cause, psycopg.OperationalError | psycopg.InterfaceError | sqlalchemy.exc.TimeoutError
    ):
        return DatabaseUnavailableError()
    return None

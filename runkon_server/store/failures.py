"""What the database driver's errors mean to a caller. Only `store` knows the driver."""

from __future__ import annotations

import psycopg
import sqlalchemy.exc

from runkon_server.errors import ConflictError, DatabaseUnavailableError, RunkonError
from runkon_server.store.database import is_retryable


def as_domain_error(error: BaseException) -> RunkonError | None:
    """The domain error that a driver's error amounts to; None if it is a bug or not the driver's.

    Connections that are refused, lost or not to be had, statements that took too long, servers
    that shut down or are full: to a caller all of it is a database that cannot answer now.
    """
    if is_retryable(error):
        return ConflictError()
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(
        cause, psycopg.OperationalError | psycopg.InterfaceError | sqlalchemy.exc.TimeoutError
    ):
        return DatabaseUnavailableError()
    return None

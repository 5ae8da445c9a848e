"""The database schema: numbered steps of plain SQL, run by alembic under one advisory lock.

Additive first, removal one release later: a replica of the release before must keep working on
the schema of this one (ADR-0005).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, pool

from runkon_server.store.partitions import ensure_partitions

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATION_LOCK: Final = 727_001
"""Key of the advisory lock that lets one replica migrate while the others wait."""

VERSION_TABLE: Final = "runkon_schema_version"


def sqlalchemy_url(dsn: str) -> str:
    """The same database for SQLAlchemy: `postgresql://…` names another driver there."""
    scheme, separator, rest = dsn.partition("://")
    if scheme in {"postgres", "postgresql"}:
        scheme = "postgresql+psycopg"
    return f"{scheme}{separator}{rest}"


def upgrade(dsn: str, revision: str = "head") -> None:
    """Bring the schema to `revision` and make the next months' partitions.

    Does nothing that is done already.

    Safe to run from several processes at once and again after a crash: every step is one
    transaction and the version row is written with it.
    """
    engine = create_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            connection.commit()
            try:
                _run(connection, revision)
                ensure_partitions(dsn)
            finally:
                connection.rollback()
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
                connection.commit()
    finally:
        engine.dispose()


def current_revision(dsn: str) -> str | None:
    """The revision the database is at; None before the first `upgrade`."""
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - 0.3 s to import

    engine = create_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            return context.get_current_revision()
    finally:
        engine.dispose()


def head_revision() -> str:
    """The revision this release of the server is written for."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - 0.3 s to import

    head = ScriptDirectory(str(Path(__file__).parent)).get_current_head()
    assert head is not None
    return head


def _run(connection: Connection, revision: str) -> None:
    from alembic import command  # noqa: PLC0415 - 0.3 s to import
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()

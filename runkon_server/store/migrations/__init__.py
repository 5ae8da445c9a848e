"""The database schema: numbered steps of plain SQL, run by alembic under one advisory lock.

Additive first, removal one release later: a replica of the release before must keep working on
the schema of this one (ADR-0005).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import structlog
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import OperationalError

from runkon_server.store.partitions import ensure_partitions
from runkon_server.store.session_settings import schema_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

MIGRATION_LOCK: Final = 727_001
"""Key of the advisory lock that lets one replica migrate while the others wait."""

VERSION_TABLE: Final = "runkon_schema_version"
_SCHEME: Final = "postgresql+psycopg"
OLDEST_COMPATIBLE: Final = "schema_oldest_compatible"
"""Name of the setting that says for which releases the schema is: see `compatible_from`."""
LOCK_WAIT_S: Final = 2
"""How long a step waits for a lock on a table. Whoever wants to use the table queues behind it."""
LOCK_ATTEMPTS_MAX: Final = 60
LOCK_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database says of its schema. Revisions are four digits, so they compare as texts."""

    revision: str | None
    """None before the first `upgrade`."""
    oldest_compatible: str | None
    """Servers written for this revision, or a later one, may work on it; None: the very one."""

    @property
    def is_newer(self) -> bool:
        """Whether a later release has been here."""
        return self.revision is not None and self.revision > head_revision()

    @property
    def is_usable(self) -> bool:
        """Whether this release may work on it: its own, or a later one that leaves it its rows."""
        head = head_revision()
        if not self.is_newer:
            return self.revision == head
        return self.oldest_compatible is not None and self.oldest_compatible <= head


def sqlalchemy_url(dsn: str) -> str:
    """The same database for SQLAlchemy: `postgresql://…` names another driver there.

    Raises:
        ValueError: it is no database of PostgreSQL, or meant for another driver.
    """
    scheme, _, rest = dsn.partition("://")
    if scheme not in {"postgres", "postgresql", _SCHEME}:
        raise ValueError("the URL of a database begins with postgresql://")
    return f"{_SCHEME}://{rest}"


def compatible_from(revision: str) -> str:
    """The statement by which a step says that servers older than `revision` cannot go on.

    A step that only adds needs none: what the steps before it said stands.
    """
    return f"""
        INSERT INTO settings (name, value) VALUES ('{OLDEST_COMPATIBLE}', '{revision}')
        ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


def _engine(dsn: str) -> Engine:
    options = {"options": schema_options(dsn)}
    return create_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool, connect_args=options)


def upgrade(dsn: str, revision: str = "head") -> None:
    """Bring the schema to `revision` and make the next months' partitions.

    Does nothing that is done already, and nothing to a schema that is newer than this release.

    Safe to run from several processes at once and again after a crash: every step is one
    transaction and the version row is written with it.

    Raises:
        sqlalchemy.exc.OperationalError: the database does not answer, or somebody has kept a table
            locked for minutes.
    """
    engine = _engine(dsn)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
            connection.commit()
            try:
                if not present_schema(dsn).is_newer:
                    _patiently(connection, partial(_run, connection, revision))
                _patiently(connection, partial(_make_partitions, dsn))
            finally:
                connection.rollback()
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
                connection.commit()
    finally:
        engine.dispose()


def present_schema(dsn: str) -> Schema:
    """The schema that the database has now.

    Raises:
        sqlalchemy.exc.OperationalError: the database does not answer.
    """
    engine = _engine(dsn)
    try:
        with engine.connect() as connection:
            revision = compatible = None
            if _has_table(connection, VERSION_TABLE):
                versions = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}")
                revision = versions.scalar_one_or_none()
            if _has_table(connection, "settings"):
                values = connection.exec_driver_sql(
                    "SELECT value FROM settings WHERE name = %s", (OLDEST_COMPATIBLE,)
                )
                compatible = values.scalar_one_or_none()
            return Schema(revision, compatible)
    finally:
        engine.dispose()


def current_revision(dsn: str) -> str | None:
    """The revision the database is at; None before the first `upgrade`."""
    return present_schema(dsn).revision


def head_revision() -> str:
    """The revision this release of the server is written for."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - 0.3 s to import

    head = ScriptDirectory(str(Path(__file__).parent)).get_current_head()
    assert head is not None
    return head


def _has_table(connection: Connection, name: str) -> bool:
    found = connection.exec_driver_sql("SELECT to_regclass(%s) IS NOT NULL", (name,))
    return bool(found.scalar_one())


def _make_partitions(dsn: str) -> None:
    try:
        ensure_partitions(dsn)
    except psycopg.OperationalError as error:
        raise OperationalError("CREATE TABLE", None, error) from error


def _patiently(connection: Connection, work: Callable[[], None]) -> None:
    """Do what is pending; what cannot have its lock soon lets others pass and tries again.

    A step that waits for a table stops all who want to read it, for as long as it waits.
    """
    for attempt in range(1, LOCK_ATTEMPTS_MAX + 1):
        try:
            work()
        except OperationalError as error:
            is_locked = isinstance(error.orig, psycopg.errors.LockNotAvailable)
            if not is_locked or attempt == LOCK_ATTEMPTS_MAX:
                raise
            connection.rollback()
            log.warning("migration.awaits_lock", attempt=attempt)
            time.sleep(LOCK_PAUSE_S)  # noqa: TID251 - a command's own patience, no run's time
        else:
            return


def _run(connection: Connection, revision: str) -> None:
    from alembic import command  # noqa: PLC0415 - 0.3 s to import
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()

"""Databases for tests: one server per session, one migrated template, one fresh clone per test.

The server is RUNKON_TEST_DSN if that is set (a superuser's URL), else one of our own, run by the
programs that RUNKON_TEST_POSTGRES names: `embedded` (the default) or `system`, Debian's newest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.embedded_binaries import debian_bindirs, find_bindir

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the programs before anything looks for them, also for servers that tests start."""
    choice = os.environ.get("RUNKON_TEST_POSTGRES", "embedded")
    if choice == "system":
        if not debian_bindirs():
            raise pytest.UsageError(
                "RUNKON_TEST_POSTGRES=system, but none is in /usr/lib/postgresql"
            )
        os.environ["RUNKON_PG_BINDIR"] = str(debian_bindirs()[0])
    elif choice != "embedded":
        raise pytest.UsageError(f"RUNKON_TEST_POSTGRES is {choice!r}; use `embedded` or `system`")


def pytest_report_header() -> str:
    """Which server the tests with a database meet."""
    if outside := os.environ.get("RUNKON_TEST_DSN"):
        return f"postgres: {urlsplit(outside).hostname}"
    return f"postgres: {find_bindir()}"


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A folder that other users can reach: root's server runs as one, pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="runkon-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_folder(session_folder: Path) -> Iterator[Path]:
    """An empty folder of this test's own that other users can reach."""
    folder = session_folder / f"test-{next(_numbers)}"
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(session_folder: Path) -> Iterator[str]:
    """A superuser's URL of the session's server."""
    if outside := os.environ.get("RUNKON_TEST_DSN"):
        yield outside
        return
    with EmbeddedPostgres(session_folder / "postgres", fast=True) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    from runkon_server.store.migrations import upgrade  # noqa: PLC0415 - alembic is slow to import

    name = f"runkon_template_{os.getpid()}"
    _administer(postgres_server, "CREATE DATABASE {}", name)
    try:
        upgrade(dsn_of(postgres_server, name))
        yield name
    finally:
        _administer(postgres_server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    """The URL `postgresql://...` of a migrated, empty database of this test's own."""
    with cloned(postgres_server, template_database) as dsn:
        yield dsn


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """The URL of a database of this test's own that no migration has touched."""
    with cloned(postgres_server, "template0") as dsn:
        yield dsn


@contextlib.contextmanager
def cloned(server: str, template: str) -> Iterator[str]:
    """A copy of the database `template`, dropped at the end even if somebody is still connected."""
    name = f"runkon_test_{os.getpid()}_{next(_numbers)}"
    # Copying files is quicker than replaying the template through the log, PostgreSQL's default.
    _administer(server, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
    try:
        yield dsn_of(server, name)
    finally:
        _administer(server, "DROP DATABASE {} WITH (FORCE)", name)


def dsn_of(server: str, database: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{database}"))


def _administer(server: str, statement: LiteralString, *names: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

"""Databases for tests: one server per session, one migrated template, one fresh clone per test.

The server is RUNKON_TEST_DSN if that is set (a superuser's URL), else one of our own, run by the
programs that RUNKON_TEST_POSTGRES names: `embedded` (the default) or `system`, Debian's newest.
Its files are in memory where there is room.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.store.embedded_binaries import debian_bindirs, find_bindir

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own
_ROOM_MIN_BYTES: Final = 2**30
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the programs before anything looks for them, also for servers that tests start.

    And be patient with sessions: on a busy machine their handshakes take seconds.
    """
    os.environ.setdefault("PGCONNECT_TIMEOUT", "20")
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
    folder = Path(tempfile.mkdtemp(prefix="runkon-", dir=_memory()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _memory() -> Path | None:
    """A folder in memory with room for servers and their programs; None if there is none here.

    A database is 470 files, made and removed for every test: on a disk's file system that is most
    of what such a test costs.
    """
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return None
    is_roomy = found.f_bavail * found.f_frsize >= _ROOM_MIN_BYTES
    runs_programs = not found.f_flag & os.ST_NOEXEC
    return _MEMORY if is_roomy and runs_programs and os.access(_MEMORY, os.W_OK) else None


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
        with _administrator(outside):
            yield outside
        return
    with EmbeddedPostgres(session_folder / "postgres", fast=True) as dsn, _administrator(dsn):
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
    _administrator(server).execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@functools.cache
def _administrator(server: str) -> psycopg.Connection:
    """The session that makes and removes databases: a new one would cost as much as a database."""
    return psycopg.connect(server, autocommit=True)

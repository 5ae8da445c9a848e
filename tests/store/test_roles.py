"""deploy/roles.sql: who makes the schema need not be who works on it, nor who reads it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from runkon_server.store import migrations
from support.engines import Worker, engine_on, rogue_on, start

ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"


def as_role(dsn: str, role: str) -> str:
    """The same database for another user."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{host}"))


@pytest.fixture
def prepared(empty_database: str) -> str:
    """A database with the roles, migrated by the migrator."""
    with psycopg.connect(empty_database, autocommit=True) as conn:
        for _ in range(2):
            conn.execute(ROLES.read_bytes())
        for role in ("runkon_migrator", "runkon_app", "runkon_ro"):
            conn.execute(f"ALTER ROLE {role} PASSWORD 'secret'".encode())
    migrations.upgrade(as_role(empty_database, "runkon_migrator"))
    return empty_database


async def test_a_replica_needs_rows_only(prepared: str) -> None:
    """A run from its start to its end as `runkon_app`, which can make and change no table."""
    app = as_role(prepared, "runkon_app")
    async with engine_on(app) as engine, rogue_on(app) as rogue:
        Worker(engine, "build").serve()
        run_id = (await engine.start_run(start("call build call echo"))).run_id
        assert await rogue.ended(run_id) == "completed"
        for statement in ("CREATE TABLE mine (x int)", "DROP TABLE timers"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await rogue.rows(statement)


async def test_a_reader_changes_nothing(prepared: str) -> None:
    async with rogue_on(as_role(prepared, "runkon_ro")) as rogue:
        assert await rogue.rows("SELECT 1 FROM workflow_runs") == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rogue.rows("DELETE FROM workflow_runs")

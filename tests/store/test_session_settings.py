"""What every session is told, as PostgreSQL has it; and what that is for."""

from __future__ import annotations

import time

import psycopg
import pytest

from runkon_server.store.database import (
    connect_committer,
    connect_lessor,
    connect_listener,
    is_connection_loss,
)
from runkon_server.store.session_settings import connection_options, pooled_options
from support.engines import rogue_on
from support.rows import add_run, engine_of, ulid
from support.waiting import eventually

EXPECTED = {
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "1s",
    "statement_timeout": "5s",
    "client_connection_check_interval": "2s",
    "tcp_user_timeout": "10000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "application_name": "runkon",
    "search_path": "public,pg_temp",
    "TimeZone": "UTC",
}


@pytest.mark.parametrize("connect", [connect_committer, connect_listener])
async def test_sessions_are_bounded_by_the_lease(database: str, connect: object) -> None:
    assert callable(connect)
    conn = await connect(database, 30.0)
    async with conn:
        for name, value in EXPECTED.items():
            row = await (await conn.execute(f"SHOW {name}")).fetchone()
            assert (name, row[0]) == (name, value)


def test_the_renewal_does_not_wait_longer_than_leases_last(database: str) -> None:
    with connect_lessor(database, 3.0) as conn:
        shown = {
            name: (conn.execute(f"SHOW {name}".encode()).fetchone() or ("",))[0]
            for name in ("lock_timeout", "statement_timeout")
        }
    assert shown == {"lock_timeout": "750ms", "statement_timeout": "1s"}


def test_a_schema_that_the_url_names_is_kept(database: str) -> None:
    url = f"{database}?options=-c%20search_path%3Dmine"
    with psycopg.connect(url, **connection_options(url, 30.0)) as conn:
        assert conn.execute("SHOW search_path").fetchone() == ("mine",)


@pytest.mark.parametrize(
    ("query", "environment", "found"),
    [("", None, 3), ("?connect_timeout=7", None, None), ("", "7", None)],
    ids=["nobody says", "the URL says", "the environment says"],
)
def test_an_operator_may_say_how_long_a_handshake_takes(
    monkeypatch: pytest.MonkeyPatch, query: str, environment: str | None, found: int | None
) -> None:
    """What is left out here, libpq takes from there."""
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    if environment:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", environment)
    url = f"postgresql://somebody@host/database{query}"

    assert connection_options(url, 30.0).get("connect_timeout") == found
    assert pooled_options(url).get("connect_timeout") == found


async def test_fault_6_who_is_frozen_in_a_transaction_loses_its_locks(database: str) -> None:
    """The replica's session stays open and says nothing more, as after SIGSTOP."""
    async with engine_of(database) as engine, engine.connect() as setup:
        await add_run(setup, ulid(1))
    ttl_s = 9.0
    frozen = await connect_committer(database, ttl_s)
    async with rogue_on(database) as rogue:
        await frozen.execute("BEGIN")
        began_s = time.monotonic()
        await frozen.execute("SELECT 1 FROM workflow_runs FOR NO KEY UPDATE")

        async def is_free() -> bool:
            return bool(
                await rogue.rows("SELECT 1 FROM workflow_runs FOR NO KEY UPDATE SKIP LOCKED")
            )

        assert not await is_free()
        await eventually(is_free, "the session is ended")
        assert time.monotonic() - began_s >= ttl_s / 3
        with pytest.raises(psycopg.Error) as caught:
            await frozen.execute("COMMIT")
        assert is_connection_loss(caught.value)
    await frozen.close()

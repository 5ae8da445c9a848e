"""Storing and finding versions of workflows, settings that replicas share, short transactions."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio
import sqlalchemy.exc
from sqlalchemy import text

from runkon_server import errors
from runkon_server.store import failures
from runkon_server.store.reads import workflows
from runkon_server.store.settings import shared_value
from runkon_server.store.transactions import in_transaction
from runkon_server.store.workflows import (
    NewVersion,
    claim_request,
    delete_name,
    put_version,
    store_response,
)
from support.rows import engine_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as made:
        yield made


def version_of(name: str, content: str, namespace: str = "default") -> NewVersion:
    return NewVersion(
        namespace=namespace,
        name=name,
        content_hash=content,
        title=None,
        description="",
        source=f"workflow {name} {{}}",
        snapshot=json.dumps({"name": name, "inputs": [], "body": [1], "always": []}),
        created_by="zoe",
    )


async def put(engine: AsyncEngine, new: NewVersion) -> tuple[int, bool]:
    return await in_transaction(engine, lambda conn: put_version(conn, new))


async def test_new_content_makes_a_version_and_the_same_content_does_not(
    engine: AsyncEngine,
) -> None:
    """Only the newest version is compared: content that comes back is a version again."""
    assert await put(engine, version_of("w", "h1")) == (1, True)
    assert await put(engine, version_of("w", "h1")) == (1, False)
    assert await put(engine, version_of("w", "h2")) == (2, True)
    assert await put(engine, version_of("w", "h1")) == (3, True)
    assert await put(engine, version_of("w", "h1", namespace="other")) == (1, True)


async def test_versions_have_no_gaps_however_many_store_at_once(engine: AsyncEngine) -> None:
    """Ten writers with ten contents: ten versions, each made by one of them."""
    made = await asyncio.gather(*(put(engine, version_of("w", f"h{n}")) for n in range(10)))

    assert sorted(made) == [(version, True) for version in range(1, 11)]


async def test_one_version_is_found_by_name_and_number(engine: AsyncEngine) -> None:
    await put(engine, version_of("w", "h1"))
    await put(engine, version_of("w", "h2"))
    async with engine.connect() as conn:
        newest = await workflows.workflow(conn, namespace="default", name="w", full=False)
        first = await workflows.workflow(conn, namespace="default", name="w", version=1, full=True)
        with pytest.raises(errors.WorkflowNotFoundError):
            await workflows.workflow(conn, namespace="default", name="w", version=3, full=True)
        with pytest.raises(errors.WorkflowNotFoundError):
            await workflows.workflow(conn, namespace="other", name="w", full=True)
        hashes = await workflows.newest_hashes(
            conn, [("default", "w"), ("other", "w"), ("default", "v")]
        )
        pinned = await workflows.content_hash(conn, namespace="default", name="w", version=1)

    assert (newest.version, newest.content_hash, newest.source) == (2, "h2", None)
    assert (first.version, first.source) == (1, "workflow w {}")
    assert (first.head, first.snapshot is not None) == ({"name": "w", "inputs": []}, True)
    assert hashes == {("default", "w"): (2, "h2")}
    assert pinned == "h1"


async def delete(engine: AsyncEngine, name: str, namespace: str = "default") -> int:
    async def body(conn: AsyncConnection) -> int:
        return await delete_name(conn, namespace=namespace, name=name, principal="zoe")

    return await in_transaction(engine, body)


async def test_a_deleted_name_goes_on_with_its_next_version(engine: AsyncEngine) -> None:
    """Also with the content that it had, and after it was deleted once more."""
    await put(engine, version_of("w", "h1"))
    await put(engine, version_of("w", "h2"))
    await put(engine, version_of("w", "h1", namespace="other"))

    assert [await delete(engine, "w"), await delete(engine, "w")] == [2, 0]
    assert await put(engine, version_of("w", "h2")) == (3, True)
    assert await delete(engine, "w") == 1
    assert await put(engine, version_of("w", "h2")) == (4, True)
    assert await put(engine, version_of("w", "h1", namespace="other")) == (1, False)
    with pytest.raises(errors.WorkflowNotFoundError):
        await delete(engine, "v")


async def test_a_release_that_knows_of_no_deleted_names_does_not_repeat_versions(
    engine: AsyncEngine,
) -> None:
    """It takes the newest row, of which there is none, plus one; other names are not touched."""
    insert = """
        INSERT INTO workflows (namespace, name, version, content_hash, description, source,
            created_by)
        SELECT 'default', %(name)s, coalesce(max(version), 0) + 1, 'h1', '', '', 'zoe'
        FROM workflows WHERE namespace = 'default' AND name = %(name)s
        RETURNING version"""
    for content in ("h1", "h2"):
        await put(engine, version_of("w", content))
    await delete(engine, "w")

    async with engine.begin() as conn:
        stored = [
            (await conn.exec_driver_sql(insert, {"name": name})).scalar_one()
            for name in ("w", "w", "v")
        ]

    assert stored == [3, 4, 1]
    assert await put(engine, version_of("w", "h3")) == (5, True)
    assert await delete(engine, "w") == 3
    assert await put(engine, version_of("w", "h1")) == (6, True)


async def test_what_was_deleted_says_so_and_what_never_was_does_not(engine: AsyncEngine) -> None:
    await put(engine, version_of("w", "h1"))
    await delete(engine, "w")
    async with engine.connect() as conn:
        for version in (None, 1):
            with pytest.raises(errors.WorkflowDeletedError) as refused:
                await workflows.workflow(
                    conn, namespace="default", name="w", version=version, full=True
                )
            assert refused.value.metadata["deleted_by"] == "zoe"
        with pytest.raises(errors.WorkflowNotFoundError) as unknown:
            await workflows.workflow(conn, namespace="default", name="w", version=2, full=True)

    assert type(unknown.value) is errors.WorkflowNotFoundError


async def test_storing_and_deleting_at_once_leaves_versions_without_doubles(
    engine: AsyncEngine,
) -> None:
    """Ten writers and five deleters: every version was made once, whoever came first."""
    await put(engine, version_of("w", "first"))
    writers = [put(engine, version_of("w", f"h{n}")) for n in range(10)]
    deleters = [delete(engine, "w") for _ in range(5)]
    made, _ = await asyncio.gather(asyncio.gather(*writers), asyncio.gather(*deleters))

    assert sorted(made) == [(version, True) for version in range(2, 12)]


async def test_workflows_are_listed_by_name_and_versions_newest_first(engine: AsyncEngine) -> None:
    for name, content in [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("b", "3")]:
        await put(engine, version_of(name, content))
    await put(engine, version_of("aa", "1", namespace="other"))
    async with engine.connect() as conn:
        first = await workflows.newest_workflows(conn, namespace="default", limit=2)
        second = await workflows.newest_workflows(
            conn, namespace="default", limit=2, after=first.rows[-1].name
        )
        versions = await workflows.versions(conn, namespace="default", name="b", limit=2)
        oldest = await workflows.versions(conn, namespace="default", name="b", limit=2, below=2)

    assert ([(row.name, row.version) for row in first.rows], first.more) == (
        [("a", 1), ("b", 3)],
        True,
    )
    assert ([(row.name, row.version) for row in second.rows], second.more) == ([("c", 1)], False)
    assert ([row.version for row in versions.rows], versions.more) == ([3, 2], True)
    assert ([row.version for row in oldest.rows], oldest.more) == ([1], False)


async def test_every_replica_gets_the_same_setting(engine: AsyncEngine) -> None:
    """Eight ask at once, each with a proposal of its own."""

    async def ask(number: int) -> str:
        async with engine.connect() as conn:
            return await shared_value(conn, "key", proposal=f"p{number}")

    values = await asyncio.gather(*(ask(number) for number in range(8)))

    assert len(set(values)) == 1


async def test_a_request_id_is_claimed_once_and_waits_for_the_one_under_way(
    engine: AsyncEngine,
) -> None:
    """The second claim is made while the first is open; it learns of the first's commit."""
    first_claimed, may_commit = asyncio.Event(), asyncio.Event()

    async def claim(conn: AsyncConnection) -> bool:
        return await claim_request(
            conn, namespace="default", request_id="r", method="m", digest="d"
        )

    async def first(conn: AsyncConnection) -> bool:
        claimed = await claim(conn)
        first_claimed.set()
        await may_commit.wait()
        await store_response(conn, namespace="default", request_id="r", response={"a": 1})
        return claimed

    running = asyncio.create_task(in_transaction(engine, first))
    await first_claimed.wait()
    second = asyncio.create_task(in_transaction(engine, claim))
    done, _ = await asyncio.wait([second], timeout=0.2)
    may_commit.set()

    assert done == set()
    assert await running is True
    assert await second is False


async def test_a_body_that_fails_leaves_nothing(engine: AsyncEngine) -> None:
    async def body(conn: AsyncConnection) -> None:
        await put_version(conn, version_of("w", "h1"))
        raise errors.DrainingError

    with pytest.raises(errors.DrainingError):
        await in_transaction(engine, body)

    assert await put(engine, version_of("w", "h2")) == (1, True)


async def test_deadlocked_transactions_are_repeated(engine: AsyncEngine) -> None:
    """Two take two advisory locks crosswise: PostgreSQL ends one of them, and both succeed."""
    both_hold_one = asyncio.Barrier(2)
    tried: set[int] = set()

    async def body(conn: AsyncConnection, first: int, second: int) -> int:
        await conn.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
        if first not in tried:
            tried.add(first)
            await both_hold_one.wait()
        await conn.execute(text(f"SELECT pg_advisory_xact_lock({second})"))
        return first

    done = await asyncio.gather(
        in_transaction(engine, lambda conn: body(conn, 1, 2)),
        in_transaction(engine, lambda conn: body(conn, 2, 1)),
    )

    assert list(done) == [1, 2]


async def test_a_transaction_that_always_conflicts_is_given_up(engine: AsyncEngine) -> None:
    attempts = 0

    async def body(conn: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await conn.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(errors.ConflictError):
        await in_transaction(engine, body)

    assert attempts == 5


async def test_a_database_that_is_away_is_told_from_a_bug(engine: AsyncEngine) -> None:
    """Refused connection, killed backend, full pool against a statement that is wrong."""
    async with engine_of("postgresql://nobody@127.0.0.1:1/none") as nowhere:
        with pytest.raises(sqlalchemy.exc.OperationalError) as refused:
            await nowhere.connect().start()
    async with engine.connect() as conn:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as wrong:
            await conn.execute(text("SELECT 1 FROM nothing"))
    async with engine.connect() as conn:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as killed:
            await conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    away = errors.DatabaseUnavailableError
    assert isinstance(failures.as_domain_error(refused.value), away)
    assert isinstance(failures.as_domain_error(killed.value), away)
    assert isinstance(failures.as_domain_error(sqlalchemy.exc.TimeoutError()), away)
    assert isinstance(failures.as_domain_error(psycopg.OperationalError()), away)
    stood_still = psycopg.errors.IdleInTransactionSessionTimeout()
    assert isinstance(failures.as_domain_error(stood_still), away)
    assert isinstance(
        failures.as_domain_error(psycopg.errors.DeadlockDetected()), errors.ConflictError
    )
    assert failures.as_domain_error(wrong.value) is None
    assert failures.as_domain_error(ValueError()) is None

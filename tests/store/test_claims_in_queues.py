"""Claims of tasks that wait in queues: who is given which, and what that costs beside a backlog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from runkon_server.store import claiming
from support.engines import rogue_on
from support.rows import add_run, engine_of, ulid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.core.decision import TaskKind
    from runkon_server.store.pipeline import Pipeline
    from support.engines import Rogue

RUN: Final = ulid(1)
BACKLOG: Final = 100_000
FILL: Final = """
INSERT INTO tasks (run_id, id, namespace, queue, step_id, kind, action, state, payload, created_at)
SELECT %s, n::text, 'default', 'nobody', '', (ARRAY['action', 'script'])[n %% 2 + 1], 'build',
       'queued', '', now()
FROM generate_series(1, %s) n"""


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection as the dispatcher gets it, and the run of all tasks."""
    async with engine_of(database) as engine, engine.connect() as connection:
        await add_run(connection, RUN)
        yield connection


@pytest_asyncio.fixture
async def session(database: str, conn: AsyncConnection) -> AsyncIterator[Pipeline]:
    """The session that tasks are claimed on; their run is there."""
    opened = await claiming.open_claims(database, 30.0)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside it."""
    async with rogue_on(database) as session:
        yield session


async def add_task(rogue: Rogue, name: str, action: str = "build", **columns: Any) -> None:
    values = {"namespace": "default", "queue": "", "kind": "action", "priority": 0} | columns
    await rogue.rows(
        "INSERT INTO tasks (run_id, id, namespace, queue, kind, priority, step_id, action, state,"
        " payload, created_at) VALUES (%s, %s, %s, %s, %s, %s, '', %s, 'queued', '{}', now())",
        RUN,
        name,
        *values.values(),
        action,
    )


async def claim(
    session: Pipeline,
    queues: Sequence[str],
    *names: str,
    kind: TaskKind = "action",
    named: Sequence[tuple[str, str]] | None = None,
    limit: int = 10,
) -> list[str]:
    """Ids of the tasks that a worker of these queues gets; with `named` it is a fallback."""
    found = await claiming.claim_tasks(
        session,
        kind,
        claiming.Claimant("default", "w", queues),
        names=names,
        fallback=named is not None,
        named=named or (),
        limit=limit,
        ttl_s=30.0,
    )
    return [task.id for task in found]


@pytest.mark.parametrize("kind", ["action", "script", "items", "gate"])
async def test_a_worker_is_given_tasks_of_its_queues_only(
    session: Pipeline, rogue: Rogue, kind: TaskKind
) -> None:
    for queue in ("", "gpu", "eu"):
        await add_task(rogue, f"in {queue}", queue=queue, kind=kind)
    await add_task(rogue, "elsewhere", queue="gpu", kind=kind, namespace="other")

    assert await claim(session, ["tpu"], "build", kind=kind) == []
    assert await claim(session, ["gpu"], "build", kind=kind) == ["in gpu"]
    assert await claim(session, [""], "build", kind=kind) == ["in "]
    assert await claim(session, ["*"], "build", kind=kind) == ["in eu"]


async def test_priority_and_age_count_across_the_queues_of_a_worker(
    session: Pipeline, rogue: Rogue
) -> None:
    for name, queue, priority in (
        ("1", "", 0),
        ("2", "gpu", 0),
        ("3", "gpu", 7),
        ("4", "", 5),
    ):
        await add_task(rogue, name, queue=queue, priority=priority)

    one_by_one = [(await claim(session, ["", "gpu"], "build", limit=1))[0] for _ in range(4)]

    assert one_by_one == ["3", "4", "1", "2"]


@pytest.mark.parametrize("queues", [["", "gpu"], ["*"]])
async def test_a_fallback_leaves_alone_what_is_named_in_the_same_queue(
    session: Pipeline, rogue: Rogue, queues: list[str]
) -> None:
    """`build` has a worker in `gpu`, `test` has one for every queue."""
    for queue in ("", "gpu"):
        for action in ("build", "test", "other"):
            await add_task(rogue, f"{action} in {queue}", action, queue=queue)

    found = await claim(session, queues, named=[("gpu", "build"), ("*", "test")])

    assert sorted(found) == ["build in ", "other in ", "other in gpu"]


@pytest.mark.parametrize("queues", [["", "gpu"], ["*"]])
async def test_a_limited_action_is_left_alone_where_others_name_it(
    conn: AsyncConnection, rogue: Rogue, queues: list[str]
) -> None:
    for queue in ("", "gpu"):
        await add_task(rogue, f"in {queue}", queue=queue)
    claimant = claiming.Claimant("default", "w", queues)

    found = await claiming.claim_limited(
        conn, claimant, "build", left=["gpu"], limit=10, ttl_s=30.0
    )

    assert [task.id for task in found] == ["in "]


async def test_a_backlog_that_nobody_serves_costs_the_claims_of_others_nothing(
    conn: AsyncConnection, rogue: Rogue
) -> None:
    """Every claim of another queue, and of other actions in all queues, reads a few pages."""
    await rogue.rows(FILL, RUN, BACKLOG)
    await rogue.rows("ANALYZE tasks")
    for name, kind in (("a", "action"), ("s", "script"), ("i", "items"), ("g", "gate")):
        await add_task(rogue, f"{name} of gpu", "check", queue="gpu", kind=kind)
        await add_task(rogue, name, "check", kind=kind)

    pages = {
        (kind, serves_all, fallback): await _pages_read(rogue, sql, fallback=fallback)
        for (kind, serves_all), sql in claiming._CLAIMS.items()
        for fallback in (False, True)
        if not (serves_all and (fallback or kind == "script"))  # these would take the backlog
    }

    assert max(pages.values()) < 60, pages


async def _pages_read(rogue: Rogue, sql: str, *, fallback: bool) -> int:
    parameters = {
        "namespace": "default", "worker": "w", "queues": ["", "gpu"], "names": ["check", "ship"],
        "fallback": fallback, "named": [], "named_queues": ["gpu"], "named_there": ["check"],
        "limited": [], "action": "check", "left": [], "limit": 10, "ttl": 30.0,
    }  # fmt: skip
    async with rogue.conn.transaction(force_rollback=True):
        cursor = await rogue.conn.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}".encode(), parameters
        )
        row = await cursor.fetchone()
    assert row is not None
    (found,) = row.values()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    assert plan["Actual Rows"] > 0
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])

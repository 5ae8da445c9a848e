"""Taking runs and tasks by single statements: whose they are, and in which order they lock."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from runkon_server.store import claims
from runkon_server.store.claiming import Claimant, claim_tasks, open_claims
from runkon_server.store.claims import Requeued
from runkon_server.store.database import (
    close_reads,
    connect_lessor,
    connect_listener,
    create_reads,
    fetch,
)
from runkon_server.store.sessions import lock_session
from support.engines import rogue_on
from support.rows import add_run, engine_of, ulid
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from runkon_server.store.pipeline import Pipeline
    from support.engines import Rogue


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection as the scanner gets it: every statement is a transaction of its own."""
    async with engine_of(database) as engine, engine.connect() as connection:
        yield connection


@pytest_asyncio.fixture
async def claiming(database: str) -> AsyncIterator[Pipeline]:
    """The session that tasks are claimed on."""
    opened = await open_claims(database, 30.0)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session beside it."""
    async with rogue_on(database) as session:
        yield session


async def add_task(rogue: Rogue, run_id: str, name: str, **columns: object) -> str:
    values = {
        "run_id": run_id,
        "id": f"{run_id}/{name}#0",
        "namespace": "default",
        "step_id": f"{run_id}/{name}",
        "kind": "action",
        "action": name,
        "state": "queued",
        "payload": "{}",
        "created_at": "2026-03-01",
    } | columns
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    await rogue.rows(f"INSERT INTO tasks ({names}) VALUES ({marks})", *values.values())
    return str(values["id"])


async def claim(
    claiming: Pipeline, *actions: str, queues: tuple[str, ...] = ("",), **fields: object
) -> list[str]:
    found = await claim_tasks(
        claiming,
        "action",
        Claimant("default", "w", queues),
        **{**_CLAIM, "names": actions, **fields},  # type: ignore[arg-type] # mixed values by name
    )
    return [task.id for task in found]


_CLAIM: Final = {"fallback": False, "named": [], "limit": 10, "ttl_s": 30.0}


async def test_only_ready_and_orphaned_runs_are_taken(conn: AsyncConnection, rogue: Rogue) -> None:
    for number in range(5):
        await add_run(conn, ulid(number))
    await rogue.rows("UPDATE workflow_runs SET ready_at = now() WHERE id = %s", ulid(0))
    await rogue.rows(
        "UPDATE workflow_runs SET ready_at = now() + interval '1 h' WHERE id = %s", ulid(1)
    )
    owned = "UPDATE workflow_runs SET owner_token = 'o', lease_until = now() {} WHERE id = %s"
    await rogue.rows(owned.format(""), ulid(2))
    await rogue.rows(owned.format("+ interval '1 h'"), ulid(3))

    taken = await claims.acquire(conn, token="me", ttl_s=30.0, limit=10)

    assert sorted(taken) == [(ulid(0), claims.How.FREE), (ulid(2), claims.How.STOLEN)]
    assert await claims.acquire(conn, token="other", ttl_s=30.0, limit=10) == []
    for run_id, poisoned in ((ulid(0), 0), (ulid(2), 1)):
        run = await rogue.run(run_id)
        assert (run["owner_token"], run["generation"], run["infra_attempts"]) == ("me", 1, poisoned)


async def test_a_renewal_keeps_what_is_ours_only(database: str, rogue: Rogue) -> None:
    async with engine_of(database) as engine, engine.connect() as conn:
        for number, owner in enumerate(("me", "thief")):
            await add_run(conn, ulid(number))
            await rogue.rows(
                "UPDATE workflow_runs SET owner_token = %s, lease_until = now() WHERE id = %s",
                owner,
                ulid(number),
            )
    with connect_lessor(database, 30.0) as lessor:
        kept = claims.renew(lessor, token="me", ttl_s=30.0, run_ids=[ulid(0), ulid(1), ulid(2)])

    assert kept == claims.Renewal(frozenset({ulid(0)}), is_complete=True)


async def test_a_row_that_stays_locked_costs_the_others_no_lease(
    database: str, conn: AsyncConnection, rogue: Rogue
) -> None:
    """Somebody forgot a transaction: the renewal says that it has to come again soon."""
    for number in (1, 2, 3):
        await add_run(conn, ulid(number))
    await rogue.rows("UPDATE workflow_runs SET owner_token = 'me', lease_until = now()")
    await rogue.rows("UPDATE workflow_runs SET owner_token = 'thief' WHERE id = %s", ulid(3))
    with connect_lessor(database, 30.0) as lessor:
        lessor.execute("SET lock_timeout = '20ms'")
        async with rogue_on(database) as other, other.conn.transaction():
            await other.rows("SELECT 1 FROM workflow_runs WHERE id = %s FOR UPDATE", ulid(1))

            renewal = claims.renew(
                lessor, token="me", ttl_s=30.0, run_ids=[ulid(1), ulid(2), ulid(3)]
            )

    assert renewal == claims.Renewal(frozenset({ulid(1), ulid(2)}), is_complete=False)
    good = await rogue.rows("SELECT id FROM workflow_runs WHERE lease_until > now()")
    assert [row["id"] for row in good] == [ulid(2)]


async def test_an_owner_that_has_locked_again_keeps_its_runs(
    database: str, conn: AsyncConnection, rogue: Rogue
) -> None:
    """Who was found gone is looked for once more by the statement that takes."""
    for number, owner in enumerate(("back", "gone")):
        await add_run(conn, ulid(number))
        await rogue.rows(
            "UPDATE workflow_runs SET owner_token = %s, lease_until = now() + interval '1 h'"
            " WHERE id = %s",
            owner,
            ulid(number),
        )
    listener = await connect_listener(database, 30.0)
    async with listener:
        await lock_session(listener, "back")

        taken = await claims.acquire(conn, token="me", ttl_s=30.0, limit=10, gone={"back", "gone"})

    assert taken == [(ulid(1), claims.How.ORPHANED)]
    assert (await rogue.run(ulid(1)))["infra_attempts"] == 0


async def test_a_lease_that_ran_out_with_its_owner_is_no_mark_against_the_run(
    conn: AsyncConnection, rogue: Rogue
) -> None:
    await add_run(conn, ulid(0))
    await rogue.rows("UPDATE workflow_runs SET owner_token = 'gone', lease_until = now()")

    taken = await claims.acquire(conn, token="me", ttl_s=30.0, limit=10, gone={"gone"})

    assert taken == [(ulid(0), claims.How.ORPHANED)]
    assert (await rogue.run(ulid(0)))["infra_attempts"] == 0


@pytest.mark.parametrize("statement", ["renew", "hand_over"])
async def test_leases_are_locked_in_the_order_of_ids(
    database: str, conn: AsyncConnection, rogue: Rogue, statement: str
) -> None:
    """Rows lie in the opposite order; while the first id is locked, no later one may be."""
    for number in (3, 2, 1):
        await add_run(conn, ulid(number))
    await rogue.rows("UPDATE workflow_runs SET owner_token = 'me', lease_until = now()")
    sql = {"renew": claims._RENEW, "hand_over": claims._HAND_OVER}[statement]
    ids = [ulid(3), ulid(2), ulid(1)]
    parameters = (30.0, "me", ids) if statement == "renew" else {"token": "me"}
    async with rogue_on(database) as holder, rogue_on(database) as waiter:
        async with holder.conn.transaction():
            await holder.rows("SELECT 1 FROM workflow_runs WHERE id = %s FOR UPDATE", ulid(1))
            statement_done = asyncio.create_task(waiter.conn.execute(sql.encode(), parameters))

            async def is_waiting() -> bool:
                return bool(await rogue.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))

            await eventually(is_waiting, "the statement waits for the first row")
            free = "SELECT id FROM workflow_runs WHERE id > %s FOR UPDATE SKIP LOCKED"
            assert len(await rogue.rows(free, ulid(1))) == 2
        assert (await statement_done).rowcount == 3


async def test_tasks_are_claimed_by_priority_and_age(
    conn: AsyncConnection, claiming: Pipeline, rogue: Rogue
) -> None:
    await add_run(conn, ulid(1))
    old = await add_task(rogue, ulid(1), "build", id=f"{ulid(1)}/a#0", created_at="2026-01-01")
    new = await add_task(rogue, ulid(1), "build", id=f"{ulid(1)}/b#0")
    urgent = await add_task(rogue, ulid(1), "build", id=f"{ulid(1)}/c#0", priority=5)
    await add_task(rogue, ulid(1), "other")
    await add_task(rogue, ulid(1), "build", id=f"{ulid(1)}/d#0", namespace="elsewhere")
    await add_task(rogue, ulid(1), "build", id=f"{ulid(1)}/e#0", cancel_requested_at="2026-01-01")

    assert await claim(claiming, "build", limit=1) == [urgent]
    assert sorted(await claim(claiming, "build")) == [old, new]
    assert await claim(claiming, "build") == []


async def test_a_fallback_leaves_named_actions_alone(
    conn: AsyncConnection, claiming: Pipeline, rogue: Rogue
) -> None:
    await add_run(conn, ulid(1))
    await add_task(rogue, ulid(1), "build")
    other = await add_task(rogue, ulid(1), "other")

    assert await claim(claiming, fallback=True, named=[("", "build")]) == [other]


async def test_given_back_tasks_count_no_delivery(conn: AsyncConnection, rogue: Rogue) -> None:
    """Only under the token they were leased with."""
    await add_run(conn, ulid(1))
    for name in ("a", "b"):
        await add_task(rogue, ulid(1), name, state="leased", token="t", lease_until="2026-01-01")
    rows = [(ulid(1), f"{ulid(1)}/a#0", "t"), (ulid(1), f"{ulid(1)}/b#0", "other")]

    await claims.give_back(conn, tasks=rows)

    found = await rogue.rows("SELECT action, state, delivery, token FROM tasks ORDER BY action")
    assert [tuple(row.values()) for row in found] == [
        ("a", "queued", 0, None),
        ("b", "leased", 0, "t"),
    ]


@pytest.mark.parametrize("how", ["lost", "given back"])
async def test_a_task_that_is_queued_again_goes_before_its_equals(
    conn: AsyncConnection, claiming: Pipeline, rogue: Rogue, how: str
) -> None:
    """All were made by one batch; the lost one is neither the first nor the last of them."""
    await add_run(conn, ulid(1))
    ids = [await add_task(rogue, ulid(1), f"build{n}", action="build") for n in range(40)]
    await rogue.rows(
        "UPDATE tasks SET state = 'leased', token = 't', lease_until = '2026-01-01' WHERE id = %s",
        ids[20],
    )
    if how == "lost":
        await claims.requeue_lost(conn, deliveries_max=3)
    else:
        await claims.give_back(conn, tasks=[(ulid(1), ids[20], "t")])

    assert await claim(claiming, "build", limit=1) == [ids[20]]


async def test_lost_tasks_are_queued_again_or_found(conn: AsyncConnection, rogue: Rogue) -> None:
    await add_run(conn, ulid(1))
    lost = {"state": "leased", "token": "t", "lease_until": "2026-01-01"}
    await add_task(rogue, ulid(1), "again", **lost, queue="gpu")
    last = await add_task(rogue, ulid(1), "last", **{**lost, "delivery": 2})
    told = await add_task(rogue, ulid(1), "told", **{**lost, "cancel_requested_at": "2026-01-01"})
    unstarted = await add_task(rogue, ulid(1), "unstarted", cancel_requested_at="2026-01-01")
    await add_task(rogue, ulid(1), "alive", **{**lost, "lease_until": "2100-01-01"})

    requeued = await claims.requeue_lost(conn, deliveries_max=3)
    found = {task.id: task for task in await claims.find_lost(conn, deliveries_max=3)}

    assert requeued == [Requeued("default", "gpu", "action", "again")]
    assert found.keys() == {last, told, unstarted}
    assert {each.id for each in found.values() if each.was_cancelled} == {told, unstarted}
    assert found[unstarted].token is None
    again = await rogue.row("SELECT state, delivery, token FROM tasks WHERE action = 'again'")
    assert again == {"state": "queued", "delivery": 1, "token": None}


async def test_runs_behind_their_facts_are_found(conn: AsyncConnection, rogue: Rogue) -> None:
    for number, (owner, fact_seq) in enumerate((("me", 2), ("me", 1), ("other", 2))):
        await add_run(conn, ulid(number), fact_seq=fact_seq, applied_fact_seq=1)
        await rogue.rows(
            "UPDATE workflow_runs SET owner_token = %s, lease_until = now() WHERE id = %s",
            owner,
            ulid(number),
        )

    assert await claims.find_behind(conn, token="me") == [ulid(0)]


async def test_only_claims_and_hints_are_told_not_to_wait_for_the_disk(
    database: str, claiming: Pipeline
) -> None:
    """ADR-0027: all else keeps what the server is set to, and makes earlier claims durable too."""
    asked = "SELECT setting, source FROM pg_settings WHERE name = 'synchronous_commit'"
    reads = create_reads(database, 30.0, 1)
    try:
        async with reads.connect() as conn:
            ((_, source),) = await fetch(conn, asked, {})
    finally:
        await close_reads(reads)

    assert await claiming.run([(asked, ())]) == [[("off", "client")]]
    assert source != "client"


async def test_the_next_deadline_is_found_beside_all_that_was_reported_in_time(
    conn: AsyncConnection, rogue: Rogue
) -> None:
    """Their entries stay in the index of leases until it is cleaned; a look reads none of them."""
    await add_run(conn, ulid(1))
    await rogue.rows(
        "INSERT INTO tasks (run_id, id, namespace, step_id, kind, action, state, token, payload,"
        " created_at, lease_until) SELECT %s, n::text, 'default', '', 'action', 'build', 'leased',"
        " 't', '', now(), now() + interval '20 s' FROM generate_series(1, 20000) n",
        ulid(1),
    )
    await rogue.rows("UPDATE tasks SET state = 'done'")
    await add_task(rogue, ulid(1), "a", state="leased", token="t", lease_until="2026-01-01")
    later = await add_task(rogue, ulid(1), "b", state="leased", token="t", lease_until="2026-01-01")
    await rogue.rows("UPDATE tasks SET lease_until = now() + interval '60 s' WHERE id = %s", later)

    plan = await fetch(
        conn, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claims._NEXT_DEADLINE}", {"within": 15.0}
    )
    top = plan[0][0][0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 60
    assert await claims.next_deadline(conn, within_s=15.0) == math.inf
    assert 30 < await claims.next_deadline(conn, within_s=90.0) <= 60

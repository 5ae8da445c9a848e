"""Statements 1-19: statuses, and what rows of runs, steps and items hold (12: `test_leases`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
import psycopg
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from sqlalchemy.exc import IntegrityError

from runkon.v1 import runs_pb2, runs_pb2_grpc, types_pb2
from runkon_client.values import RunStatus, StepStatus
from runkon_server.store.migrations import upgrade
from runkon_server.store.reads.providing import RunFilter, find_runs
from runkon_server.store.reads.runs import list_runs
from support.engines import Worker, engine_on, rogue_on, start
from support.live_api import refusal
from support.rows import add_run, add_step, engine_of, ulid
from support.stage_live import LiveStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conformance.conftest import Served
    from runkon_server.runtime.engine import Engine
    from support.engines import Rogue
    from support.stage import Stage

RUN_STATUSES: Final = [str(each) for each in RunStatus if each is not RunStatus.UNKNOWN]
STEP_STATUSES: Final = [str(each) for each in StepStatus if each is not StepStatus.UNKNOWN]
TERMINAL_RUN: Final = {"completed", "failed", "cancelled"}
TERMINAL_STEP: Final = {"completed", "failed", "skipped", "timed_out"}
EACH: Final = (
    "foreach each { over = things max_parallel = 2 workflow = one on_child_fail = continue } call b"
)


@pytest_asyncio.fixture
async def rogue(database: str) -> AsyncIterator[Rogue]:
    """A SQL session of somebody who does not follow the rules."""
    async with rogue_on(database) as session:
        yield session


@pytest_asyncio.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    """A replica with short times."""
    async with engine_on(database) as replica:
        yield replica


async def test_001_every_status_of_a_run_goes_to_the_wire_and_back(served: Served) -> None:
    """As text in its row, as a number to callers, as text again for a client."""
    runs = runs_pb2_grpc.RunServiceStub(served.channel)
    names = [f"RUN_STATUS_{text.upper()}" for text in RUN_STATUSES]
    assert {*names, "RUN_STATUS_UNSPECIFIED"} == set(types_pb2.RunStatus.keys())
    async with engine_of(served.database) as pool, pool.connect() as conn:
        for number, text in enumerate(RUN_STATUSES):
            await add_run(conn, ulid(number), namespace="statuses", status=text)
    listed = await runs.ListRuns(runs_pb2.ListRunsRequest(namespace="statuses"))
    newest_first = [types_pb2.RunStatus.Name(run.status) for run in listed.runs]
    assert newest_first[::-1] == names


async def test_001_what_is_no_status_of_a_run_is_refused(database: str) -> None:
    """By the database, whoever writes; by clients, whoever sends."""
    async with engine_of(database) as pool, pool.connect() as conn:
        for text in ("timed_out", "odd", "", "Running"):
            assert text not in RUN_STATUSES
            with pytest.raises(IntegrityError, match="check constraint"):
                await add_run(conn, ulid(1), status=text)


async def test_002_a_run_is_live_or_has_ended(database: str, rogue: Rogue) -> None:
    """An end has its time, nothing else has one; `cancelling` and `needs_resume` are no ends."""
    async with engine_of(database) as pool, pool.connect() as conn:
        for number, text in enumerate(RUN_STATUSES):
            await add_run(conn, ulid(number), status=text)
            has_ended = (await rogue.run(ulid(number)))["ended_at"] is not None
            assert has_ended == (text in TERMINAL_RUN) == RunStatus(text).is_terminal
            wrong = "NULL" if has_ended else "now()"
            with pytest.raises(psycopg.errors.CheckViolation):
                await rogue.rows(
                    f"UPDATE workflow_runs SET ended_at = {wrong} WHERE id = %s", ulid(number)
                )


async def test_003_a_step_is_open_or_has_ended(database: str, rogue: Rogue) -> None:
    """Likewise; what is running or waits has begun."""
    names = {f"STEP_STATUS_{text.upper()}" for text in STEP_STATUSES}
    assert {*names, "STEP_STATUS_UNSPECIFIED"} == set(types_pb2.StepStatus.keys())
    async with engine_of(database) as pool, pool.connect() as conn:
        await add_run(conn, ulid(1))
        for number, text in enumerate(STEP_STATUSES):
            step = await add_step(conn, ulid(1), f"b.{number:04}", status=text)
            row = await rogue.row("SELECT * FROM workflow_run_steps WHERE id = %s", step)
            has_ended = row["ended_at"] is not None
            assert has_ended == (text in TERMINAL_STEP) == StepStatus(text).is_terminal
            wrong = "NULL" if has_ended else "now()"
            with pytest.raises(psycopg.errors.CheckViolation):
                await rogue.rows(
                    f"UPDATE workflow_run_steps SET ended_at = {wrong} WHERE id = %s", step
                )


async def test_004_a_new_run_is_pending_and_nobodys(served: Served) -> None:
    """As long as its delay lasts, so that nobody takes it up meanwhile."""
    runs = runs_pb2_grpc.RunServiceStub(served.channel)
    request = runs_pb2.StartRunRequest(
        source="workflow w { call a }", start_delay=Duration(seconds=3600)
    )
    run_id = (await runs.StartRun(request)).run.id
    run = (await runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run
    assert (run.status, run.id) == (types_pb2.RUN_STATUS_PENDING, run_id)
    assert run.HasField("create_time")
    async with rogue_on(served.database) as rogue:
        row = await rogue.run(run_id)
    assert (row["generation"], row["owner_token"], row["lease_until"]) == (0, None, None)


async def test_005_an_unknown_run_is_not_found(served: Served) -> None:
    """A definite answer, not a failure of the server."""
    runs = runs_pb2_grpc.RunServiceStub(served.channel)
    refused = await refusal(runs.GetRun(runs_pb2.GetRunRequest(run_id=ulid(12345))))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_006_no_run_waits_without_saying_for_what(database: str, rogue: Rogue) -> None:
    async with engine_of(database) as pool, pool.connect() as conn:
        await add_run(conn, ulid(1))
    with pytest.raises(psycopg.errors.CheckViolation):
        await rogue.rows("UPDATE workflow_runs SET status = 'waiting'")


async def test_007_runs_are_found_by_their_status(database: str) -> None:
    """Only those; lists begin with the newest."""
    async with engine_of(database) as pool, pool.connect() as conn:
        for number, status in enumerate(["running", "failed", "running", "completed", "waiting"]):
            await add_run(conn, ulid(number), status=status)
        wanted = RunFilter(namespace="default", statuses=("running", "failed"), labels={})
        found = await find_runs(conn, wanted, except_root="", limit=10)
        listed = await list_runs(conn, namespace="default", limit=10)
    assert [run.id for run in found] == [ulid(0), ulid(1), ulid(2)]
    assert [run.id for run in listed.rows] == [ulid(number) for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("meta", ['meta { title = "A title" }', ""])
async def test_008_a_run_has_the_title_of_its_workflow(served: Served, meta: str) -> None:
    """Or its name. The server makes the snapshot itself, so that it is never malformed."""
    runs = runs_pb2_grpc.RunServiceStub(served.channel)
    request = runs_pb2.StartRunRequest(source=f"workflow w {{ {meta} }}")
    run_id = (await runs.StartRun(request)).run.id
    run = (await runs.GetRun(runs_pb2.GetRunRequest(run_id=run_id))).run
    assert run.workflow_title == ("A title" if meta else "")
    assert run.display_name == ("A title" if meta else "w")


async def test_009_what_has_begun_has_a_time(engine: Engine, rogue: Rogue) -> None:
    """A task or a gate at its insertion; what is skipped never begins."""
    worker = Worker(engine, "build").credit(1)
    body = "call build parallel { call b { if = build.m } } gate human_review { name = check }"
    run_id = (await engine.start_run(start(body))).run_id
    steps = "SELECT status, started_at IS NOT NULL AS begun FROM workflow_run_steps ORDER BY at"
    lease = await worker.lease()
    assert await rogue.rows(steps) == [{"status": "running", "begun": True}]
    await worker.answer(lease)
    await rogue.parked(run_id)
    assert await rogue.rows(steps) == [
        {"status": "completed", "begun": True},
        {"status": "skipped", "begun": False},
        {"status": "waiting", "begun": True},
    ]


async def test_010_an_ended_step_keeps_what_it_had(stage: Stage) -> None:
    """Its child and its attempt, beside what its end brings."""
    await stage.put("one", "call a")
    await stage.start("call workflow one { retries = 1 } call b")
    await stage.fail("a", "no disk")
    await stage.complete("a", context="done", markers=["m"])
    await stage.complete("b")
    assert await stage.end() == "completed"
    first, second = await stage.rows("workflow:one")
    assert (first.status, first.retry_count) == ("failed", 0)
    assert (second.status, second.retry_count) == ("completed", 1)
    assert (second.context, second.markers) == ("done", ("m",))
    assert first.child_run_id
    assert second.child_run_id not in ("", first.child_run_id)


async def test_011_a_completed_step_stays_completed(stage: Stage) -> None:
    """Whatever its worker says later; the second answer is refused."""
    await stage.start("call a call b")
    await stage.complete("a", context="done")
    await stage.until_open("b")
    before = await stage.row("a")
    await stage.contradict("a")
    assert await stage.row("a") == before
    await stage.complete("b")
    assert await stage.end() == "completed"


async def test_013_an_item_that_is_found_twice_counts_once(stage: Stage) -> None:
    """An item is its type and its id together."""
    await stage.put("one", "call a")
    await stage.start(EACH)
    await stage.collect("foreach:each", ["x", "x", "y", "x"], types=["bug", "bug", "bug", "task"])
    await stage.until_open("a", "a")
    assert [item.item_id for item in await stage.items("each")] == ["x", "y", "x"]
    assert (await stage.row("foreach:each")).fan_out == (3, 0, 0, 0)


async def test_014_items_end_each_in_its_way(stage: Stage) -> None:
    """The counters of their step follow."""
    await stage.put("one", "call a")
    await stage.start(EACH)
    await stage.collect("foreach:each", ["x", "y"])
    await stage.until_open("a", "a")
    await stage.complete("a")
    await stage.fail("a", "no disk")
    await stage.complete("b")
    assert await stage.end() == "completed"
    items = await stage.items("each")
    assert sorted(item.status for item in items) == ["completed", "failed"]
    assert any("no disk" in item.error for item in items)
    assert (await stage.row("foreach:each")).fan_out == (2, 1, 1, 0)


async def test_014_without_items_nothing_is_written(stage: Stage) -> None:
    await stage.start(EACH)
    await stage.collect("foreach:each", [])
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert await stage.items("each") == []


async def test_016_a_running_item_has_its_child(stage: Stage) -> None:
    """The run itself, not a word that stands for it; a pending item has none yet."""
    await stage.put("one", "call a")
    await stage.start(EACH)
    await stage.collect("foreach:each", ["x", "y", "z"])
    await stage.until_open("a", "a")
    items = await stage.items("each")
    assert [item.status for item in items] == ["running", "running", "pending"]
    assert [bool(item.child_run_id) for item in items] == [True, True, False]
    for item in items[:2]:
        (below,) = await stage.rows("a", run_id=item.child_run_id)
        assert below.status == "running"


async def test_016_times_of_items_follow_their_status(served: Served) -> None:
    """One that runs was handed out and has not ended."""
    async with (
        LiveStage(served.channel, served.database, "item-times") as stage,
        rogue_on(served.database) as rogue,
    ):
        await stage.put("one", "call a")
        await stage.start(EACH)
        await stage.collect("foreach:each", ["x", "y", "z"])
        await stage.complete("a")
        await stage.until_open("a", "a")
        rows = await rogue.rows(
            "SELECT status, dispatched_at IS NOT NULL AS begun, completed_at IS NOT NULL AS ended"
            " FROM workflow_run_step_fan_out_items WHERE workflow_run_id = %s",
            stage.run_id,
        )
        assert {tuple(row.values()) for row in rows} == {
            ("completed", True, True), ("running", True, False),
        }  # fmt: skip
        await stage.complete("a", "a", "b")
        await stage.end()


async def test_017_items_are_listed_as_they_were_found(stage: Stage) -> None:
    """Not by their ids, nor by how they ended."""
    await stage.put("one", "call a")
    await stage.start(EACH)
    await stage.collect("foreach:each", ["m", "z", "a"])
    for _ in range(3):
        await stage.complete("a")
    await stage.until_open("b")
    assert [item.item_id for item in await stage.items("each")] == ["m", "z", "a"]


async def test_018_the_schema_is_made_once(empty_database: str) -> None:
    """However often it is asked for; no index is there under two names."""
    upgrade(empty_database)
    async with rogue_on(empty_database) as rogue:
        schema = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        first = await rogue.rows(schema)
        upgrade(empty_database)
        assert await rogue.rows(schema) == first
    tables = {row["tablename"] for row in first}
    assert tables > {
        "workflow_runs", "workflow_run_steps", "workflow_run_step_fan_out_items",
    }  # fmt: skip
    defined = [row["indexdef"].partition(" ON ")[2] for row in first]
    assert len(defined) == len(set(defined))


async def test_019_every_role_can_be_stored(stage: Stage) -> None:
    """Of each kind of step, also of a gate that a dry run approves."""
    await stage.put("one", "call a")
    await stage.start(
        "call a parallel { call b } script s { run = true } call workflow one"
        " foreach each { over = things max_parallel = 1 workflow = one } gate human_review {}"
    )
    await stage.complete("a", "b", "s", "a")
    await stage.collect("foreach:each", [])
    await stage.approve()
    assert await stage.end() == "completed"
    assert [row.role for row in await stage.rows()] == [
        "actor", "actor", "script", "workflow", "foreach", "gate",
    ]  # fmt: skip
    # The role `reviewer` is that of statement 88.

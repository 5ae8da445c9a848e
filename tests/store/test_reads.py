"""Reads on rows that were put there by hand: order, pages, limits in bytes, namespaces."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import text

from runkon_server import errors
from runkon_server.store import tables
from runkon_server.store.reads import events, gates, requests, runs, steps
from runkon_server.store.reads.gates import GateQuery
from support.rows import (
    NOON,
    add_events,
    add_gate,
    add_run,
    add_step,
    add_vote,
    engine_of,
    ulid,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[AsyncConnection]:
    """A connection as reads get it: every statement is a transaction of its own."""
    async with engine_of(database) as engine, engine.connect() as connection:
        yield connection


async def test_tables_are_those_of_the_migrations(conn: AsyncConnection) -> None:
    """Every column declared in `tables` exists, and every NOT NULL one without default is there."""
    found = await conn.execute(
        text(
            "SELECT table_name, column_name, is_nullable = 'YES' OR column_default IS NOT NULL"
            " FROM information_schema.columns WHERE table_schema = 'public'"
        )
    )
    stored: dict[str, dict[str, bool]] = defaultdict(dict)
    for table_name, column, optional in found:
        stored[table_name][column] = optional

    for name, table in tables.metadata.tables.items():
        declared = {column.name for column in table.columns}
        assert declared <= stored[name].keys(), name
        assert {each for each, optional in stored[name].items() if not optional} <= declared, name


async def test_a_run_is_read_with_its_details(conn: AsyncConnection) -> None:
    run_id = await add_run(
        conn,
        ulid(1),
        status="waiting",
        details={"key": "order-1", "labels": {"team": "core"}, "inputs": {"a": "1"}},
    )

    row = (await runs.runs_by_id(conn, [run_id, ulid(2)]))[run_id]

    assert (row.id, row.namespace, row.status) == (run_id, "default", "waiting")
    assert (row.key, row.labels, row.inputs) == ("order-1", {"team": "core"}, {"a": "1"})
    assert row.blocked_on == {"type": "human_review", "gate_id": "g"}
    assert row.current_step is None


async def test_current_step_is_the_first_open_one_in_program_order(conn: AsyncConnection) -> None:
    """Two branches run beside a finished one; a superseded row is further on and does not count."""
    run_id = await add_run(conn, ulid(1))
    await add_step(conn, run_id, "b.0000")
    await add_step(conn, run_id, "b.0001.0001", status="running", iteration=2)
    await add_step(conn, run_id, "b.0001.0002", status="running")
    await add_step(conn, run_id, "b.0001.0003")
    await add_step(conn, run_id, "b.0009", status="running", superseded_epoch=2)

    found = await runs.runs_by_id(conn, [run_id])

    assert found[run_id].current_step == ("b.0001.0001", 2)


async def test_between_steps_the_last_one_is_current_and_after_the_end_none(
    conn: AsyncConnection,
) -> None:
    live = await add_run(conn, ulid(1))
    ended = await add_run(conn, ulid(2), status="completed")
    for run_id in (live, ended):
        await add_step(conn, run_id, "b.0000")
        await add_step(conn, run_id, "b.0001", status="failed")

    found = await runs.runs_by_id(conn, [live, ended])

    assert found[live].current_step == ("b.0001", 0)
    assert found[ended].current_step is None


async def test_runs_are_listed_by_creation_page_by_page_and_per_namespace(
    conn: AsyncConnection,
) -> None:
    """Both orders, pages of two, one run of another namespace in between."""
    for number in range(5):
        await add_run(conn, ulid(number))
    await add_run(conn, ulid(7), namespace="other")
    for newest_first in (True, False):
        seen: list[str] = []
        after = None
        while True:
            page = await runs.list_runs(
                conn, namespace="default", limit=2, after=after, newest_first=newest_first
            )
            seen += [run.id for run in page.rows]
            if not page.more:
                break
            after = seen[-1]

        assert seen == [ulid(n) for n in (range(4, -1, -1) if newest_first else range(5))]


async def test_a_page_ends_when_its_bytes_are_used_up(conn: AsyncConnection) -> None:
    """Each run weighs more than the whole budget: one at a time, and always one."""
    for number in range(3):
        await add_run(conn, ulid(number), details={"inputs": {"text": "x" * 5000}})

    page = await runs.list_runs(conn, namespace="default", limit=10, budget=4000)
    pair = await runs.list_runs(conn, namespace="default", limit=10, budget=6000)

    assert ([run.id for run in page.rows], page.more) == ([ulid(2)], True)
    assert ([run.id for run in pair.rows], pair.more) == ([ulid(2), ulid(1)], True)


async def test_an_empty_list_is_the_last_page(conn: AsyncConnection) -> None:
    page = await runs.list_runs(conn, namespace="default", limit=10)

    assert (list(page.rows), page.more) == ([], False)


async def test_head_says_how_far_the_events_go(conn: AsyncConnection) -> None:
    """One run without events, one that lost its oldest, one that lost them all."""
    new = await add_run(conn, ulid(1))
    trimmed = await add_run(conn, ulid(2), last_seq=5)
    await add_events(conn, trimmed, ("step_started", {}), ("step_completed", {}), first_seq=4)
    purged = await add_run(conn, ulid(3), last_seq=9)

    three = (new, trimmed, purged)

    heads = [await runs.run_head(conn, namespace="default", run_id=run_id) for run_id in three]

    assert [(head.oldest_seq, head.last_seq) for head in heads] == [(1, 0), (4, 5), (10, 9)]


async def test_another_namespaces_objects_are_unknown(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1), namespace="other")
    gate_id = await add_gate(conn, run_id, "b.0001", namespace="other")

    with pytest.raises(errors.RunNotFoundError):
        await runs.run_head(conn, namespace="default", run_id=run_id)
    with pytest.raises(errors.RunNotFoundError):
        await runs.run_id_of_key(conn, namespace="default", key="k")
    with pytest.raises(errors.GateNotFoundError):
        await gates.gate_by_id(conn, namespace="default", gate_id=gate_id)
    assert await requests.stored_request(conn, namespace="default", request_id="r") is None
    assert not (await gates.list_gates(conn, GateQuery(namespace="default"), limit=5)).rows


async def test_steps_come_in_program_order_with_attempts_in_theirs(conn: AsyncConnection) -> None:
    """More than nine attempts, an on_fail agent behind its call, page by page."""
    run_id = await add_run(conn, ulid(1))
    await add_step(conn, run_id, "b.0001.f")
    await add_step(conn, run_id, "b.0002")
    for attempt in (11, 2, 0):
        await add_step(conn, run_id, "b.0001", attempt=attempt, status="failed")
    await add_step(conn, run_id, "z.0000")
    seen: list[tuple[str, int]] = []
    after = None
    while True:
        page = await steps.list_steps(conn, run_id=run_id, limit=2, after=after)
        seen += [(step.at, step.retry_count) for step in page.rows]
        if not page.more:
            break
        after = steps.cursor_of(page.rows[-1])

    assert seen == [
        ("b.0001", 0),
        ("b.0001", 2),
        ("b.0001", 11),
        ("b.0001.f", 0),
        ("b.0002", 0),
        ("z.0000", 0),
    ]


async def test_superseded_steps_are_shown_on_demand(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1), epoch=2)
    await add_step(conn, run_id, "b.0001", superseded_epoch=2, status="failed")
    await add_step(conn, run_id, "b.0001", epoch=2)

    standing = await steps.list_steps(conn, run_id=run_id, limit=9)
    every = await steps.list_steps(conn, run_id=run_id, limit=9, include_superseded=True)

    assert [step.epoch for step in standing.rows] == [2]
    assert [step.epoch for step in every.rows] == [1, 2]


async def test_long_texts_of_steps_split_pages(conn: AsyncConnection) -> None:
    """Ten steps of 300 kB each never come together."""
    run_id = await add_run(conn, ulid(1))
    for number in range(10):
        await add_step(conn, run_id, f"b.{number:04}", result_text="x" * 300_000)

    page = await steps.list_steps(conn, run_id=run_id, limit=500)

    assert (len(page.rows), page.more) == (4, True)


async def test_outlines_are_what_the_core_calls_a_step(conn: AsyncConnection) -> None:
    """Lists become tuples, options pairs; produced texts are left out."""
    run_id = await add_run(conn, ulid(1))
    await add_step(
        conn,
        run_id,
        "b.0001",
        markers_out=["a"],
        iterations=[1, 2],
        gate_options=[["k", "Label"]],
        result_text="long",
    )

    (record,) = await steps.step_outlines(conn, run_id=run_id)

    assert (record.markers_out, record.iterations) == (("a",), (1, 2))
    assert record.gate_options == (("k", "Label"),)
    assert record.result_text is None


async def test_the_status_of_a_path_is_that_of_its_last_pass_and_try(
    conn: AsyncConnection,
) -> None:
    """Rows of a loop, tries of a step (more than nine), and rows that no longer stand."""
    run_id = await add_run(conn, ulid(1), epoch=2)
    for at, status in (("b.0001.0002.0000", "running"), ("b.0001.0001.0000", "completed")):
        await add_step(conn, run_id, at, path="body.0.0", status=status)
    for attempt, status in ((11, "completed"), (2, "failed"), (0, "failed")):
        await add_step(conn, run_id, "b.0002", path="body.1", attempt=attempt, status=status)
    await add_step(conn, run_id, "b.0003", path="body.2", epoch=1, superseded_epoch=2)
    await add_step(conn, run_id, "b.0003", path="body.2", epoch=2, status="skipped")
    await add_step(conn, run_id, "b.0004", path="body.3", superseded_epoch=2)

    assert await steps.step_statuses(conn, run_id=run_id) == {
        "body.0.0": "running",
        "body.1": "completed",
        "body.2": "skipped",
    }


async def test_events_are_read_by_sequence_and_kind(conn: AsyncConnection) -> None:
    """A filtered page tells how far it looked; one cut short looked up to its last event."""
    run_id = await add_run(conn, ulid(1), last_seq=6)
    await add_events(
        conn, run_id, *[("step_started" if n % 2 else "step_completed", {}) for n in range(6)]
    )

    async def page(after: int, limit: int, *kinds: str) -> tuple[list[int], int]:
        found = await events.list_events(
            conn, run_id=run_id, after_seq=after, head_seq=6, limit=limit, kinds=kinds
        )
        return [event.seq for event in found.events], found.examined_seq

    assert await page(0, 10) == ([1, 2, 3, 4, 5, 6], 6)
    assert await page(2, 3) == ([3, 4, 5], 5)
    assert await page(0, 2, "step_started") == ([2, 4], 4)
    assert await page(4, 9, "step_started") == ([6], 6)
    assert await page(0, 9, "run_finished") == ([], 6)
    assert await page(6, 9) == ([], 6)


async def test_events_above_the_head_wait_for_the_next_look(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1), last_seq=3)
    await add_events(conn, run_id, *[("step_started", {})] * 3)

    found = await events.list_events(conn, run_id=run_id, after_seq=0, head_seq=2, limit=9)

    assert ([event.seq for event in found.events], found.examined_seq) == ([1, 2], 2)


async def test_one_page_of_events_looks_at_a_bounded_span(conn: AsyncConnection) -> None:
    """A rare kind far away takes more than one page, and none of them is long."""
    run_id = await add_run(conn, ulid(1), last_seq=events.SPAN + 1)
    await add_events(conn, run_id, ("run_finished", {}), first_seq=events.SPAN + 1)

    async def page(after: int) -> tuple[int, int]:
        found = await events.list_events(
            conn,
            run_id=run_id,
            after_seq=after,
            head_seq=events.SPAN + 1,
            limit=9,
            kinds=["run_finished"],
        )
        return len(found.events), found.examined_seq

    assert await page(0) == (0, events.SPAN)
    assert await page(events.SPAN) == (1, events.SPAN + 1)


async def test_pending_gates_come_first_and_older_ones_before_younger(
    conn: AsyncConnection,
) -> None:
    """Ages and ids disagree; pages of one, two and all give the same list."""
    run_id = await add_run(conn, ulid(1))
    other = await add_run(conn, ulid(2))
    minutes = timedelta(minutes=1)
    expected = [
        await add_gate(conn, other, "b.0001", opened_at=NOON),
        await add_gate(conn, run_id, "b.0002", opened_at=NOON + minutes),
        await add_gate(conn, run_id, "b.0003", opened_at=NOON - 2 * minutes, state="approved"),
        await add_gate(conn, other, "b.0004", opened_at=NOON - minutes, state="rejected"),
    ]
    for limit in (1, 2, 9):
        seen: list[str] = []
        after = None
        while True:
            page = await gates.list_gates(
                conn, GateQuery(namespace="default"), limit=limit, after=after
            )
            seen += [gate.id for gate in page.rows]
            if not page.more:
                break
            after = gates.cursor_of(page.rows[-1])

        assert seen == expected, limit


async def test_gates_are_found_by_run_type_workflow_state_and_age(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1), workflow_name="build")
    other = await add_run(conn, ulid(2))
    first = await add_gate(conn, run_id, "b.0001", gate_type="human_approval", state="approved")
    second = await add_gate(conn, other, "b.0001", opened_at=NOON + timedelta(days=365_00))

    async def found(query: GateQuery) -> list[str]:
        return [gate.id for gate in (await gates.list_gates(conn, query, limit=9)).rows]

    every = GateQuery(namespace="default")
    assert await found(replace(every, run_id=run_id)) == [first]
    assert await found(replace(every, gate_type="human_review")) == [second]
    assert await found(replace(every, workflow_name="build")) == [first]
    assert await found(replace(every, state="pending")) == [second]
    assert await found(replace(every, state="approved")) == [first]
    assert await found(replace(every, state="rejected")) == []
    assert await found(replace(every, min_age=timedelta(0))) == [first]


async def test_a_gate_is_read_with_its_votes_and_its_run(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1), details={"workflow_title": "W", "labels": {"a": "b"}})
    gate_id = await add_gate(conn, run_id, "b.0001", options=[["k", "Label"]], approvers=3)
    await add_vote(conn, gate_id, "zoe", n=1, selections=["k"])
    await add_vote(conn, gate_id, "adam", n=2, feedback="fine")

    gate = await gates.gate_by_id(conn, namespace="default", gate_id=gate_id)

    assert [vote.principal for vote in gate.votes] == ["zoe", "adam"]
    assert (gate.votes[0].selections, gate.votes[1].feedback) == (["k"], "fine")
    assert (gate.workflow_title, gate.labels, gate.options) == ("W", {"a": "b"}, [["k", "Label"]])


async def test_feedback_of_votes_counts_towards_a_page(conn: AsyncConnection) -> None:
    run_id = await add_run(conn, ulid(1))
    for number in range(3):
        gate_id = await add_gate(conn, run_id, f"b.{number:04}")
        await add_vote(conn, gate_id, "zoe", feedback="x" * 600_000)

    page = await gates.list_gates(conn, GateQuery(namespace="default"), limit=9)

    assert (len(page.rows), page.more) == (2, True)

"""Statements 126-132: workflows that call workflows; for 128 and 131, what stands for them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from runkon_server.core.bubbling import results_of
from runkon_server.core.records import StepRecord
from support.plays import Play

if TYPE_CHECKING:
    from support.stage import Stage


async def test_126_what_a_child_said_reaches_its_parent(stage: Stage) -> None:
    """Conditions see markers of the child's steps; its entries come before the call's own."""
    await stage.put("child", "call a call b")
    await stage.start("call workflow child if a.m { call c }")
    await stage.complete("a", markers=["m"], context="A")
    await stage.complete("b", context="B", structured_output='{"found":"it"}')
    given = await stage.offered("c")

    assert given.prior_contexts is not None
    told = [(entry["step"], entry["context"]) for entry in given.prior_contexts]
    assert told == [("a", "A"), ("b", "B"), ("child", "B")]
    assert (given.inputs["prior_context"], given.inputs["found"]) == ("B", "it")
    row = await stage.row("workflow:child")
    assert (row.role, row.status, row.context) == ("workflow", "completed", "B")


async def test_127_the_last_word_of_a_child_is_its_bodys(stage: Stage) -> None:
    """Steps of its always section are told of, but are not what it was started for."""
    await stage.put("child", "call a call b always { call z }")
    await stage.start("call workflow child call c")
    await stage.complete("a", context="A", markers=["first"])
    await stage.complete("b", context="B", markers=["last"])
    await stage.complete("z", context="Z")
    given = await stage.offered("c")

    row = await stage.row("workflow:child")
    assert (row.context, row.markers) == ("B", ("last",))
    assert [entry["step"] for entry in given.prior_contexts or ()] == ["a", "b", "z", "child"]


def test_127_entries_follow_program_order_whatever_the_order_of_rows() -> None:
    """Every permutation of the rows says the same."""
    rows = [_completed(number, name) for number, name in enumerate("abcd")]
    results = {str(results_of(some)) for some in itertools.permutations(rows)}

    assert len(results) == 1
    assert results_of(rows).context == "d said"


def _completed(number: int, name: str) -> StepRecord:
    at = f"b.{number:04}"
    texts: dict[str, Any] = {"context_out": f"{name} said", "structured_output": f'"{name}"'}
    return StepRecord(
        id=at,
        at=at,
        path=at,
        step_name=name,
        step_key=name,
        role="actor",
        status="completed",
        position=9 - number,
        **texts,
    )


def test_a_child_whose_rows_say_nothing_has_empty_output() -> None:
    """Its end is told without results: no error, and nothing to be found."""
    play = Play("call workflow child call a")
    play.end_child()

    row = play.row("workflow:child")
    assert (row["status"], row["context_out"], row["markers_out"]) == ("completed", "", ())
    assert play.given("a").inputs["prior_context"] == ""


async def test_129_nesting_has_a_greatest_depth(stage: Stage) -> None:
    """Five runs below the root; the sixth is not started, and its step says why."""
    await stage.put("deeper", "call workflow w")
    await stage.put("w", "inputs { again boolean } call workflow deeper")
    await stage.start("call workflow w")

    assert await stage.end() == "failed"
    run_id, depth = stage.run_id, 0
    while (row := (await stage.rows(run_id=run_id))[0]).error_code != "DEPTH_EXCEEDED":
        assert row.status == "failed"
        run_id, depth = row.child_run_id, depth + 1
    assert depth == 5


async def test_130_a_retry_is_a_new_child(stage: Stage) -> None:
    await stage.put("child", "call a")
    await stage.start("call workflow child { retries = 1 }")
    await stage.fail("a")
    await stage.offered("a", times=2)
    await stage.complete("a")

    assert await stage.end() == "completed"
    first, second = await stage.rows("workflow:child")
    assert [(row.status, row.retry_count) for row in (first, second)] == [
        ("failed", 0), ("completed", 1),
    ]  # fmt: skip
    assert first.child_run_id != second.child_run_id
    assert await stage.status(first.child_run_id) == "failed"
    assert await stage.status(second.child_run_id) == "completed"


async def test_rows_and_events_of_a_child_are_its_own(stage: Stage) -> None:
    """The parent's hold one step, and that a child started and finished."""
    await stage.put("child", "call a")
    await stage.start("call workflow child")
    await stage.complete("a")

    assert await stage.end() == "completed"
    (row,) = await stage.rows()
    assert row.name == "workflow:child"
    assert [each.name for each in await stage.rows(run_id=row.child_run_id)] == ["a"]
    assert await stage.kinds() == [
        "run_started", "step_started", "child_run_started", "child_run_finished",
        "step_completed", "metrics_updated", "run_finished",
    ]  # fmt: skip
    assert await stage.kinds(row.child_run_id) == [
        "run_started", "step_started", "step_completed", "metrics_updated", "run_finished",
    ]  # fmt: skip


@pytest.mark.parametrize("is_resumed", [False, True], ids=["fresh", "resumed"])
async def test_132_a_cancel_reaches_child_runs_and_ends_their_retries(
    stage: Stage,
    is_resumed: bool,  # noqa: FBT001 - a case
) -> None:
    await stage.put("child", "call a")
    retries = "" if is_resumed else "{ retries = 2 }"
    await stage.start(f"call workflow child {retries}")
    if is_resumed:
        await stage.fail("a")
        await stage.end()
        await stage.resume()
    given = await stage.offered("a", times=1 + is_resumed)
    await stage.cancel()
    assert await stage.was_asked_to_stop("a")
    await stage.stopped("a")

    assert await stage.end() == "cancelled"
    assert await stage.status(given.run_id) == "cancelled"
    assert stage.times_given("a") == 1 + is_resumed
    assert len(await stage.rows("workflow:child")) == 1 + is_resumed

"""Statements 45-55: the body, its failure, and the always section."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.stage import Stage


async def test_045_an_empty_workflow_completes_without_rows(stage: Stage) -> None:
    await stage.start("")
    assert await stage.end() == "completed"
    assert await stage.rows() == []


async def test_046_a_started_run_is_running(stage: Stage) -> None:
    await stage.start("call a")
    await stage.until_open("a")
    assert await stage.status() == "running"


async def test_047_three_calls_have_three_rows_at_three_positions(stage: Stage) -> None:
    await stage.start("call a call b call c")
    await stage.complete("a", "b", "c")
    assert await stage.end() == "completed"
    assert [(row.name, row.status, row.position) for row in await stage.rows()] == [
        ("a", "completed", 0), ("b", "completed", 1), ("c", "completed", 2),
    ]  # fmt: skip


async def test_048_a_failing_call_fails_its_row_and_the_run(stage: Stage) -> None:
    await stage.start("call a")
    await stage.fail("a", "no luck")
    assert await stage.end() == "failed"
    assert (await stage.row("a")).error == "no luck"


async def test_049_with_fail_fast_nodes_after_a_failure_have_no_rows(stage: Stage) -> None:
    await stage.start("call a call b")
    await stage.fail("a")
    assert await stage.end() == "failed"
    assert await stage.names() == ["a"]

"""Statements 45-55: the body, its failure, and the always section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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


async def test_050_without_fail_fast_later_nodes_run(stage: Stage) -> None:
    """The run fails nevertheless; against the original it says why (architecture: always set)."""
    await stage.start("call a call b", fail_fast=False)
    await stage.fail("a", "no luck")
    await stage.complete("b")
    assert await stage.end() == "failed"
    assert [(row.name, row.status) for row in await stage.rows()] == [
        ("a", "failed"), ("b", "completed"),
    ]  # fmt: skip
    assert await stage.error() == "step `a` failed: no luck"


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_051_always_sees_how_the_body_ended(stage: Stage, outcome: str) -> None:
    await stage.start("call a always { call clean }")
    if outcome == "completed":
        await stage.complete("a")
    else:
        await stage.fail("a")
    await stage.complete("clean")
    assert await stage.end() == outcome
    assert stage.given("clean").inputs["workflow_status"] == outcome
    assert "workflow_status" not in stage.given("a").inputs


async def test_052_a_failing_always_step_changes_no_outcome(stage: Stage) -> None:
    await stage.start("call a always { call clean }")
    await stage.complete("a")
    await stage.fail("clean")
    assert await stage.end() == "completed"
    assert await stage.error() == ""
    assert await stage.statuses("clean") == ["failed"]


async def test_053_the_summary_lists_every_step_of_a_failed_run(stage: Stage) -> None:
    """With its short label; the body's error stands in it and in `error`."""
    await stage.start('call a parallel { call b { if = "a.m" } } call c always { call clean }')
    await stage.complete("a")
    await stage.fail("c", "no luck")
    await stage.complete("clean")
    assert await stage.end() == "failed"
    error = "step `c` failed: no luck"
    assert await stage.error() == error
    assert [line.split() for line in (await stage.summary()).splitlines()[1:]] == [
        ["ok", "a"],
        ["skip", "b"],
        ["FAIL", "c:", "no", "luck"],
        ["ok", "clean"],
        f"run failed: {error}".split(),
    ]


async def test_054_a_condition_in_always_holds_after_a_failed_body(stage: Stage) -> None:
    """What fails in its body is met by `unless` of the same condition."""
    await stage.start(
        "inputs { flag boolean } call a call b"
        " always { if a.m { call x } unless a.n { call y call z } if flag { call v } }",
        {"flag": "true"},
    )
    await stage.complete("a", markers=["m"])
    await stage.fail("b")
    await stage.complete("x", "y", "z", "v")
    assert await stage.end() == "failed"


@pytest.mark.parametrize("at_once", [False, True])
async def test_055_always_runs_after_a_cancel_too(stage: Stage, *, at_once: bool) -> None:
    """Once, and sees `cancelled`; the run ends cancelled whatever happens in it. Force skips it."""
    await stage.start("call a call b always { call clean }")
    await stage.until_open("a")
    await stage.cancel(force=at_once)
    if not at_once:
        assert await stage.was_asked_to_stop("a")
        await stage.stopped("a")
        await stage.complete("clean")
    assert await stage.end() == "cancelled"
    assert stage.times_given("clean") == (not at_once)
    assert at_once or stage.given("clean").inputs["workflow_status"] == "cancelled"
    assert "b" not in await stage.names()


async def test_055_what_does_not_stop_is_abandoned_after_the_grace(stage: Stage) -> None:
    """Each section gets a grace period of its own."""
    await stage.start("call a always { call clean }")
    await stage.until_open("a")
    await stage.cancel()
    await stage.pass_time("grace")
    await stage.until_open("clean")
    assert (await stage.row("a")).error_code == "CANCELLED"
    await stage.pass_time("grace")
    assert await stage.end() == "cancelled"
    assert (await stage.row("clean")).error_code == "CANCELLED"

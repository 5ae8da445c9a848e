"""Statements 73-78: while and do-while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.stage import Stage

WHILE = "call a while a.m { max_iterations = 3 on_max_iter = %s call a } call b"
DO = "do { max_iterations = 3 on_max_iter = %s call a } while a.m call b"
STUCK = "call a while a.m { max_iterations = 9 stuck_after = 3 call a } call b"


async def test_073_a_loop_ends_when_its_marker_is_gone(stage: Stage) -> None:
    """Two passes; their rows say in which they were made."""
    await stage.start("call a while a.m { max_iterations = 9 call x call a } call b")
    await stage.complete("a", markers=["m"])
    await stage.complete("x")
    await stage.complete("a", markers=["m", "n"])
    await stage.complete("x")
    await stage.complete("a", markers=["n"])
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert [row.iteration for row in await stage.rows("x")] == [0, 1]
    assert [stage.given("x", turn).iterations for turn in (0, 1)] == [(0,), (1,)]


async def test_074_a_loop_whose_marker_is_not_there_makes_no_pass(stage: Stage) -> None:
    await stage.start("call a while a.m { max_iterations = 9 call x } call b")
    await stage.complete("a", "b")
    assert await stage.end() == "completed"
    assert await stage.names() == ["a", "b"]


@pytest.mark.parametrize("loop", [WHILE, DO])
async def test_075_too_many_passes_fail_the_run(stage: Stage, loop: str) -> None:
    await stage.start(loop % "fail")
    passes = 3 + (loop is WHILE)
    for _ in range(passes):
        await stage.complete("a", markers=["m"])
    assert await stage.end() == "failed"
    assert (await stage.error()).endswith("`a.m` is still set after 3 passes")
    assert await stage.names() == ["a"] * passes


@pytest.mark.parametrize("loop", [WHILE, DO])
async def test_075_too_many_passes_may_be_tolerated(stage: Stage, loop: str) -> None:
    await stage.start(loop % "continue")
    passes = 3 + (loop is WHILE)
    for _ in range(passes):
        await stage.complete("a", markers=["m"])
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert await stage.names() == [*["a"] * passes, "b"]


async def test_075_too_many_passes_end_the_body_without_fail_fast_too(stage: Stage) -> None:
    """Nothing behind the loop could rely on it."""
    await stage.start(DO % "fail", fail_fast=False)
    for _ in range(3):
        await stage.complete("a", markers=["m"])
    assert await stage.end() == "failed"
    assert "b" not in await stage.names()


async def test_076_the_same_markers_three_times_are_an_error(stage: Stage) -> None:
    """Their order and how often each was reported do not matter."""
    await stage.start(STUCK)
    for markers in (["m"], ["n", "m"], ["m", "n"], ["m", "n", "m"]):
        await stage.complete("a", markers=markers)
    assert await stage.end() == "failed"
    assert "stuck" in await stage.error()
    assert await stage.names() == ["a"] * 4


async def test_076_markers_that_change_are_none(stage: Stage) -> None:
    """Twice the same is not three times."""
    await stage.start(STUCK)
    for markers in (["m"], ["m"], ["m"], ["m", "n"], ["m"], ["m"], ["m", "o"], []):
        await stage.complete("a", markers=markers)
    await stage.complete("b")
    assert await stage.end() == "completed"


async def test_077_a_loop_that_tests_behind_makes_one_pass_at_least(stage: Stage) -> None:
    await stage.start(DO % "fail")
    await stage.complete("a", "b")
    assert await stage.end() == "completed"
    assert await stage.names() == ["a", "b"]


async def test_078_a_cancel_stops_a_loop_within_a_pass(stage: Stage) -> None:
    """Also when the step that runs completes as if nothing were."""
    await stage.start("do { max_iterations = 9 call a call b call c } while a.m always { call z }")
    await stage.complete("a", markers=["m"])
    await stage.until_open("b")
    await stage.cancel()
    await stage.complete("b", markers=["m"])
    await stage.complete("z")
    assert await stage.end() == "cancelled"
    assert await stage.names() == ["a", "b", "z"]

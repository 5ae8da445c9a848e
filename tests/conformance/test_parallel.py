"""Statements 79-87: parallel blocks."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.stage import Stage


async def test_079_all_rows_are_there_before_anything_is_given_out(stage: Stage) -> None:
    """All run at the same time: none has to be answered for the next one to come."""
    await stage.start("parallel { call a call b call c }")
    await stage.until_open("a", "b", "c")
    assert [(row.name, row.status, row.position) for row in await stage.rows()] == [
        ("a", "running", 0), ("b", "running", 1), ("c", "running", 2),
    ]  # fmt: skip
    await stage.complete("c", "a", "b")
    assert await stage.end() == "completed"
    assert (await stage.kinds())[:4] == ["run_started"] + ["step_started"] * 3


async def test_080_a_call_whose_condition_does_not_hold_is_skipped(stage: Stage) -> None:
    """Its row says why, and it counts as a success."""
    await stage.start("call a parallel { min_success = 2 call b { if = a.n } call c { if = a.m } }")
    await stage.complete("a", markers=["m"])
    await stage.complete("c")
    assert await stage.end() == "completed"
    skipped, met = await stage.row("b"), await stage.row("c")
    assert (skipped.status, skipped.condition_met) == ("skipped", False)
    assert "a.n" in skipped.result_text
    assert met.condition_met
    assert stage.times_given("b") == 0


async def test_081_as_many_successes_as_wanted_are_enough(stage: Stage) -> None:
    """The failure in the block is no failure of the run."""
    await stage.start("parallel { min_success = 1 call a call b } call c")
    await stage.fail("a")
    await stage.complete("b", "c")
    assert await stage.end() == "completed"
    assert await stage.error() == ""
    assert await stage.statuses() == ["failed", "completed", "completed"]


async def test_082_without_a_wish_all_have_to_succeed(stage: Stage) -> None:
    """The run's error counts them and names the first that failed."""
    await stage.start("parallel { fail_fast = false call a call b } call c")
    await stage.fail("b", "no disk")
    await stage.complete("a")
    assert await stage.end() == "failed"
    assert await stage.error() == (
        "parallel block: 1 of 2 calls succeeded, 2 needed; `b` failed: no disk"
    )
    assert await stage.names() == ["a", "b"]


async def test_083_retries_of_a_branch_keep_its_row(stage: Stage) -> None:
    await stage.start("parallel { call a { retries = 1 } call b }")
    await stage.fail("a", "no disk")
    await stage.complete("b", "a")
    assert await stage.end() == "completed"
    row = await stage.row("a")
    assert (row.status, row.retry_count, row.error) == ("completed", 1, "")
    assert stage.times_given("a") == 2
    assert stage.given("a").retry_error == "no disk"


async def test_083_a_branch_that_always_fails_is_given_out_twice(stage: Stage) -> None:
    await stage.start("parallel { fail_fast = false call a { retries = 1 } call b }")
    await stage.fail("a", "no disk")
    await stage.fail("a", "no luck")
    await stage.complete("b")
    assert await stage.end() == "failed"
    row = await stage.row("a")
    assert (row.status, row.retry_count, row.error) == ("failed", 1, "no luck")
    assert stage.times_given("a") == 2


async def test_084_what_an_action_raises_fails_its_branch_alone(stage: Stage) -> None:
    """A worker reports it with its kind and words, which stand in the row; the others go on."""
    await stage.start("parallel { min_success = 1 call a call b } call c")
    await stage.fail("a", "ValueError: no such ticket")
    await stage.until_open("b")
    await stage.complete("b", "c")
    assert await stage.end() == "completed"
    row = await stage.row("a")
    assert (row.name, row.status, row.error) == ("a", "failed", "ValueError: no such ticket")


async def test_085_results_stand_under_the_key_of_each_branch(stage: Stage) -> None:
    """Markers, contexts and metrics."""
    await stage.start(
        "parallel { call a call b } if a.m { call x } if b.n { call y } if b.m { call z }"
    )
    await stage.complete("b", markers=["n"], context="from b", metadata={"num_turns": "1"})
    await stage.complete(
        "a", markers=["m"], context="from a", metadata={"num_turns": "2", "duration_ms": "7"}
    )
    await stage.complete("x", "y")
    assert await stage.end() == "completed"
    assert await stage.metrics() == {"num_turns": 3, "duration_ms": 7}
    told = [(each["step"], each["context"]) for each in stage.given("x").prior_contexts or ()]
    assert told == [("a", "from a"), ("b", "from b")]
    assert (await stage.row("b")).context == "from b"


async def test_086_a_failure_stops_siblings_that_cannot_help_any_more(stage: Stage) -> None:
    """They are told to, awaited, and not tried again."""
    await stage.start("parallel { call a call b { retries = 3 } } call c")
    await stage.until_open("a", "b")
    await stage.fail("a", "no disk")
    assert await stage.was_asked_to_stop("b")
    await stage.stopped("b")
    assert await stage.end() == "failed"
    assert "`a` failed: no disk" in await stage.error()
    assert (await stage.row("b")).error_code == "CANCELLED"
    assert stage.times_given("b") == 1


@pytest.mark.parametrize("options", ["min_success = 1", "fail_fast = false"])
async def test_086_siblings_that_can_help_go_on(stage: Stage, options: str) -> None:
    """Fail-fast waits until the block can no longer succeed (architecture); retries go on too."""
    await stage.start(f"parallel {{ {options} call a call b {{ retries = 1 }} call c }}")
    await stage.fail("a")
    await stage.fail("b")
    await stage.complete("b", "c")
    await stage.end()
    assert [row.status for row in await stage.rows()] == ["failed", "completed", "completed"]
    assert stage.times_given("b") == 2


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
async def test_087_contexts_stand_in_the_order_of_the_text(
    stage: Stage, order: tuple[str, ...]
) -> None:
    """In whichever order the branches end; so do the markers of a named block."""
    await stage.start("parallel { name = all call a call b call c } if all.b { call d }")
    for name in order:
        await stage.complete(name, context=f"from {name}", markers=[name])
    await stage.complete("d")
    assert await stage.end() == "completed"
    given = stage.given("d")
    assert [each["context"] for each in given.prior_contexts or ()] == [
        "from a", "from b", "from c",
    ]  # fmt: skip
    assert given.inputs["prior_context"] == "from c"

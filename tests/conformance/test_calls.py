"""Statements 56-69: calls, their retries, their settings, their deadlines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.dsl.durations import parse_duration
from support.stage import Refused

if TYPE_CHECKING:
    from support.stage import Stage

X, Y = "fields:\n  n?: number\n", "fields:\n  m?: number\n"


async def test_056_retries_make_new_rows(stage: Stage) -> None:
    """All at one position, counted from 0; each retry is announced."""
    await stage.start("call a { retries = 2 } call b")
    await stage.fail("a")
    await stage.fail("a")
    await stage.complete("a", "b")
    assert await stage.end() == "completed"
    assert [(row.status, row.position, row.retry_count) for row in await stage.rows("a")] == [
        ("failed", 0, 0), ("failed", 0, 1), ("completed", 0, 2),
    ]  # fmt: skip
    assert (await stage.kinds()).count("step_retrying") == 2
    assert (await stage.event("step_retrying"))["attempt"] == 2


async def test_057_a_retry_is_told_of_the_failure_before(stage: Stage) -> None:
    await stage.start("call a { retries = 2 }")
    await stage.fail("a", "no disk")
    await stage.fail("a", "no luck")
    await stage.complete("a")
    first, second, third = (stage.given("a", turn) for turn in range(3))
    assert [each.retry_error for each in (first, second, third)] == ["", "no disk", "no luck"]
    assert [each.retries_remaining for each in (first, second, third)] == [2, 1, 0]
    assert [each.attempt for each in (first, second, third)] == [0, 1, 2]
    assert first.idempotency_key == third.idempotency_key


async def test_058_a_failure_may_be_tolerated(stage: Stage) -> None:
    """The markers of an earlier result are gone with it."""
    await stage.start("call a call a { on_fail = continue } if a.m { call x } call b")
    await stage.complete("a", markers=["m"])
    await stage.fail("a")
    await stage.complete("b")
    assert await stage.end() == "completed"
    assert await stage.error() == ""
    assert [(row.name, row.status) for row in await stage.rows()] == [
        ("a", "completed"), ("a", "failed"), ("b", "completed"),
    ]  # fmt: skip


@pytest.mark.parametrize("helps", [True, False])
async def test_059_an_agent_may_look_after_a_failure(stage: Stage, *, helps: bool) -> None:
    """It is told what happened, nobody after it is, and the step has failed in any case."""
    await stage.start(
        'inputs { flag boolean } call "ops/a.md" { retries = 1 on_fail = fix } call b',
        fail_fast=False,
    )
    await stage.fail("ops/a.md")
    await stage.fail("ops/a.md", "no disk")
    if helps:
        await stage.complete("fix", context="tidied up")
    else:
        await stage.fail("fix", "me too")
    await stage.complete("b")
    assert await stage.end() == "failed"
    assert await stage.error() == "step `ops/a.md` failed after 2 attempts: no disk"
    told = stage.given("fix").inputs
    about = {"failed_step": "ops/a.md", "failure_reason": "no disk", "retry_count": "1"}
    assert about.items() <= told.items()
    assert about.keys().isdisjoint(stage.given("b").inputs)
    assert stage.given("b").inputs["prior_context"] == ("tidied up" if helps else "")


async def test_060_the_schema_of_a_call_goes_before_that_of_its_block(stage: Stage) -> None:
    await stage.start(
        "do { output = x call a { output = y } call b } call c", schemas={"x": X, "y": Y}
    )
    await stage.complete("a", "b", structured_output="{}")
    await stage.complete("c")
    assert await stage.end() == "completed"
    assert [stage.given(name).output_schema for name in "abc"] == ["y", "x", ""]


async def test_061_snippets_go_from_the_outermost_block_to_the_call(stage: Stage) -> None:
    """The original puts those of inner blocks first; the language says otherwise (IMP)."""
    await stage.start(
        "do { with = [one] do { with = [two] call a { with = [three] } } call b }",
        snippets={"one": "1", "two": "2", "three": "3"},
    )
    await stage.complete("a", "b")
    assert await stage.end() == "completed"
    assert stage.given("a").snippets == ("one", "two", "three")
    assert stage.given("b").snippets == ("one",)


async def test_062_a_schema_that_is_not_there_is_an_error_before_any_row(stage: Stage) -> None:
    """Already of the start: a run that would stop there never begins."""
    with pytest.raises(Refused, match=r"DSL_SEMANTIC.*`x`"):
        await stage.start("call a { output = x }", schemas={"y": Y})
    assert not await stage.has_run()


async def test_063_a_call_that_takes_too_long_has_timed_out(stage: Stage) -> None:
    await stage.start('call a { timeout = "5m" }')
    await stage.until_open("a")
    await stage.pass_time("deadline")
    assert await stage.end() == "failed"
    row = await stage.row("a")
    assert row.status == "timed_out"
    assert row.error == "timed out after 300 s"


async def test_064_a_deadline_stops_the_attempt_and_the_next_one_starts(stage: Stage) -> None:
    """The worker is told to stop, what it says then counts no more, and the run fails."""
    await stage.start('call a { timeout = "5m" retries = 1 on_fail = fix }')
    await stage.until_open("a")
    await stage.pass_time("deadline")
    await stage.until_open("a")
    assert await stage.was_asked_to_stop("a")
    await stage.pass_time("deadline")
    await stage.complete("fix")
    assert await stage.end() == "failed"
    assert stage.times_given("a") == 2
    assert await stage.statuses("a") == ["timed_out", "timed_out"]


@pytest.mark.parametrize(
    ("text", "ms"), [("90000ms", 90_000), ("10s", 10_000), ("30m", 1_800_000), ("2h", 7_200_000),
                     ("5", 5_000), ("abc", None), ("1x", None)]
)  # fmt: skip
async def test_065_durations_have_units(stage: Stage, text: str, ms: int | None) -> None:
    duration = parse_duration(text)
    assert (None if duration is None else duration.ms) == ms
    start = stage.start(f'call a {{ timeout = "{text}" }}')
    if ms is None:
        with pytest.raises(Refused, match=r"DSL_SYNTAX"):
            await start
    else:
        await start
        await stage.until_open("a")


async def test_066_a_malformed_timeout_is_found_before_the_run(stage: Stage) -> None:
    """At its place in the text; no run and no row comes of it."""
    with pytest.raises(Refused, match=r"DSL_SYNTAX.*`timeout`"):
        await stage.start('call a call b { timeout = "abc" }')
    assert not await stage.has_run()


async def test_067_conditions_know_a_path_by_its_stem(stage: Stage) -> None:
    await stage.start('call ".claude/agents/plan.md" if plan.m { call x } unless plan.n { call y }')
    await stage.complete(".claude/agents/plan.md", markers=["m"])
    await stage.complete("x", "y")
    assert await stage.end() == "completed"
    assert stage.given(".claude/agents/plan.md").action == ".claude/agents/plan.md"


async def test_068_a_path_that_completed_is_not_repeated(stage: Stage) -> None:
    """Its markers stand under the stem after the resume too."""
    await stage.start('call "steps/a.md" call b if a.m { call c }')
    await stage.complete("steps/a.md", markers=["m"])
    await stage.fail("b")
    assert await stage.end() == "failed"
    await stage.resume()
    await stage.complete("b", "c")
    assert await stage.end() == "completed"
    assert stage.times_given("steps/a.md") == 1


async def test_069_a_worker_that_stops_unasked_ends_no_run_for_good(stage: Stage) -> None:
    """An ordinary failure without a retry, unlike in the original: `failed` may be resumed."""
    await stage.start("call a { retries = 2 }")
    await stage.stopped("a")
    assert await stage.end() == "failed"
    row = await stage.row("a")
    assert (row.status, row.error_code) == ("failed", "CANCELLED")
    await stage.resume()
    await stage.complete("a")
    assert await stage.end() == "completed"

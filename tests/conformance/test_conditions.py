"""Statements 70-72: if and unless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.stage import Stage


@pytest.mark.parametrize(
    ("value", "holds"), [("TRUE", True), ("true", True), ("false", False), (None, False)]
)
async def test_070_a_boolean_input_is_a_condition(
    stage: Stage, value: str | None, *, holds: bool
) -> None:
    """However it is written; one that is missing counts as false."""
    await stage.start(
        "inputs { flag boolean } if flag { call x } unless flag { call y } call z",
        {} if value is None else {"flag": value},
    )
    await stage.complete("x" if holds else "y", "z")
    assert await stage.end() == "completed"
    assert await stage.names() == ["x" if holds else "y", "z"]


@pytest.mark.parametrize("markers", [["m"], ["n", "M"], []])
async def test_071_a_marker_is_a_condition(stage: Stage, markers: list[str]) -> None:
    await stage.start("call a if a.m { call x } unless a.m { call y } call z")
    await stage.complete("a", markers=markers)
    expected = "x" if "m" in markers else "y"
    await stage.complete(expected, "z")
    assert await stage.end() == "completed"
    assert await stage.names() == ["a", expected, "z"]


async def test_071_a_step_that_did_not_run_has_no_marker(stage: Stage) -> None:
    """One that no path leads to is an error of the text already."""
    await stage.start(
        "inputs { flag boolean } if flag { call a } if a.m { call x } unless a.m { call y }"
    )
    await stage.complete("y")
    assert await stage.end() == "completed"
    assert await stage.names() == ["y"]


async def test_071_the_newest_result_of_a_step_counts(stage: Stage) -> None:
    """Markers of an older one do not linger."""
    await stage.start("call a call a if a.m { call x } if a.n { call y }")
    await stage.complete("a", markers=["m"])
    await stage.complete("a", markers=["n"])
    await stage.complete("y")
    assert await stage.end() == "completed"
    assert await stage.names() == ["a", "a", "y"]


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True)])
async def test_072_an_inner_condition_needs_the_outer_one(
    stage: Stage, *, outer: bool, inner: bool
) -> None:
    await stage.start("call a if a.m { if a.n { call x } unless a.n { call y } } call z")
    await stage.complete("a", markers=["m"] * outer + ["n"] * inner)
    expected = [] if not outer else ["x"] if inner else ["y"]
    await stage.complete(*expected, "z")
    assert await stage.end() == "completed"
    assert await stage.names() == ["a", *expected, "z"]

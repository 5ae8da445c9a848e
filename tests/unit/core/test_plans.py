"""Plans and identities."""

from __future__ import annotations

import dataclasses

import pytest

from runkon_server.core import ids
from runkon_server.core.engine import compile_plan
from runkon_server.dsl.ast import DoWhile
from support.plays import Play
from support.workflows import accepted


def test_numbers_too_large_for_places_are_refused() -> None:
    """A loop of more passes than a place can count could not be sorted."""
    definition = accepted("do { max_iterations = 3 call a } while a.m")
    (loop,) = definition.body
    assert isinstance(loop, DoWhile)
    huge = dataclasses.replace(loop, max_iterations=10_000)

    with pytest.raises(ValueError, match="10000"):
        compile_plan(dataclasses.replace(definition, body=(huge,)))


def test_ids_are_derived() -> None:
    """Run, place, epoch, attempt."""
    play = Play("call a { retries = 1 timeout = 5 retry_delay = 5 }")
    deadline = play.timer("deadline").timer_id
    task = play.task("a")
    play.fail("a")

    assert task.step_id == "01RUN/b.0000/e1/0"
    assert task.task_id == "01RUN/b.0000/e1/0#0"
    assert task.idempotency_key == "01RUN/b.0000"
    assert deadline == "01RUN/b.0000/e1/0:deadline"
    assert play.timer("retry").timer_id == "01RUN/b.0000/e1/0#0:retry"


def test_every_id_names_its_run() -> None:
    """Steps, tasks, timers, groups, the run itself."""
    step = ids.step_id("R", "b.0000", 1, 0)
    task = ids.task_id(step, 0)
    found = [
        step, task, ids.idempotency_key("R", "b.0000"), ids.retry_timer(task), "R",
        ids.deadline_timer(step), ids.gate_timer(step), ids.grace_timer("R", "body", 1),
        ids.group_id("R", "b.0000", 1),
    ]  # fmt: skip

    assert {ids.run_of(identity) for identity in found} == {"R"}


def test_places_sort_in_program_order() -> None:
    """A step, its on_fail agent, what follows; passes by number; the section at the end last."""
    play = Play(
        "call a { on_fail = fix }"
        " do { max_iterations = 12 on_max_iter = continue call b } while b.m"
        " parallel { call c call d } always { call n }",
        fail_fast=False,
    )
    play.fail("a")
    play.complete("fix")
    for _ in range(12):
        play.complete("b", markers=("m",))
    play.complete("c", "d", "n")

    rows = sorted(play.world.steps.values(), key=lambda row: row["position"])
    assert len(rows) == 17
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


def test_paths_name_the_place_in_the_definition() -> None:
    """Section and child numbers, without passes."""
    play = Play("call a { on_fail = fix } always { do { parallel { call c call d } } }")
    play.fail("a")
    play.complete("fix")

    assert [row["path"] for row in play.world.steps.values()] == [
        "body.0", "body.0.on_fail", "always.0.0.0", "always.0.0.1",
    ]  # fmt: skip

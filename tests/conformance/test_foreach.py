"""Statements 112-125: a child run for each item that a provider finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.stage import Stage


def foreach(name: str = "f", **keys: object) -> str:
    """A foreach over things that runs `child` for each of them."""
    values = {"over": "things", "workflow": "child", "max_parallel": 3} | keys
    return (
        f"foreach {name} {{" + "".join(f" {key} = {value}" for key, value in values.items()) + "}"
    )


async def states(stage: Stage, name: str = "f") -> str:
    """The items' statuses by their first letters, in the provider's order."""
    return "".join(item.status[0] for item in await stage.items(name))


async def until_states(stage: Stage, wanted: str) -> None:
    async def are_so() -> bool:
        return await states(stage) == wanted

    await stage.until(are_so, f"the items are {wanted}")


async def test_112_one_at_a_time_all_items_complete(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(max_parallel=1))
    await stage.collect("foreach:f", ["x", "y", "z"])
    for item in ("x", "y", "z"):
        await stage.until_open("work")
        await stage.complete(f"work@{item}")

    assert await stage.end() == "completed"
    assert await states(stage) == "ccc"
    row = await stage.row("foreach:f")
    assert (row.status, row.fan_out) == ("completed", (3, 3, 0, 0))
    assert row.context == "foreach over things: 3 of 3 items completed"


async def test_113_no_more_than_max_parallel_run_at_once(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(max_parallel=3))
    await stage.collect("foreach:f", ["a", "b", "c", "d", "e"])
    await stage.until_open("work", "work", "work")
    assert await states(stage) == "rrrpp"

    await stage.complete("work@b")
    await until_states(stage, "rcrrp")
    await stage.complete("work@a", "work@c", "work@d", "work@e")
    assert await stage.end() == "completed"


async def test_114_halt_leaves_the_other_items_pending(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(max_parallel=1, on_child_fail="halt"))
    await stage.collect("foreach:f", ["a", "b", "c"])
    await stage.fail("work@a")

    assert await stage.end() == "failed"
    assert await states(stage) == "fpp"
    assert (await stage.row("foreach:f")).status == "failed"


async def test_115_continue_runs_every_item_and_wants_one_success(stage: Stage) -> None:
    """The step of the first foreach completes, that of the second, without a success, fails."""
    await stage.put("child", "call work")
    keys = {"on_child_fail": "continue"}
    await stage.start(foreach(**keys) + foreach("g", **keys))
    await stage.collect("foreach:f", ["a", "b", "c"])
    await stage.fail("work@a")
    await stage.fail("work@b")
    await stage.complete("work@c")
    await stage.collect("foreach:g", ["d", "e"])
    await stage.fail("work@d")
    await stage.fail("work@e")

    assert await stage.end() == "failed"
    assert [(row.status, row.fan_out) for row in await stage.rows()] == [
        ("completed", (3, 1, 2, 0)), ("failed", (2, 0, 2, 0)),
    ]  # fmt: skip


async def test_116_dependents_of_a_failure_are_skipped(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(ordered="true", on_child_fail="skip_dependents"))
    await stage.collect("foreach:f", ["t1", "t2", "t3"], edges=[("t1", "t2")])
    await stage.until_open("work", "work")
    await stage.fail("work@t1")
    await stage.complete("work@t3")

    assert await stage.end() == "failed"
    assert await states(stage) == "fsc"
    assert (await stage.row("foreach:f")).fan_out == (3, 1, 1, 1)
    assert stage.times_given("work@t2") == 0


async def test_117_starts_follow_the_chain(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(ordered="true", max_parallel=3))
    await stage.collect("foreach:f", ["t3", "t2", "t1"], edges=[("t1", "t2"), ("t2", "t3")])
    for item in ("t1", "t2", "t3"):
        await stage.until_open("work")
        await stage.complete(f"work@{item}")

    assert await stage.end() == "completed"
    assert await states(stage) == "ccc"


async def test_118_after_a_cancel_no_further_item_starts(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(max_parallel=1))
    await stage.collect("foreach:f", ["a", "b", "c"])
    await stage.complete("work@a")
    await stage.offered("work@b")
    await stage.cancel()
    await stage.stopped("work@b")

    assert await stage.end() == "cancelled"
    assert await states(stage) == "cfp"
    assert stage.times_given("work@c") == 0
    assert (await stage.row("foreach:f")).error_code == "CANCELLED"


async def test_119_without_items_the_step_completes_with_an_empty_aggregate(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach() + " call a")
    await stage.collect("foreach:f", [])
    await stage.complete("a")

    assert await stage.end() == "completed"
    (row,) = await stage.rows("foreach:f")
    assert (row.status, row.fan_out) == ("completed", (0, 0, 0, 0))
    assert json.loads(row.structured_output) == {"items": []}


async def test_120_items_that_cannot_be_fetched_end_the_body(stage: Stage) -> None:
    """Even with fail-fast off; no row is left running."""
    await stage.put("child", "call work")
    await stage.start(foreach() + " call a", fail_fast=False)
    await stage.fail("foreach:f", "no such board")

    assert await stage.end() == "failed"
    assert [(row.name, row.status) for row in await stage.rows()] == [("foreach:f", "failed")]
    assert await stage.error() == "step `foreach:f` failed: no such board"


async def test_121_a_child_is_told_of_its_item(stage: Stage) -> None:
    """The engine's own `item.id` and `item.ref` win over what the provider calls so."""
    await stage.put("child", "inputs { own required } call work")
    await stage.start(foreach(inputs='{ own = "mine" }'))
    context = {"title": "T", "id": "wrong", "ref": "wrong"}
    await stage.collect("foreach:f", ["x"], context=context)
    await stage.offered("work")
    (item,) = await stage.items("f")

    assert await stage.child_inputs(item.child_run_id) == {
        "own": "mine", "item.title": "T", "item.id": "x", "item.ref": "ref x",
    }  # fmt: skip


async def test_122_the_aggregate_lists_items_by_id_with_status_and_output(stage: Stage) -> None:
    """Later steps find it as `prior_output`."""
    await stage.put("child", "call work")
    await stage.start(foreach() + " call a")
    await stage.collect("foreach:f", ["b", "a", "c"])
    await stage.complete("work@b", structured_output='{"n": 1}')
    await stage.fail("work@a")
    await stage.complete("work@c")
    given = await stage.offered("a")
    (row,) = await stage.rows("foreach:f")

    assert json.loads(row.structured_output) == {
        "items": [
            {"item_id": "a", "status": "failed", "output": None},
            {"item_id": "b", "status": "completed", "output": {"n": 1}},
            {"item_id": "c", "status": "completed", "output": None},
        ]
    }
    assert given.inputs["prior_output"] == row.structured_output


async def test_123_inputs_are_filled_in_for_each_item(stage: Stage) -> None:
    await stage.put("child", "inputs { what required } call work")
    await stage.start(
        "call a " + foreach(inputs='{ what = "{{item.id}} after {{prior_context}}" }')
    )
    await stage.complete("a", context="A")
    await stage.collect("foreach:f", ["x", "y"])

    for item in ("x", "y"):
        given = await stage.offered(f"work@{item}")
        assert given.inputs["what"] == f"{item} after A"


async def test_124_a_circle_fails_the_step_and_is_named(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(ordered="true", on_cycle="fail"))
    await stage.collect("foreach:f", ["a", "b", "c"], edges=[("a", "b"), ("b", "a"), ("a", "c")])

    assert await stage.end() == "failed"
    assert "circle: a → b → a" in await stage.error()
    assert (await stage.row("foreach:f")).status == "failed"
    assert stage.times_given("work") == 0


async def test_124_with_a_warning_all_items_of_a_circle_run(stage: Stage) -> None:
    await stage.put("child", "call work")
    await stage.start(foreach(ordered="true", on_cycle="warn"))
    await stage.collect("foreach:f", ["a", "b"], edges=[("a", "b"), ("b", "a")])
    await stage.complete("work@a", "work@b")

    assert await stage.end() == "completed"
    assert await states(stage) == "cc"
    assert "circle" in (await stage.row("foreach:f")).result_text


@pytest.mark.parametrize("policy", ["halt", "skip_dependents"])
async def test_125_a_resume_runs_only_items_that_have_not_finished(
    stage: Stage, policy: str
) -> None:
    """The items are not collected again, and the child that failed goes on where it had come to.

    The totals and the aggregate are of all items.
    """
    await stage.put("child", "call prepare call work")
    await stage.start(foreach(max_parallel=1, ordered="true", on_child_fail=policy))
    await stage.collect("foreach:f", ["a", "b", "c"], edges=[("b", "c")])
    await stage.complete("prepare@a")
    await stage.complete("work@a", structured_output='"first"')
    await stage.complete("prepare@b")
    await stage.fail("work@b")
    assert await stage.end() == "failed"

    await stage.resume()
    await stage.offered("work@b", times=2)
    await stage.complete("work@b", "prepare@c", "work@c")

    assert await stage.end() == "completed"
    assert [stage.times_given(f"prepare@{item}") for item in "abc"] == [1, 1, 1]
    assert [stage.times_given(f"work@{item}") for item in "abc"] == [1, 2, 1]
    assert stage.times_given("foreach:f") == 1
    old, new = await stage.rows("foreach:f")
    assert (old.status, old.superseded_epoch) == ("failed", 2)
    assert (new.status, new.epoch, new.fan_out) == ("completed", 2, (3, 3, 0, 0))
    outputs = [item["output"] for item in json.loads(new.structured_output)["items"]]
    assert outputs == ["first", None, None]

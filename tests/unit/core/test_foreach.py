"""foreach: collecting, starting, the three policies, cancels, aggregates, resumes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runkon_server.core.bubbling import ChildResults
from runkon_server.core.decision import CancelChild, ResumeChild, StartChild
from runkon_server.core.engine import ResumeMode, advance
from runkon_server.core.facts import ChildEnded, Dependency, Item, ItemsCollected, LimitReached
from runkon_server.core.foreach import ITEMS_MAX
from runkon_server.core.ids import child_run_id
from support.histories import check_laws
from support.plays import Play

if TYPE_CHECKING:
    from typing import Any


def foreach(**keys: object) -> str:
    """A foreach over tickets that runs `child` for each."""
    values = {"over": "tickets", "workflow": "child", "max_parallel": 3} | keys
    return "foreach f {" + "".join(f" {key} = {value}" for key, value in values.items()) + " }"


class Fans(Play):
    """A play of a workflow that is about a foreach."""

    def collect(self, *names: str, edges: tuple[str, ...] = ()) -> None:
        """The provider finds items with one-letter ids; the edge `ab`: b waits for a."""
        task = self.task("foreach:f")
        items = tuple(Item("ticket", name, f"ref {name}", {"title": f"T{name}"}) for name in names)
        dependencies = tuple(Dependency(edge[0], edge[1]) for edge in edges)
        self.happen(ItemsCollected(task_id=task.task_id, items=items, dependencies=dependencies))

    def child(self, name: str) -> StartChild | ResumeChild:
        """The child that was started last for an item."""
        rows = {row["item_id"]: row for row in self.items()}
        return next(
            order
            for order in reversed(self.world.started_children)
            if order.child_run_id == rows[name].get("child_run_id")
        )

    def end(self, *names: str, status: str = "completed", **more: Any) -> None:
        """Children end."""
        for name in names:
            order = self.child(name)
            epoch = order.child_epoch if isinstance(order, ResumeChild) else 1
            if status != "completed":
                more.setdefault("error", "broken")
            self.happen(
                ChildEnded(
                    child_run_id=order.child_run_id, child_epoch=epoch, status=status, **more
                )
            )

    def items(self) -> list[dict[str, Any]]:
        """Rows of the items of the newest step."""
        step = self.rows("foreach:f")[-1]["id"]
        rows = (row for row in self.world.items.values() if row["step_run_id"] == step)
        return sorted(rows, key=lambda row: row["ordinal"])

    def states(self) -> str:
        """The items' statuses by their first letters."""
        return "".join(row["status"][0] for row in self.items())

    def counters(self) -> list[int]:
        """What the step's row says of its items: total, completed, failed, skipped."""
        row = self.rows("foreach:f")[-1]
        names = ("total", "completed", "failed", "skipped")
        return [row[f"fan_out_{name}"] for name in names]

    def cancelled_children(self) -> list[str]:
        """Children that were told to stop, by their items' ids."""
        names = {row.get("child_run_id"): row["item_id"] for row in self.items()}
        return [names[child] for child in self.world.asked if child in names]


def test_112_one_at_a_time_all_complete() -> None:
    play = Fans(foreach(max_parallel=1) + " call a")
    play.collect("x", "y", "z")
    for name in ("x", "y", "z"):
        assert len(play.world.children) == 1
        play.end(name)
    assert play.states() == "ccc"
    assert play.counters() == [3, 3, 0, 0]
    assert play.row("foreach:f")["status"] == "completed"
    assert play.given("a").inputs["prior_context"].startswith("foreach over tickets: 3 of 3")


def test_113_no_more_than_max_parallel_run_at_once() -> None:
    play = Fans(foreach(max_parallel=3))
    play.collect("a", "b", "c", "d", "e")
    assert play.states() == "rrrpp"
    play.end("b")
    assert play.states() == "rcrrp"
    play.end("a", "c", "d", "e")
    assert play.status == "completed"


def test_max_parallel_of_nothing_means_one() -> None:
    play = Fans(foreach(max_parallel=1))
    play.collect("a", "b")
    assert play.states() == "rp"


def test_114_halt_leaves_the_others_pending_and_fails() -> None:
    play = Fans(foreach(max_parallel=1, on_child_fail="halt"))
    play.collect("a", "b", "c")
    play.end("a", status="failed")
    assert play.states() == "fpp"
    assert play.status == "failed"
    assert play.error == "step `foreach:f` failed: 1 of 3 items failed"


def test_halt_tells_running_children_to_stop_and_waits_for_them() -> None:
    play = Fans(foreach(on_child_fail="halt"))
    play.collect("a", "b", "c", "d")
    play.end("b", status="failed")
    assert play.cancelled_children() == ["a", "c"]
    assert play.states() == "rfrp"
    play.end("a")
    play.end("c", status="cancelled")
    assert play.states() == "cffp"
    assert play.status == "failed"


def test_115_continue_runs_every_item_and_succeeds_if_one_did() -> None:
    play = Fans(foreach(on_child_fail="continue"))
    play.collect("a", "b", "c")
    play.end("a", "b", status="failed")
    play.end("c")
    assert play.status == "completed"
    assert play.counters() == [3, 1, 2, 0]


def test_115_continue_fails_if_none_did() -> None:
    play = Fans(foreach(on_child_fail="continue"))
    play.collect("a", "b")
    play.end("a", "b", status="failed")
    assert play.status == "failed"


def test_116_dependents_of_a_failure_are_skipped() -> None:
    play = Fans(foreach(ordered="true", on_child_fail="skip_dependents"))
    play.collect("a", "b", "c", "d", edges=("ab", "bd"))
    play.end("a", status="failed")
    assert play.states() == "fsrs"
    play.end("c")
    assert play.status == "failed"
    assert play.counters() == [4, 1, 1, 2]


def test_under_continue_dependents_of_a_failure_run() -> None:
    play = Fans(foreach(ordered="true"))
    play.collect("a", "b", edges=("ab",))
    play.end("a", status="failed")
    assert play.states() == "fr"


def test_117_starts_follow_the_chain() -> None:
    play = Fans(foreach(ordered="true"))
    play.collect("c", "b", "a", edges=("ab", "bc"))
    assert play.states() == "ppr"
    play.end("a")
    assert play.states() == "prc"
    play.end("b")
    play.end("c")
    assert play.status == "completed"


def test_dependencies_count_only_where_order_is_asked_for() -> None:
    play = Fans(foreach())
    play.collect("b", "a", edges=("ab",))
    assert play.states() == "rr"


def test_118_after_a_cancel_nothing_more_starts() -> None:
    play = Fans(foreach(max_parallel=1))
    play.collect("a", "b")
    play.cancel()
    assert play.cancelled_children() == ["a"]
    play.end("a", status="cancelled")
    assert play.states() == "fp"
    assert play.status == "cancelled"
    assert play.row("foreach:f")["error_code"] == "CANCELLED"


def test_a_cancel_stops_the_collection() -> None:
    play = Fans(foreach())
    play.cancel()
    play.stopped("foreach:f")
    assert play.status == "cancelled"


@pytest.mark.parametrize("is_collected", [True, False])
def test_a_forced_cancel_waits_for_nothing(is_collected: bool) -> None:  # noqa: FBT001 - a case
    play = Fans(foreach())
    if is_collected:
        play.collect("a", "b", "c", "d")
    play.cancel(force=True)
    assert play.status == "cancelled"
    if is_collected:
        assert play.states() == "fffp"
        forced = [name for name, _ in play.world.orders if name == CancelChild.__name__]
        assert len(forced) == 6  # asked, then left behind


def test_after_the_grace_children_are_left_behind() -> None:
    play = Fans(foreach() + " always { call a }")
    play.collect("x")
    play.cancel()
    play.pass_time("grace")
    assert play.open_steps == ["a"]
    assert play.states() == "f"


def test_119_without_items_the_step_completes_with_an_empty_aggregate() -> None:
    play = Fans(foreach() + " call a")
    play.collect()
    row = play.row("foreach:f")
    assert row["structured_output"] == '{"items":[]}'
    assert row["context_out"] == "foreach over tickets: nothing to process"
    assert play.open_steps == ["a"]


@pytest.mark.parametrize("fail_fast", [True, False])
def test_120_a_failed_collection_ends_the_body(fail_fast: bool) -> None:  # noqa: FBT001 - a case
    play = Fans(foreach() + " call a", fail_fast=fail_fast)
    play.fail("foreach:f", "no such board")
    assert play.status == "failed"
    assert play.error == "step `foreach:f` failed: no such board"
    assert play.row("foreach:f")["status"] == "failed"


def test_121_a_child_is_told_of_its_item() -> None:
    play = Fans(foreach(inputs='{ own = "mine" }'))
    play.collect("x")
    child = play.child("x")
    assert isinstance(child, StartChild)
    assert child.inputs == {
        "own": "mine",
        "item.title": "Tx",
        "item.id": "x",
        "item.ref": "ref x",
    }


def test_123_inputs_are_filled_in_for_each_item() -> None:
    play = Fans("call a " + foreach(inputs='{ what = "{{item.id}} after {{prior_context}}" }'))
    play.complete("a", context="A")
    play.collect("x", "y")
    started = {name: play.child(name) for name in ("x", "y")}
    assert [
        order.inputs["what"] for order in started.values() if isinstance(order, StartChild)
    ] == ["x after A", "y after A"]


def test_122_the_aggregate_lists_items_by_id() -> None:
    play = Fans(foreach() + " call a")
    play.collect("b", "a", "c")
    play.end("b", results=ChildResults(structured_output='{"n": 1}'))
    play.end("a", status="failed")
    play.end("c", results=ChildResults(structured_output="no json"))
    assert json.loads(play.row("foreach:f")["structured_output"]) == {
        "items": [
            {"item_id": "a", "status": "failed", "output": None},
            {"item_id": "b", "status": "completed", "output": {"n": 1}},
            {"item_id": "c", "status": "completed", "output": None},
        ]
    }
    assert "prior_output" in play.given("a").inputs


def test_124_a_circle_fails_the_step_and_names_it() -> None:
    play = Fans(foreach(ordered="true"))
    play.collect("a", "b", "c", edges=("ab", "ba", "ac"))
    assert play.status == "failed"
    assert "circle: a → b → a" in (play.error or "")


def test_124_with_a_warning_all_items_of_a_circle_run() -> None:
    play = Fans(foreach(ordered="true", on_cycle="warn"))
    play.collect("a", "b", edges=("ab", "ba"))
    assert play.states() == "rp"
    play.end("a", "b")
    assert play.status == "completed"
    assert "circle" in play.row("foreach:f")["result_text"]


def test_unknown_blockers_are_satisfied_and_told_of() -> None:
    play = Fans(foreach(ordered="true"))
    play.collect("a", edges=("xa",))
    play.end("a")
    assert play.row("foreach:f")["result_text"].endswith(
        "blockers that are no items count as done: x"
    )


def test_125_a_resume_runs_only_what_has_not_finished() -> None:
    play = Fans(foreach(on_child_fail="halt", max_parallel=2) + " call z")
    play.collect("a", "b", "c", "d")
    play.end("a", results=ChildResults(structured_output="1"))
    play.end("b", status="failed")
    play.end("c", status="cancelled")
    assert play.states() == "cffp"
    first = {name: play.child(name).child_run_id for name in "abc"}
    play.world.resume(ResumeMode.NORMAL)
    check_laws(play.world)
    assert play.states() == "crrp"
    assert play.counters() == [4, 1, 0, 0]
    again = play.child("b")
    assert isinstance(again, ResumeChild)
    assert (again.child_run_id, again.child_epoch) == (first["b"], 2)
    assert isinstance(play.child("c"), StartChild)  # a cancelled child is final
    assert play.child("c").child_run_id != first["c"]
    play.end("b", "c", "d")
    assert play.states() == "cccc"
    assert play.counters() == [4, 4, 0, 0]
    outputs = json.loads(play.rows("foreach:f")[-1]["structured_output"])["items"]
    assert outputs[0] == {"item_id": "a", "status": "completed", "output": 1}
    assert play.open_steps == ["z"]


def test_a_resume_collects_again_what_was_never_collected() -> None:
    play = Fans(foreach())
    play.fail("foreach:f")
    play.world.resume(ResumeMode.NORMAL)
    check_laws(play.world)
    play.collect("a")
    play.end("a")
    assert play.status == "completed"


def test_a_restart_begins_with_a_new_collection() -> None:
    play = Fans(foreach())
    play.collect("a")
    play.end("a")
    play.world.resume(ResumeMode.RESTART)
    check_laws(play.world)
    play.collect("a", "b")
    assert play.states() == "rr"


def test_a_child_that_cannot_be_resumed_is_started_anew() -> None:
    play = Fans(foreach(on_child_fail="halt", max_parallel=1))
    play.collect("a")
    play.end("a", status="failed")
    play.world.resume(ResumeMode.NORMAL)
    check_laws(play.world)
    play.end("a", status="failed", error_code="RESUME_REFUSED")
    child = play.child("a")
    assert isinstance(child, StartChild)
    assert child.child_run_id == child_run_id(play.items()[0]["id"])
    play.end("a")
    assert play.status == "completed"


def test_a_cancel_asks_no_halted_child_again() -> None:
    """It has been told to stop when another one failed."""
    play = Fans(foreach(on_child_fail="halt", max_parallel=2))
    play.collect("a", "b", "c")
    play.end("a", status="failed")
    play.cancel()
    assert not any(isinstance(order, CancelChild) for order in play.world.last.orders)
    play.end("b", status="cancelled")
    assert play.states() == "ffp"
    assert play.status == "cancelled"


def test_a_halted_foreach_replaces_no_child_that_cannot_be_resumed() -> None:
    """It waits for the end of what runs, and starts nothing."""
    play = Fans(foreach(on_child_fail="halt", max_parallel=2))
    play.collect("a", "b")
    play.end("a", "b", status="failed")
    play.world.resume(ResumeMode.NORMAL)
    play.end("a", status="failed")
    play.end("b", status="failed", error_code="RESUME_REFUSED")
    assert play.states() == "ff"
    assert play.status == "failed"


def test_a_cancelled_child_starts_anew_also_when_its_turn_comes_late() -> None:
    """Until then its row names no child that could be resumed."""
    play = Fans(foreach(on_child_fail="continue", max_parallel=1))
    play.collect("a", "b")
    play.end("a", status="failed")
    play.end("b", status="cancelled")
    play.world.resume(ResumeMode.NORMAL)
    check_laws(play.world)
    play.end("a")
    assert isinstance(play.child("b"), StartChild)


def test_children_are_resumed_time_and_again() -> None:
    """Also those whose turn comes late: each in the epoch after its last one."""
    play = Fans(foreach(on_child_fail="continue", max_parallel=1))
    play.collect("a", "b")
    for epoch in (1, 2, 3):
        play.end("a", status="failed")
        child = play.child("b")
        assert epoch == (child.child_epoch if isinstance(child, ResumeChild) else 1)
        play.end("b", status="failed")
        play.world.resume(ResumeMode.NORMAL)
        check_laws(play.world)


def test_a_resumed_child_that_was_given_up_is_not_resumed_again() -> None:
    """It was told to end in any case; that an earlier life of it failed counts no more."""
    play = Fans(foreach(on_child_fail="halt"))
    play.collect("a")
    play.end("a", status="failed")
    play.world.resume(ResumeMode.NORMAL)
    play.happen(LimitReached(epoch=2, reason="too many events"))
    assert play.status == "failed"
    play.world.resume(ResumeMode.NORMAL)
    check_laws(play.world)
    assert isinstance(play.child("a"), StartChild)


def test_a_spent_budget_stops_everything() -> None:
    play = Fans(foreach(), fail_fast=False)
    play.collect("a", "b", "c", "d")
    play.end("b", status="failed", error="too many runs", error_code="BUDGET_EXCEEDED")
    assert play.cancelled_children() == ["a", "c"]
    play.end("a", "c", status="cancelled")
    assert play.states() == "fffp"
    assert play.row("foreach:f")["error_code"] == "BUDGET_EXCEEDED"
    assert play.status == "failed"


def test_ends_of_children_that_are_not_awaited_change_nothing() -> None:
    play = Fans(foreach())
    play.collect("a", "b")
    child = play.child("a").child_run_id
    for fact in (
        ChildEnded(child_run_id=child, child_epoch=2, status="completed"),
        ChildEnded(child_run_id="other", child_epoch=1, status="completed"),
        ItemsCollected(task_id=play.world.dispatched[-1].task_id, items=(Item("t", "z"),)),
    ):
        assert advance(play.world.state, fact).state is play.world.state


def test_too_many_items_fail_the_step() -> None:
    play = Fans(foreach())
    task = play.task("foreach:f").task_id
    items = tuple(Item("t", str(n)) for n in range(ITEMS_MAX + 1))
    decision = advance(play.world.state, ItemsCollected(task_id=task, items=items))
    assert decision.items == ()
    assert decision.run["status"] == "failed"


def test_metrics_of_children_are_summed() -> None:
    play = Fans(foreach())
    play.collect("a", "b")
    play.end("a", metrics={"num_turns": 2})
    play.end("b", metrics={"num_turns": 3})
    assert play.world.run["metrics"] == {"num_turns": 5}


def test_counters_equal_the_rows_at_every_event() -> None:
    play = Fans(foreach(ordered="true", on_child_fail="skip_dependents"))
    play.collect("a", "b", "c", edges=("ab",))
    play.end("a", status="failed")
    play.end("c")
    told = [event.payload for event in play.world.events if event.kind == "fan_out_item_completed"]
    assert [payload["counts"] for payload in told] == [
        {"total": 3, "completed": 0, "failed": 1, "skipped": 0},
        {"total": 3, "completed": 0, "failed": 1, "skipped": 1},
        {"total": 3, "completed": 1, "failed": 1, "skipped": 1},
    ]
    assert [payload["item"]["item_id"] for payload in told] == ["a", "b", "c"]


def test_conditions_find_a_foreach_by_its_bare_name() -> None:
    """And quality gates find its aggregate (IMP-19)."""
    gate = "gate quality_gate { source = f threshold = 50 on_fail = continue }"
    play = Fans(foreach() + f" if f.foreach_stalled {{ call never }} {gate} call a")
    play.collect("x")
    play.end("x")
    row = play.row("quality_gate")
    assert row["result_text"].endswith("(no `confidence` in the output)")  # but there is an output
    assert play.open_steps == ["a"]

"""When a run must not start anything: what the engine refuses, told from rows and facts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runkon_server.core import ids
from runkon_server.core.decision import Dispatch, OpenGate, ResumeChild, StartChild
from runkon_server.core.facts import CancelAsked, ChildEnded, LimitReached
from runkon_server.core.plan import ForEachNode, ParallelNode
from runkon_server.dsl.ast import OnChildFail

if TYPE_CHECKING:
    from runkon_server.core.facts import Fact
    from runkon_server.core.model import RunState
    from support.histories import World

Start: TypeAlias = Dispatch | OpenGate | StartChild | ResumeChild


def objections(world: World, order: Start, before: RunState, fact: Fact | None) -> list[str]:
    """Why this must not have been ordered; `world` has the rows of the decision already.

    Args:
        world: the run's.
        order: what starts.
        before: the state that the fact met.
        fact: None: a resume.
    """
    rules = {
        "the run is being ended": _is_forced(before, fact),
        "the body is cancelled": _is_cancelled(before, fact) and f"/{ids.BODY}." in order.step_id,
        "the block is doomed": is_doomed(world, order.step_id),
        "the foreach has halted": _has_halted(world, order, fact),
        "the child did not fail": isinstance(order, ResumeChild) and not _failed(world, order),
    }
    return [f"{order.step_id}: {why}" for why, is_broken in rules.items() if is_broken]


def _is_forced(before: RunState, fact: Fact | None) -> bool:
    if isinstance(fact, LimitReached):
        return True
    is_forced_now = isinstance(fact, CancelAsked) and fact.force
    return fact is not None and (is_forced_now or before.force)


def _is_cancelled(before: RunState, fact: Fact | None) -> bool:
    return isinstance(fact, CancelAsked) or (fact is not None and before.cancel is not None)


def is_doomed(world: World, step_id: str) -> bool:
    """Whether the step is a branch of a block that has stopped since it cannot succeed."""
    row = world.steps[step_id]
    if not row.get("parallel_group_id"):
        return False
    node = world.nodes[row["path"].rpartition(".")[0]]
    assert isinstance(node, ParallelNode)
    block = row["at"].rpartition(".")[0]
    failed = [
        step
        for step in world.standing()
        if step["at"].rpartition(".")[0] == block and step["status"] == "failed"
    ]
    return node.fail_fast and len(failed) > len(node.branches) - node.min_success


def _has_halted(world: World, order: Start, fact: Fact | None) -> bool:
    """An item that fails in the very decision counts if it was the first thing to happen."""
    if not isinstance(order, StartChild | ResumeChild) or order.item_id is None:
        return False
    row = world.steps[order.step_id]
    if row.get("retryable") is False:
        return True  # a budget of the whole tree is spent
    node = world.nodes[row["path"]]
    assert isinstance(node, ForEachNode)
    if node.each.on_child_fail is not OnChildFail.HALT or not isinstance(fact, ChildEnded):
        return False
    return any(
        item["status"] == "failed"
        for item in world.items.values()
        if item["step_run_id"] == order.step_id
    )


def _failed(world: World, order: ResumeChild) -> bool:
    return world.child_ends.get((order.child_run_id, order.child_epoch - 1)) == "failed"

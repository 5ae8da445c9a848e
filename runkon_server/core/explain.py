"""Why a run stands still, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from runkon_server.core import ids, polling
from runkon_server.core.gates import blocked_on_gate
from runkon_server.core.items import in_order
from runkon_server.core.model import (
    CallOp,
    ChildOp,
    ForEachOp,
    GateOp,
    OnFailOp,
    ParallelOp,
    ScriptOp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_server.core.model import RunState


class CurrentStep(NamedTuple):
    """Where a run is now; of several branches the first that has not ended."""

    name: str
    iteration: int


class _Waiting(NamedTuple):
    """One attempt that is awaited, or one pause."""

    name: str
    step_id: str
    attempt: int
    iteration: int
    is_paused: bool


def blocked_on(state: RunState) -> tuple[dict[str, Any], ...]:
    """What the run waits for, one entry each; empty only when it is over.

    An entry's `type` is `start`, the type of a gate, `worker`, `retry` or `child_run`. A gate's
    entry is what the run's row has; the others have `step_id`, `step_name`, `attempt` and
    `task_id`, `timer_id`, or `child_run_id`, `child_epoch`, `workflow_name` and the gate that the
    child waits for as `blocked_on`; the child of a foreach has the row of its item as `item_id`.
    """
    if state.status == "pending":
        return ({"type": "start"},)
    if isinstance(state.leaf, GateOp):
        return (blocked_on_gate(state.leaf),)
    if isinstance(state.leaf, ChildOp) and not state.leaf.is_paused:
        return (_child_entry(state.leaf),)
    if isinstance(state.leaf, ForEachOp) and state.leaf.fan is not None:
        return tuple(_child_entries(state.leaf))
    return tuple(_entry(each) for each in _waiting(state))


def _child_entry(op: ChildOp) -> dict[str, Any]:
    return {
        "type": "child_run",
        "step_id": op.step_id,
        "step_name": op.node.name,
        "attempt": op.attempt,
        "child_run_id": op.child_run_id,
        "child_epoch": op.child_epoch,
        "workflow_name": op.node.workflow,
        "blocked_on": op.blocked_on,
    }


def _entry(waiting: _Waiting) -> dict[str, Any]:
    step_id = waiting.step_id
    entry: dict[str, Any] = {"step_id": step_id, "step_name": waiting.name}
    task = ids.task_id(step_id, waiting.attempt)
    if waiting.is_paused:
        attempt = waiting.attempt + 1
        return {"type": "retry", "timer_id": ids.retry_timer(task), "attempt": attempt} | entry
    return {"type": "worker", "task_id": task, "attempt": waiting.attempt} | entry


def _child_entries(op: ForEachOp) -> Iterator[dict[str, Any]]:
    for child, (ordinal, epoch) in in_order(op):
        yield {
            "type": "child_run",
            "child_run_id": child,
            "child_epoch": epoch,
            "workflow_name": op.node.each.workflow,
            "blocked_on": op.blocked.get(child),
            "step_id": op.step_id,
            "step_name": op.node.name,
            "item_id": ids.item_id(op.step_id, ordinal),
        }


def _waiting(state: RunState) -> Iterator[_Waiting]:
    match state.leaf:
        case CallOp() | ScriptOp() | ChildOp() as op:
            iteration = op.row["iteration"]
            yield _Waiting(op.node.name, op.step_id, op.attempt, iteration, op.is_paused)
        case OnFailOp(step_id=step_id, row=row):
            yield _Waiting(row["step_name"], step_id, 0, row["iteration"], is_paused=False)
        case ParallelOp() as op:
            yield from _branches(state, op)
        case ForEachOp(fan=None) as op:
            yield _Waiting(op.node.name, op.step_id, 0, op.row["iteration"], is_paused=False)
        case _:
            pass


def _branches(state: RunState, op: ParallelOp) -> Iterator[_Waiting]:
    setup = state.setup
    iteration = op.place.passes[-1] if op.place.passes else 0
    for number, branch in enumerate(op.branches):
        if branch.state in ("running", "paused"):
            step_id = ids.step_id(setup.run_id, ids.child_at(op.place.at, number), setup.epoch, 0)
            name = op.node.branches[number].name
            is_paused = branch.state == "paused"
            yield _Waiting(name, step_id, branch.attempt, iteration, is_paused)


def open_tasks(state: RunState) -> tuple[str, ...]:
    """Ids of the tasks whose reports are awaited."""
    if isinstance(state.leaf, ChildOp):
        return ()
    if isinstance(state.leaf, GateOp):
        return (polling.task_of(state.leaf),) if polling.is_looking(state.leaf) else ()
    return tuple(
        ids.task_id(each.step_id, each.attempt) for each in _waiting(state) if not each.is_paused
    )


def current_step(state: RunState) -> CurrentStep | None:
    """None before the first step and after the last."""
    if isinstance(state.leaf, GateOp):
        return CurrentStep(state.leaf.node.gate.name, state.leaf.row["iteration"])
    if isinstance(state.leaf, ForEachOp):
        return CurrentStep(state.leaf.node.name, state.leaf.row["iteration"])
    for each in _waiting(state):
        return CurrentStep(each.name, each.iteration)
    return None


def waits_only_for_gates(state: RunState) -> bool:
    """Whether the run can be forgotten until a gate, of its own or of a child, is decided."""
    leaf = state.leaf
    return isinstance(leaf, GateOp) or (isinstance(leaf, ChildOp) and leaf.blocked_on is not None)

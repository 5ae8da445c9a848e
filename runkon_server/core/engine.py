"""The engine's door: what has happened goes in, what is to be done comes out.

`restore` rebuilds a run from its rows, `advance` applies one fact. Both are total, deterministic
and cheap: `advance` costs what it newly enables, not what has been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import (
    calls,
    cancelling,
    children,
    foreach,
    gates,
    on_fail,
    parallel,
    polling,
    scripts,
)
from runkon_server.core.compiling import compile_plan
from runkon_server.core.decision import Decision, RunEnded
from runkon_server.core.explain import blocked_on, current_step, open_tasks, waits_only_for_gates
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    GateDecided,
    GatePolled,
    ItemsCollected,
    LimitReached,
    Reported,
    Started,
    TimerDue,
)
from runkon_server.core.gates import tally
from runkon_server.core.ids import BODY
from runkon_server.core.model import (
    CallOp,
    ChildOp,
    ForEachOp,
    Frame,
    GateOp,
    OnFailOp,
    ParallelOp,
    RunState,
    ScriptOp,
    copy_of,
)
from runkon_server.core.plan import Plan
from runkon_server.core.pull_requests import judge
from runkon_server.core.restoring import restore
from runkon_server.core.resuming import ResumeMode, ResumeRefusal, ResumeRefusedError, resume
from runkon_server.core.scratch import Scratch
from runkon_server.core.summary import summarize
from runkon_server.core.walk import settle

if TYPE_CHECKING:
    from runkon_server.core.facts import Fact

__all__ = [
    "Plan",
    "ResumeMode",
    "ResumeRefusal",
    "ResumeRefusedError",
    "RunState",
    "advance",
    "blocked_on",
    "compile_plan",
    "current_step",
    "judge",
    "open_tasks",
    "restore",
    "resume",
    "summarize",
    "tally",
    "waits_only_for_gates",
]


def advance(state: RunState, fact: Fact, *, is_halted: bool = False) -> Decision:
    """Apply one fact to a run.

    Args:
        state: before it.
        fact: what has happened.
        is_halted: a cancel was asked for after it and is applied next: the fact counts, and nothing
            new begins in between.

    Total and repeatable: the same pair gives the same answer, on any server, on any day. `state`
    is not changed, so it is still there if the decision cannot be stored.

    Returns:
        A decision; one whose `state` is the given object if the fact answers nothing in flight.
    """
    if state.phase == "done":
        return Decision(state)
    tx = Scratch(copy_of(state))
    tx.is_halted = is_halted
    if not _apply(tx, fact):
        return Decision(state)
    if not is_halted:
        settle(tx)
    if tx.state.cancel is not None or state.cancel is not None:
        consumed = fact.timer_id if isinstance(fact, TimerDue) else None
        cancelling.keep_grace(tx, state, consumed)
    if tx.state.phase == "done":
        tx.order(RunEnded(status=tx.state.status))
    return tx.decision()


def _apply(tx: Scratch, fact: Fact) -> bool:
    """Whether the fact counts."""
    if tx.state.status == "pending":
        return _apply_to_pending(tx, fact)
    match fact:
        case Reported():
            return _report(tx, fact)
        case GateDecided():
            op = tx.state.leaf
            return isinstance(op, GateOp) and gates.decide(tx, op, fact)
        case GatePolled():
            op = tx.state.leaf
            return isinstance(op, GateOp) and gates.polled(tx, op, fact)
        case ItemsCollected():
            op = tx.state.leaf
            return isinstance(op, ForEachOp) and foreach.collected(tx, op, fact)
        case ChildEnded():
            return _child_ended(tx, fact)
        case ChildBlocked():
            return _child_blocked(tx, fact)
        case TimerDue():
            return _timer(tx, fact.timer_id)
        case CancelAsked():
            return cancelling.ask(tx, fact)
        case LimitReached():
            return cancelling.break_off(tx, fact)
        case Started():
            return False


def _apply_to_pending(tx: Scratch, fact: Fact) -> bool:
    """A run begins; one that is cancelled before enters its body like any other and stops there."""
    if not isinstance(fact, Started | CancelAsked):
        return False
    state = tx.state
    plan = state.setup.plan
    tx.set_status("running")
    tx.event(
        "run_started",
        {
            "workflow_name": state.setup.workflow_name,
            "display_name": plan.display_name,
            "dry_run": state.setup.dry_run,
        },
    )
    state.frame = Frame(plan.body, BODY, (), 0, None)
    return isinstance(fact, Started) or cancelling.ask(tx, fact)


def _child_ended(tx: Scratch, fact: ChildEnded) -> bool:
    match tx.state.leaf:
        case ChildOp() as op:
            return children.ended(tx, op, fact)
        case ForEachOp() as op:
            return foreach.child_ended(tx, op, fact)
        case _:
            return False


def _child_blocked(tx: Scratch, fact: ChildBlocked) -> bool:
    match tx.state.leaf:
        case ChildOp() as op:
            return children.blocked(tx, op, fact)
        case ForEachOp() as op:
            return foreach.child_blocked(tx, op, fact)
        case _:
            return False


def _report(tx: Scratch, fact: Reported) -> bool:
    match tx.state.leaf:
        case CallOp() as op:
            return calls.report(tx, op, fact)
        case ScriptOp() as op:
            return scripts.report(tx, op, fact)
        case ParallelOp() as op:
            return parallel.report(tx, op, fact)
        case OnFailOp() as op:
            return on_fail.report(tx, op, fact)
        case ForEachOp() as op:
            return foreach.report(tx, op, fact)
        case GateOp() as op:
            return gates.report(tx, op, fact)
        case _:
            return False


def _timer(tx: Scratch, timer_id: str) -> bool:
    match tx.state.leaf:
        case CallOp() as op:
            if calls.pause_over(tx, op, timer_id) or calls.deadline(tx, op, timer_id):
                return True
        case ScriptOp() as op:
            if scripts.pause_over(tx, op, timer_id) or scripts.deadline(tx, op, timer_id):
                return True
        case ChildOp() as op:
            if children.pause_over(tx, op, timer_id):
                return True
        case ParallelOp() as op:
            if parallel.pause_over(tx, op, timer_id):
                return True
        case GateOp() as op:
            if polling.pause_over(tx, op, timer_id):
                return True
        case _:
            pass
    return cancelling.grace_over(tx, timer_id)

"""The walk over the program: which node comes next, and when a section or the run is over.

One loop, never recursion: a run whose steps all end at once must not overflow. The same walk
decides what happens next and, over rows that exist, restores what has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import calls, children, foreach, gates, parallel, quality, scripts
from runkon_server.core.budgets import MANY_ROWS, is_spent, spent
from runkon_server.core.ids import ALWAYS, child_at
from runkon_server.core.model import Frame, ended
from runkon_server.core.outcomes import abort
from runkon_server.core.plan import (
    Block,
    CallNode,
    ChildNode,
    ForEachNode,
    GateNode,
    Loop,
    ParallelNode,
    QualityGateNode,
    ScriptNode,
)
from runkon_server.core.rows import cut
from runkon_server.core.summary import headline
from runkon_server.dsl.ast import BoolInput

if TYPE_CHECKING:
    from runkon_server.core.model import BodyOutcome, Passes, RunState, RunStatus
    from runkon_server.core.plan import PlanNode
    from runkon_server.core.scratch import Scratch
    from runkon_server.dsl.ast import Condition

Window = tuple[frozenset[str], ...]


def settle(tx: Scratch) -> None:
    """Walk on until something is awaited or the run is over."""
    state = tx.state
    fail_fast = state.setup.fail_fast
    while state.leaf is None and state.phase != "done":
        if fail_fast and not state.ok:
            state.frame = None
        frame = state.frame
        if frame is None:
            _end_section(tx)
            state = tx.state
            continue
        node, entered = frame.node, frame.entered
        if entered < len(node.children):
            state.frame = Frame(
                node, frame.at, frame.passes, entered + 1, frame.parent, frame.starts, frame.window
            )
            _enter(tx, node.children[entered], child_at(frame.at, entered), frame.passes)
        else:
            state.frame = frame.parent
            if type(node) is Loop:
                _end_pass(tx, node, frame)


def _enter(tx: Scratch, node: PlanNode, at: str, passes: Passes) -> None:
    if tx.state.counts.total >= MANY_ROWS and _is_too_much(tx, node, at):
        abort(tx, spent())
        return
    match node:
        case CallNode():
            calls.enter(tx, node, at, passes)
        case ScriptNode():
            scripts.enter(tx, node, at, passes)
        case ChildNode():
            children.enter(tx, node, at, passes)
        case ParallelNode():
            parallel.enter(tx, node, at, passes)
        case GateNode():
            gates.enter(tx, node, at, passes)
        case ForEachNode():
            foreach.enter(tx, node, at, passes)
        case QualityGateNode():
            quality.enter(tx, node, at, passes)
        case Loop():
            _begin_pass(tx, node, at, passes, 0)
        case Block():
            if node.condition is None or holds(tx.state, node.condition) is node.wanted:
                tx.state.frame = Frame(node, at, passes, 0, tx.state.frame)


def _is_too_much(tx: Scratch, node: PlanNode, at: str) -> bool:
    """Whether this would be a new step of a run whose budget is spent."""
    return is_spent(tx.state) and not tx.is_stopping() and _is_new_step(tx, node, at)


def _is_new_step(tx: Scratch, node: PlanNode, at: str) -> bool:
    match node:
        case Block() | Loop():
            return False
        case ParallelNode(branches=branches):
            return not any(tx.is_known(child_at(at, n)) for n in range(len(branches)))
        case _:
            return not tx.is_known(at)


def holds(state: RunState, condition: Condition) -> bool:
    """Whether a condition is met; an unknown step or input meets none."""
    if isinstance(condition, BoolInput):
        return state.setup.inputs.get(condition.name, "").lower() == "true"
    return condition.marker in state.results.get(condition.step, ())


def _begin_pass(
    tx: Scratch,
    node: Loop,
    at: str,
    passes: Passes,
    number: int,
    *,
    window: Window = (),
    is_idle: bool = False,
) -> None:
    """Begin a pass of a loop, unless its end is reached.

    After a pass that awaited nothing the loop is at its limit: no further pass could change what
    its condition looks at, and none would ever stop.
    """
    state = tx.state
    if node.tests_first and not holds(state, node.condition):
        return
    if is_idle or number >= node.max_iterations:
        if node.fails_at_max:
            condition = f"{node.condition.step}.{node.condition.marker}"
            why = "a pass did nothing" if is_idle else f"{node.max_iterations} passes"
            abort(tx, f"loop at {node.path}: `{condition}` is still set after {why}")
        return
    state.frame = Frame(
        node, child_at(at, number), (*passes, number), 0, state.frame, state.starts, window
    )


def _end_pass(tx: Scratch, node: Loop, frame: Frame) -> None:
    state = tx.state
    window = frame.window
    if node.stuck_after is not None:
        markers = state.results.get(node.condition.step, frozenset())
        window = (*window, markers)[-max(1, node.stuck_after) :]
        if len(window) >= node.stuck_after and len(set(window)) == 1:
            abort(
                tx,
                f"loop at {node.path} is stuck: the markers of `{node.condition.step}` "
                f"were the same after {node.stuck_after} passes",
            )
            return
    if not node.tests_first and not holds(state, node.condition):
        return
    at = frame.at.rpartition(".")[0]
    number = frame.passes[-1] + 1
    is_idle = state.starts == frame.starts
    _begin_pass(tx, node, at, frame.passes[:-1], number, window=window, is_idle=is_idle)


def _end_section(tx: Scratch) -> None:
    state = tx.state
    if state.phase == "always":
        _finish(tx)
        return
    state.outcome = _body_outcome(tx)
    if state.memo is not None or state.carry:
        tx.forget_memo(superseding=state.outcome == "completed")
    state.ok = True
    state.phase = "always"
    tx.run |= {"phase": "always", "body_outcome": state.outcome, "body_error": state.error}
    if state.force or not state.setup.plan.always.children:
        _finish(tx)
        return
    tx.event("always_started", {"workflow_status": state.outcome})
    state.frame = Frame(state.setup.plan.always, ALWAYS, (), 0, None)


def _body_outcome(tx: Scratch) -> BodyOutcome:
    state = tx.state
    if tx.failure is not None:
        state.error = tx.failure
        return "failed"
    if state.cancel is not None:
        return "cancelled"
    return "completed" if state.ok else "failed"


def _finish(tx: Scratch) -> None:
    state = tx.state
    status: RunStatus = "cancelled" if state.cancel is not None else state.outcome or "failed"
    if tx.failure is not None:
        status = "failed"
    error = (tx.failure or state.error) if status == "failed" else None
    if status == "cancelled":
        error = f"cancelled: {state.cancel}" if state.cancel else "cancelled"
    summary = headline(state.counts)
    tx.event("metrics_updated", {"metrics": state.metrics})
    finished = {"status": status, "result_summary": summary}
    if error is not None:
        finished["error"] = cut(error)
    is_cut = error is not None and len(finished["error"]) < len(error)
    tx.event("run_finished", {**finished, "truncated": True} if is_cut else finished)
    tx.run |= {"phase": "done", "error": error, "result_summary": summary}
    tx.set_status(status)
    tx.state = ended(state.setup, status)

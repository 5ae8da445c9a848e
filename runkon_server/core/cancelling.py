"""Cancelling a run: work in flight is asked to stop and awaited up to one grace period per phase.

A cancel never rewrites what rows say. It refuses new work at the frontier of the body; the always
section runs under a grace period of its own, unless the cancel is forced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import calls, children, foreach, gates, ids, on_fail, parallel, scripts
from runkon_server.core.decision import ClearTimer, SetTimer
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
    from runkon_server.core.facts import CancelAsked, LimitReached
    from runkon_server.core.model import RunState
    from runkon_server.core.scratch import Scratch


def ask(tx: Scratch, fact: CancelAsked) -> bool:
    """Somebody wants the run to stop; whether that is new."""
    state = tx.state
    is_first = state.cancel is None
    if not is_first and not fact.force:
        return False
    was_asked = _is_asked(state)
    if is_first:
        state.cancel = fact.reason
        tx.run["cancel_reason"] = fact.reason
    if fact.force:
        state.force = True
        tx.run["force"] = True
    if state.status == "waiting":
        tx.run["blocked_on"] = None
    if state.status != "cancelling":
        tx.set_status("cancelling")
    if fact.force:
        give_up(tx, was_asked=was_asked)
    elif state.phase == "body":
        _stop(tx)
    return True


def break_off(tx: Scratch, fact: LimitReached) -> bool:
    """The run ends here and now, as by a forced cancel; whether it was this epoch of it.

    It has failed, unless it was being cancelled.
    """
    state = tx.state
    if fact.epoch != state.setup.epoch:
        return False
    was_asked = _is_asked(state)
    if state.cancel is None:
        tx.failure = state.cancel = fact.reason
    state.force = True
    if state.status == "waiting":
        tx.run["blocked_on"] = None
    give_up(tx, was_asked=was_asked)
    return True


def grace_over(tx: Scratch, timer_id: str) -> bool:
    """A timer went off; whether it ends the wait for the work in flight."""
    state = tx.state
    if timer_id != grace_timer(state):
        return False
    was_asked = _is_asked(state)
    if state.phase == "always":
        state.force = True
    give_up(tx, was_asked=was_asked)
    return True


def _is_asked(state: RunState) -> bool:
    return state.cancel is not None and state.phase == "body"


def _stop(tx: Scratch) -> None:
    match tx.state.leaf:
        case CallOp() as op:
            calls.stop(tx, op)
        case ScriptOp() as op:
            scripts.stop(tx, op)
        case ChildOp() as op:
            children.stop(tx, op)
        case OnFailOp() as op:
            on_fail.stop(tx, op)
        case ParallelOp() as op:
            parallel.stop(tx, op)
        case ForEachOp() as op:
            foreach.stop(tx, op)
        case GateOp() as op:
            gates.close(tx, op)
        case _:
            pass


def give_up(tx: Scratch, *, was_asked: bool) -> None:
    """Wait no longer for what is in flight; `was_asked`: it has been told to stop."""
    if not was_asked:
        _stop(tx)
    match tx.state.leaf:
        case CallOp() as op:
            calls.give_up(tx, op)
        case ScriptOp() as op:
            scripts.give_up(tx, op)
        case ChildOp() as op:
            children.give_up(tx, op)
        case OnFailOp() as op:
            on_fail.give_up(tx, op)
        case ParallelOp() as op:
            parallel.give_up(tx, op)
        case ForEachOp() as op:
            foreach.give_up(tx, op)
        case _:
            pass


def grace_timer(state: RunState) -> str | None:
    """The timer that bounds the present phase; None unless the run is being cancelled."""
    if state.cancel is None:
        return None
    setup = state.setup
    return ids.grace_timer(setup.run_id, state.phase, setup.epoch)


def keep_grace(tx: Scratch, before: RunState, consumed: str | None) -> None:
    """Set and clear grace timers so that there is the one that the new state wants.

    Args:
        tx: the decision, otherwise complete.
        before: the state that it started from.
        consumed: the timer that has just gone off, if any.
    """
    old, new = grace_timer(before), grace_timer(tx.state)
    if old == new:
        return
    if old is not None and old != consumed:
        tx.order(ClearTimer(timer_id=old))
    if new is not None:
        tx.order(SetTimer(timer_id=new, kind="grace", delay_s=tx.state.setup.grace_s))

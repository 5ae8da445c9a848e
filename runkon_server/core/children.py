"""`call workflow`: child runs as steps; started, resumed, ended, adopted.

Every attempt has a row and a child of its own. A child counts by its id and epoch, so what an
earlier life of it says changes nothing.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from runkon_server.core import attempts, ids, tasks
from runkon_server.core.bubbling import ChildResults
from runkon_server.core.budgets import BUDGET_EXCEEDED
from runkon_server.core.decision import CancelChild, ClearTimer, ResumeChild, StartChild
from runkon_server.core.events import ERROR_CUT_BYTES
from runkon_server.core.model import ChildOp, Completion, Place
from runkon_server.core.outcomes import abort, absorb, record_metrics, succeed, take_over
from runkon_server.core.rows import cut, new_row
from runkon_server.core.variables import text_variables
from runkon_server.core.waiting import block, unblock
from runkon_server.dsl import limits
from runkon_server.dsl.substitute import ExpansionTooLargeError, Unresolved, substitute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from runkon_server.core.facts import ChildBlocked, ChildEnded
    from runkon_server.core.model import Passes
    from runkon_server.core.plan import ChildNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch
    from runkon_server.dsl.ast import Pairs

RESUME_REFUSED: Final = "RESUME_REFUSED"
INPUT_LIMIT: Final = "INPUT_LIMIT"


def enter(tx: Scratch, node: ChildNode, at: str, passes: Passes) -> None:
    """Begin the step, or take it from its rows."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows)
    elif tx.may_start():
        state = tx.state
        place = Place(at, passes, state.position)
        state.position += 1
        state.starts += 1
        carried = tx.carried(at)
        _begin(tx, node, place, prior=None if carried is None else carried.record)


def _begin(
    tx: Scratch,
    node: ChildNode,
    place: Place,
    *,
    attempt: int = 0,
    prior: StepRecord | None = None,
) -> None:
    """Start an attempt; `prior`: what the same step came to in the epoch before."""
    setup = tx.state.setup
    step_id = ids.step_id(setup.run_id, place.at, setup.epoch, attempt)
    child, epoch = ids.child_run_id(step_id), 1
    if prior is not None and prior.child_run_id is not None and prior.child_end == "failed":
        child, epoch = prior.child_run_id, 1 + (prior.child_epoch or 1)
    row = new_row(node.columns, place, setup.epoch, attempt, "running")
    row |= {"child_run_id": child, "child_epoch": epoch}
    op = ChildOp(node, place, step_id, attempt, row, child_run_id=child, child_epoch=epoch)
    tx.insert_step(step_id, row)
    tx.step_event("step_started", step_id, row)
    tx.state.leaf = op
    if epoch == 1:
        _start(tx, op)
    else:
        _announce(tx, op)
        tx.order(
            ResumeChild(
                child_run_id=child,
                child_epoch=epoch,
                step_id=step_id,
                step_name=node.name,
                workflow_name=node.workflow,
            )
        )


def _start(tx: Scratch, op: ChildOp) -> None:
    node, setup = op.node, tx.state.setup
    values = text_variables(tx.state)
    try:
        inputs = expanded(node.inputs, values)
    except ExpansionTooLargeError:
        most = f"{limits.EXPANDED_BYTES} bytes"
        why = f"the inputs of workflow `{node.workflow}` are larger than {most} together"
        _fail(tx, op, {"step_error": why, "error_code": INPUT_LIMIT, "retryable": False})
        return
    _announce(tx, op)
    tx.order(
        StartChild(
            child_run_id=op.child_run_id,
            step_id=op.step_id,
            step_name=node.name,
            workflow_name=node.workflow,
            inputs=inputs,
            iteration=op.row["iteration"],
            identity=node.identity,
            depth=setup.depth + 1,
            root_run_id=setup.root_run_id,
        )
    )


def expanded(pairs: Pairs, values: Mapping[str, str]) -> dict[str, str]:
    """The inputs of a child; placeholders without a value stay, its definition may want them.

    Raises:
        ExpansionTooLargeError: all together, they are larger than one text may be.
    """
    inputs: dict[str, str] = {}
    room = limits.EXPANDED_BYTES
    for name, text in pairs:
        inputs[name] = substitute(text, values, unresolved=Unresolved.KEEP, limit_bytes=room)
        room -= len(inputs[name].encode())
    return inputs


def _announce(tx: Scratch, op: ChildOp) -> None:
    tx.event(
        "child_run_started",
        {
            "step_id": op.step_id,
            "child_run_id": op.child_run_id,
            "workflow_name": op.node.workflow,
        },
    )


def ended(tx: Scratch, op: ChildOp, fact: ChildEnded) -> bool:
    """A child run ended; whether it was this one, in this epoch of it."""
    if op.is_paused or (fact.child_run_id, fact.child_epoch) != (op.child_run_id, op.child_epoch):
        return False
    op = _blocked_no_more(tx, op)
    finished = {"step_id": op.step_id, "child_run_id": op.child_run_id, "status": fact.status}
    if fact.error is not None:
        finished["error"] = cut(fact.error, ERROR_CUT_BYTES)
    tx.event("child_run_finished", finished)
    if fact.status == "completed":
        _complete(tx, op, fact)
    elif fact.error_code == RESUME_REFUSED and op.child_epoch > 1 and not tx.is_stopping():
        _start_anew(tx, op)
    else:
        _fail(tx, op, _failed_columns(fact), jitter=fact.jitter)
    return True


def _complete(tx: Scratch, op: ChildOp, fact: ChildEnded) -> None:
    results = fact.results or ChildResults()
    columns: dict[str, Any] = {
        "status": "completed",
        "child_end": fact.status,
        "result_text": f"workflow `{op.node.workflow}` completed",
        "context_out": results.context,
        "markers_out": results.markers,
    }
    if fact.metrics:
        columns["metrics"] = fact.metrics
    tasks.end_row(tx, "step_completed", op.step_id, op.row, columns)
    tx.update_step(op.step_id, {"child_results": asdict(results)})
    record_metrics(tx, fact.metrics or None)
    tx.state.leaf = None
    _succeed(tx, op.node, op.place.passes, results)


def _succeed(tx: Scratch, node: ChildNode, passes: Passes, results: ChildResults) -> None:
    """What the child's steps said comes first, so that its last word is the newest."""
    absorb(tx, results)
    done = Completion(results.context, results.markers, None, None)
    succeed(tx, node.key, passes, done)
    take_over(tx, results)


def _start_anew(tx: Scratch, op: ChildOp) -> None:
    """The child cannot be resumed, so another one does all of its work."""
    child = ids.child_run_id(op.step_id)
    changes = {"child_run_id": child, "child_epoch": 1}
    tx.update_step(op.step_id, changes)
    op = op._replace(row={**op.row, **changes}, child_run_id=child, child_epoch=1)
    tx.state.leaf = op
    tx.step_event("step_started", op.step_id, op.row)
    _start(tx, op)


def _failed_columns(fact: ChildEnded) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "step_error": fact.error or f"the child run {fact.status} without a message",
        "retryable": fact.retryable and fact.status == "failed",
        "child_end": fact.status,
    }
    if fact.error_code is not None:
        columns["error_code"] = fact.error_code
    return columns


def _fail(tx: Scratch, op: ChildOp, columns: dict[str, Any], *, jitter: float = 0.5) -> None:
    columns["status"] = "failed"
    tasks.end_row(tx, "step_failed", op.step_id, op.row, columns)
    _after_failure(tx, op, columns, jitter=jitter)


def _after_failure(
    tx: Scratch, op: ChildOp, columns: dict[str, Any], *, jitter: float = 0.5
) -> None:
    if columns.get("error_code") == BUDGET_EXCEEDED:
        tx.state.leaf = None
        abort(tx, f"{BUDGET_EXCEEDED}: {columns['step_error']}", (op.step_id,))
    else:
        attempts.after_failure(tx, op, columns, lambda _: _retry(tx, op), jitter=jitter)


def _retry(tx: Scratch, op: ChildOp) -> None:
    _begin(tx, op.node, op.place, attempt=op.attempt + 1)


def blocked(tx: Scratch, op: ChildOp, fact: ChildBlocked) -> bool:
    """A child came to a gate or left one; whether that is news of this child."""
    if op.is_paused or (fact.child_run_id, fact.child_epoch) != (op.child_run_id, op.child_epoch):
        return False
    if fact.blocked_on == op.blocked_on:
        return False
    tx.update_step(op.step_id, {"blocked_on": fact.blocked_on or {}})
    tx.state.leaf = op._replace(blocked_on=fact.blocked_on)
    if fact.blocked_on is None:
        unblock(tx)
    else:
        block(tx, fact.blocked_on)
    return True


def _blocked_no_more(tx: Scratch, op: ChildOp) -> ChildOp:
    if op.blocked_on is None:
        return op
    unblock(tx)
    tx.update_step(op.step_id, {"blocked_on": {}})
    return op._replace(blocked_on=None)


def pause_over(tx: Scratch, op: ChildOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause before the next attempt."""
    if not op.is_paused or timer_id != _retry_timer(op):
        return False
    _retry(tx, op)
    return True


def stop(tx: Scratch, op: ChildOp) -> None:
    """A cancel: end a pause, cancel a child."""
    if op.is_paused:
        tx.order(ClearTimer(timer_id=_retry_timer(op)))
        _after_failure(tx, op, {"step_error": op.error, "retryable": True})
    else:
        _cancel(tx, op, force=False)


def give_up(tx: Scratch, op: ChildOp) -> None:
    """The run no longer waits for the child, which goes on ending by itself."""
    _cancel(tx, op, force=True)
    op = _blocked_no_more(tx, op)
    _fail(tx, op, tasks.failed_columns(tasks.given_up(op.step_id)))


def _cancel(tx: Scratch, op: ChildOp, *, force: bool) -> None:
    tx.order(
        CancelChild(
            child_run_id=op.child_run_id,
            child_epoch=op.child_epoch,
            reason=tasks.RUN_CANCELLED,
            force=force,
        )
    )


def _retry_timer(op: ChildOp) -> str:
    return ids.retry_timer(ids.task_id(op.step_id, op.attempt))


def _adopt(
    tx: Scratch, node: ChildNode, at: str, passes: Passes, rows: Sequence[StepRecord]
) -> None:
    tx.state.starts += 1
    last = rows[-1]
    if last.status == "completed":
        _succeed(tx, node, passes, last.child_results or ChildResults())
        return
    place = Place(at, passes, last.position)
    child, epoch = last.child_run_id or "", last.child_epoch or 1
    row = new_row(node.columns, place, last.epoch, last.retry_count, "running")
    row |= {"child_run_id": child, "child_epoch": epoch}
    op = ChildOp(node, place, last.id, last.retry_count, row, child_run_id=child, child_epoch=epoch)
    if last.status == "running":
        op = op._replace(blocked_on=last.blocked_on or None)
        tx.state.leaf = op
        if op.blocked_on is not None:
            tx.state.status = "waiting"  # unless the run turns out to be cancelled
        return
    ended_by: dict[str, Any] = {
        "step_error": last.step_error or "",
        "retryable": last.retryable is not False,
        "error_code": last.error_code,
    }
    _after_failure(tx, op, ended_by)

"""Calls: attempts, pauses between them, deadlines; started, reported, adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import attempts, ids, tasks
from runkon_server.core.decision import ClearTimer, SetTimer
from runkon_server.core.facts import Outcome
from runkon_server.core.model import CallOp, Place
from runkon_server.core.outcomes import abort, succeed
from runkon_server.core.rows import completion_of, new_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runkon_server.core.facts import Reported
    from runkon_server.core.model import Passes
    from runkon_server.core.plan import CallNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch


def enter(tx: Scratch, node: CallNode, at: str, passes: Passes) -> None:
    """Begin a call, or take it from its rows."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows)
    elif tx.may_start():
        if node.output_schema is not None and node.schema is None:
            abort(tx, tasks.no_schema(node))
            return
        state = tx.state
        place = Place(at, passes, state.position)
        state.position += 1
        state.starts += 1
        _begin(tx, node, place)


def _begin(
    tx: Scratch,
    node: CallNode,
    place: Place,
    *,
    attempt: int = 0,
    retry_error: str | None = None,
) -> None:
    setup = tx.state.setup
    step_id = ids.step_id(setup.run_id, place.at, setup.epoch, attempt)
    row = new_row(node.columns, place, setup.epoch, attempt, "running")
    tx.insert_step(step_id, row)
    tx.step_event("step_started", step_id, row)
    tasks.dispatch(tx, node, step_id, row, retry_error=retry_error)
    if node.timeout_s is not None:
        tx.order(
            SetTimer(
                timer_id=ids.deadline_timer(step_id),
                kind="deadline",
                delay_s=node.timeout_s,
                step_id=step_id,
                attempt=attempt,
            )
        )
    tx.state.leaf = CallOp(node, place, step_id, attempt, row)


def _task(op: CallOp) -> str:
    return ids.task_id(op.step_id, op.attempt)


def report(tx: Scratch, op: CallOp, fact: Reported) -> bool:
    """An attempt ended; whether it was this one."""
    if op.is_paused or fact.task_id != _task(op):
        return False
    if op.node.timeout_s is not None:
        tx.order(ClearTimer(timer_id=ids.deadline_timer(op.step_id)))
    if fact.raw_output is not None or op.node.schema is not None:
        fact = tasks.interpreted(op.node, fact)
    if fact.outcome is Outcome.COMPLETED:
        done = tasks.complete(tx, op.step_id, op.row, fact)
        tx.state.leaf = None
        succeed(tx, op.node.key, op.place.passes, done)
    else:
        columns = tasks.failed_columns(fact)
        tasks.end_row(tx, "step_failed", op.step_id, op.row, columns)
        _after_failure(tx, op, columns, jitter=fact.jitter)
    return True


def _after_failure(
    tx: Scratch, op: CallOp, columns: dict[str, Any], *, jitter: float = 0.5
) -> None:
    attempts.after_failure(tx, op, columns, lambda error: _retry(tx, op, error), jitter=jitter)


def _retry(tx: Scratch, op: CallOp, error: str | None) -> None:
    _begin(tx, op.node, op.place, attempt=op.attempt + 1, retry_error=error)


def deadline(tx: Scratch, op: CallOp, timer_id: str) -> bool:
    """A timer went off; whether it was the deadline of this attempt."""
    if op.is_paused or op.node.timeout_s is None or timer_id != ids.deadline_timer(op.step_id):
        return False
    tasks.stop_late(tx, _task(op))
    error = f"timed out after {op.node.timeout_s:g} s"
    columns = {"status": "timed_out", "step_error": error, "retryable": True}
    tasks.end_row(tx, "step_timed_out", op.step_id, op.row, columns)
    _after_failure(tx, op, columns)
    return True


def pause_over(tx: Scratch, op: CallOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause before the next attempt."""
    if not op.is_paused or timer_id != ids.retry_timer(_task(op)):
        return False
    _retry(tx, op, op.error)
    return True


def stop(tx: Scratch, op: CallOp) -> None:
    """A cancel: end a pause, ask a running attempt to stop."""
    if not op.is_paused:
        tasks.ask_to_stop(tx, _task(op), tasks.RUN_CANCELLED)
        return
    tx.order(ClearTimer(timer_id=ids.retry_timer(_task(op))))
    _after_failure(tx, op, {"step_error": op.error, "retryable": True})


def give_up(tx: Scratch, op: CallOp) -> None:
    """The run no longer waits for a running attempt; a pause has ended with the cancel."""
    task = _task(op)
    tasks.abandon(tx, task, tasks.RUN_CANCELLED)
    report(tx, op, tasks.given_up(task))


def _adopt(
    tx: Scratch, node: CallNode, at: str, passes: Passes, rows: Sequence[StepRecord]
) -> None:
    tx.state.starts += 1
    last = rows[-1]
    if last.status == "completed":
        succeed(tx, node.key, passes, completion_of(last))
        return
    place = Place(at, passes, last.position)
    row = new_row(node.columns, place, last.epoch, last.retry_count, "running")
    op = CallOp(node, place, last.id, last.retry_count, row)
    if last.status == "running":
        tx.state.leaf = op
    else:
        ended = {"step_error": last.step_error or "", "retryable": last.retryable is not False}
        _after_failure(tx, op, ended)

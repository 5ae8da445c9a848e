"""What follows a failed attempt: another one, tolerance, the on_fail agent, or failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import ids, on_fail, tasks
from runkon_server.core.decision import SetTimer
from runkon_server.core.outcomes import forget

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runkon_server.core.model import CallOp, ChildOp, RepeatableOp
    from runkon_server.core.scratch import Scratch


def after_failure(
    tx: Scratch,
    op: CallOp | ChildOp,
    columns: dict[str, Any],
    again: Callable[[str], None],
    *,
    jitter: float = 0.5,
) -> None:
    """Go on after an attempt that had a row of its own.

    Args:
        tx: the decision.
        op: the attempt; its row has ended already.
        columns: those that ended the row.
        again: starts the next attempt; it is told the error of this one.
        jitter: 0…1.
    """
    if not may_retry(tx, op, columns):
        exhausted(tx, op, columns["step_error"])
        return
    delay_s = announce_retry(tx, op, columns, jitter)
    if delay_s is None:
        tx.require_live()  # the next attempt's row would be there
        again(columns["step_error"])
    else:
        set_pause(tx, op, delay_s)
        tx.state.leaf = op._replace(is_paused=True, error=columns["step_error"])


def may_retry(tx: Scratch, op: RepeatableOp, columns: dict[str, Any]) -> bool:
    """Whether another attempt follows."""
    return op.attempt < op.node.retries and columns["retryable"] and not tx.is_stopping()


def announce_retry(
    tx: Scratch, op: RepeatableOp, columns: dict[str, Any], jitter: float
) -> float | None:
    """Tell of the next attempt; gives the pause before it in seconds, None if there is none."""
    delay_s = tasks.retry_delay_s(op.node.retry_delay_s, op.attempt, jitter)
    tx.step_event(
        "step_retrying",
        op.step_id,
        {**op.row, **columns},
        attempt=op.attempt + 1,
        delay_s=delay_s or 0.0,
    )
    return delay_s


def set_pause(tx: Scratch, op: RepeatableOp, delay_s: float) -> None:
    """Set the timer that ends the pause after an attempt."""
    tx.order(
        SetTimer(
            timer_id=ids.retry_timer(ids.task_id(op.step_id, op.attempt)),
            kind="retry",
            delay_s=delay_s,
            step_id=op.step_id,
            attempt=op.attempt,
        )
    )


def exhausted(tx: Scratch, op: RepeatableOp, error: str) -> None:
    """No attempt follows: the on_fail rule of the step, or its failure."""
    node = op.node
    if node.tolerated:
        tx.state.leaf = None
        forget(tx, node.key)
    elif node.on_fail is not None:
        on_fail.begin(tx, op, node.on_fail, error)
    else:
        on_fail.fail_step(tx, node, on_fail.failure(op, error), op.step_id)

"""Script steps: attempts on one row, pauses between them, deadlines; started, reported, adopted.

A pause is a running row with an error, as in the branches of a parallel block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.core import attempts, ids, tasks
from runkon_server.core.decision import ClearTimer, Dispatch, ScriptWork, SetTimer
from runkon_server.core.environment import ScriptError, environment
from runkon_server.core.facts import Outcome
from runkon_server.core.model import Completion, Place, ScriptOp
from runkon_server.core.outcomes import succeed
from runkon_server.core.outputs import interpret
from runkon_server.core.rows import completion_of, new_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runkon_server.core.facts import Reported
    from runkon_server.core.model import Passes
    from runkon_server.core.plan import ScriptNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

DEADLINE_SLACK_S: Final = 30.0
"""A worker kills a script in time; this much later the run stops believing that it will."""
SCRIPT_INVALID: Final = "SCRIPT_INVALID"
"""`error_code` of a script that could not be handed out."""
SCRIPT_TIMEOUT: Final = "SCRIPT_TIMEOUT"


def enter(tx: Scratch, node: ScriptNode, at: str, passes: Passes) -> None:
    """Begin a script, or take it from its row."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows)
    elif tx.may_start():
        _begin(tx, node, at, passes)


def _begin(tx: Scratch, node: ScriptNode, at: str, passes: Passes) -> None:
    state = tx.state
    setup = state.setup
    step_id = ids.step_id(setup.run_id, at, setup.epoch, 0)
    place = Place(at, passes, state.position)
    state.position += 1
    if setup.dry_run:
        row = new_row(node.columns, place, setup.epoch, 0, "completed")
        tx.insert_step(step_id, row)
        tx.step_event("step_completed", step_id, row)
        succeed(tx, node.key, passes, Completion("", (), None, None))
        return
    state.starts += 1
    row = new_row(node.columns, place, setup.epoch, 0, "running")
    op = ScriptOp(node, place, step_id, 0, row)
    tx.insert_step(step_id, row)
    _attempt(tx, op)


def _attempt(tx: Scratch, op: ScriptOp, retry_error: str | None = None) -> None:
    """Hand an attempt out; the row says already that it runs."""
    tx.state.leaf = op
    tx.step_event("step_started", op.step_id, op.row)
    try:
        work = ScriptWork(
            text=op.node.command.text,
            environment=environment(tx.state, op.node),
            timeout_s=op.node.timeout_s,
        )
    except ScriptError as error:
        _end(tx, op, {"step_error": str(error), "error_code": SCRIPT_INVALID})
        return
    _dispatch(tx, op, work, retry_error)
    if op.node.timeout_s is not None:
        tx.order(
            SetTimer(
                timer_id=ids.deadline_timer(_task(op)),
                kind="deadline",
                delay_s=op.node.timeout_s + DEADLINE_SLACK_S,
                step_id=op.step_id,
                attempt=op.attempt,
            )
        )


def _dispatch(tx: Scratch, op: ScriptOp, work: ScriptWork, retry_error: str | None) -> None:
    node, row, setup = op.node, op.row, tx.state.setup
    tx.order(
        Dispatch(
            task_id=_task(op),
            step_id=op.step_id,
            step_name=node.name,
            action=node.name,
            iteration=row["iteration"],
            iterations=row["iterations"],
            attempt=op.attempt,
            retries_remaining=node.retries - op.attempt,
            idempotency_key=ids.idempotency_key(setup.run_id, row["at"]),
            inputs={},
            prior_contexts=None,
            retry_error=retry_error,
            gate_feedback=tx.state.memory.gate_feedback,
            identity=node.identity,
            timeout_s=node.timeout_s,
            kind="script",
            work=work,
        )
    )


def _task(op: ScriptOp) -> str:
    return ids.task_id(op.step_id, op.attempt)


def report(tx: Scratch, op: ScriptOp, fact: Reported) -> bool:
    """An attempt ended; whether it was this one."""
    if op.is_paused or fact.task_id != _task(op):
        return False
    if op.node.timeout_s is not None:
        tx.order(ClearTimer(timer_id=ids.deadline_timer(_task(op))))
    if fact.outcome is Outcome.COMPLETED:
        fact = interpret(fact, is_script=True)
    if fact.outcome is Outcome.COMPLETED:
        tx.state.leaf = None
        done = tasks.complete(tx, op.step_id, op.row, fact)
        succeed(tx, op.node.key, op.place.passes, done)
    else:
        _fail_attempt(tx, op, tasks.failed_columns(fact), fact.jitter)
    return True


def deadline(tx: Scratch, op: ScriptOp, timer_id: str) -> bool:
    """A timer went off; whether the worker has let this attempt overrun its time."""
    if op.is_paused or op.node.timeout_s is None or timer_id != ids.deadline_timer(_task(op)):
        return False
    tasks.stop_late(tx, _task(op))
    columns = {
        "step_error": f"timed out after {op.node.timeout_s:g} s, and no worker said so in time",
        "error_code": SCRIPT_TIMEOUT,
        "retryable": True,
    }
    _fail_attempt(tx, op, columns, 0.5)
    return True


def _fail_attempt(tx: Scratch, op: ScriptOp, columns: dict[str, Any], jitter: float) -> None:
    if not attempts.may_retry(tx, op, columns):
        _end(tx, op, columns)
        return
    error = columns["step_error"]
    delay_s = attempts.announce_retry(tx, op, {"step_error": error}, jitter)
    if delay_s is None:
        _retry(tx, op, error, {})
        return
    tx.update_step(op.step_id, {"step_error": error})
    attempts.set_pause(tx, op, delay_s)
    tx.state.leaf = op._replace(is_paused=True, error=error)


def _end(tx: Scratch, op: ScriptOp, columns: dict[str, Any]) -> None:
    columns = {**columns, "status": "failed", "retryable": columns.get("retryable", False)}
    tasks.end_row(tx, "step_failed", op.step_id, op.row, columns)
    attempts.exhausted(tx, op, columns["step_error"])


def _retry(tx: Scratch, op: ScriptOp, error: str | None, changes: dict[str, Any]) -> None:
    attempt = op.attempt + 1
    changes["retry_count"] = attempt
    tx.update_step(op.step_id, changes)
    row = {**op.row, "retry_count": attempt}
    _attempt(tx, ScriptOp(op.node, op.place, op.step_id, attempt, row), error)


def pause_over(tx: Scratch, op: ScriptOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause before the next attempt."""
    if not op.is_paused or timer_id != ids.retry_timer(_task(op)):
        return False
    _retry(tx, op, op.error, {"step_error": tasks.NO_ERROR})
    return True


def stop(tx: Scratch, op: ScriptOp) -> None:
    """A cancel: end a pause, ask a running attempt to stop."""
    if not op.is_paused:
        tasks.ask_to_stop(tx, _task(op), tasks.RUN_CANCELLED)
        return
    tx.order(ClearTimer(timer_id=ids.retry_timer(_task(op))))
    _end(tx, op, {"step_error": op.error, "retryable": True})


def give_up(tx: Scratch, op: ScriptOp) -> None:
    """The run no longer waits for a running attempt; a pause has ended with the cancel."""
    task = _task(op)
    tasks.abandon(tx, task, tasks.RUN_CANCELLED)
    report(tx, op, tasks.given_up(task))


def _adopt(
    tx: Scratch, node: ScriptNode, at: str, passes: Passes, rows: Sequence[StepRecord]
) -> None:
    (record,) = rows
    if not tx.state.setup.dry_run:
        tx.state.starts += 1
    if record.status == "completed":
        succeed(tx, node.key, passes, completion_of(record))
        return
    place = Place(at, passes, record.position)
    row = new_row(node.columns, place, record.epoch, record.retry_count, "running")
    op = ScriptOp(node, place, record.id, record.retry_count, row)
    if record.status != "running":
        attempts.exhausted(tx, op, record.step_error or "")
    elif record.step_error:
        tx.state.leaf = op._replace(is_paused=True, error=record.step_error)
    else:
        tx.state.leaf = op

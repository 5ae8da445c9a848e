"""Calls: attempts, pauses between them, deadlines, on_fail agents; started, reported, adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import ids, tasks
from runkon_server.core.decision import ClearTimer, SetTimer
from runkon_server.core.facts import Outcome, Reported
from runkon_server.core.metrics import parse_metrics
from runkon_server.core.model import CallOp, Completion, OnFailOp, Place
from runkon_server.core.outcomes import fail, forget, record_metrics, succeed
from runkon_server.core.rows import completion_of, new_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runkon_server.core.model import Passes
    from runkon_server.core.plan import CallNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

_GIVEN_UP = "given up, because the run was cancelled"


def enter(tx: Scratch, node: CallNode, at: str, passes: Passes) -> None:
    """Begin a call, or take it from its rows."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows)
    elif tx.may_start():
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
    if fact.outcome is Outcome.COMPLETED:
        done = _complete(tx, op.step_id, op.row, fact)
        tx.state.leaf = None
        succeed(tx, op.node.key, op.place.passes, done)
    else:
        columns = tasks.failed_columns(fact)
        _end_row(tx, "step_failed", op.step_id, op.row, columns)
        _after_failure(tx, op, columns, jitter=fact.jitter)
    return True


def _complete(tx: Scratch, step_id: str, row: dict[str, Any], fact: Reported) -> Completion:
    metrics = parse_metrics(fact.metadata) if fact.metadata else None
    _end_row(tx, "step_completed", step_id, row, tasks.completed_columns(fact, metrics))
    record_metrics(tx, metrics)
    return Completion(fact.context or "", fact.markers, fact.structured_output, fact.output_file)


def _end_row(
    tx: Scratch, kind: str, step_id: str, row: dict[str, Any], columns: dict[str, Any]
) -> None:
    tx.update_step(step_id, columns)
    tx.step_event(kind, step_id, {**row, **columns})


def deadline(tx: Scratch, op: CallOp, timer_id: str) -> bool:
    """A timer went off; whether it was the deadline of this attempt."""
    if op.is_paused or op.node.timeout_s is None or timer_id != ids.deadline_timer(op.step_id):
        return False
    task = _task(op)
    if not tx.is_stopping():
        tasks.ask_to_stop(tx, task, tasks.TIMEOUT)
    tasks.abandon(tx, task, tasks.TIMEOUT)
    error = f"timed out after {op.node.timeout_s:g} s"
    columns = {"status": "timed_out", "step_error": error, "retryable": True}
    _end_row(tx, "step_timed_out", op.step_id, op.row, columns)
    _after_failure(tx, op, columns)
    return True


def pause_over(tx: Scratch, op: CallOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause before the next attempt."""
    if not op.is_paused or timer_id != ids.retry_timer(_task(op)):
        return False
    _retry(tx, op, op.error)
    return True


def _retry(tx: Scratch, op: CallOp, error: str | None) -> None:
    _begin(tx, op.node, op.place, attempt=op.attempt + 1, retry_error=error)


def _after_failure(
    tx: Scratch, op: CallOp, columns: dict[str, Any], *, jitter: float = 0.5
) -> None:
    """What follows a failed attempt: another one, the on_fail rule, or the failure of the call.

    Args:
        tx: the decision.
        op: the attempt; its row has ended already.
        columns: those that ended the row.
        jitter: 0…1.
    """
    node, error = op.node, columns["step_error"]
    if op.attempt < node.retries and columns["retryable"] and not tx.is_stopping():
        _announce_retry(tx, op, columns, jitter)
    elif node.tolerated:
        tx.state.leaf = None
        forget(tx, node.key)
    elif node.on_fail is not None:
        _call_on_fail(tx, op, node.on_fail, error)
    else:
        _fail(tx, node, _failure(op, error), op.step_id)


def _announce_retry(tx: Scratch, op: CallOp, columns: dict[str, Any], jitter: float) -> None:
    attempt, error = op.attempt, columns["step_error"]
    delay_s = tasks.retry_delay_s(op.node, attempt, jitter)
    tx.step_event(
        "step_retrying",
        op.step_id,
        {**op.row, **columns},
        attempt=attempt + 1,
        delay_s=delay_s or 0.0,
    )
    if delay_s is None:
        tx.may_start()  # refuses in a restore: the next attempt's row would be there
        _retry(tx, op, error)
        return
    tx.order(
        SetTimer(
            timer_id=ids.retry_timer(_task(op)),
            kind="retry",
            delay_s=delay_s,
            step_id=op.step_id,
            attempt=attempt,
        )
    )
    tx.state.leaf = op._replace(is_paused=True, error=error)


def _failure(op: CallOp, error: str) -> str:
    attempts = op.attempt + 1
    times = "" if attempts == 1 else f" after {attempts} attempts"
    return f"step `{op.node.name}` failed{times}: {error}"


def _fail(tx: Scratch, node: CallNode, failure: str, step_id: str) -> None:
    tx.state.leaf = None
    forget(tx, node.key)
    fail(tx, failure, (step_id,))


def _call_on_fail(tx: Scratch, op: CallOp, agent: CallNode, error: str) -> None:
    at = ids.on_fail_at(op.place.at)
    failure = _failure(op, error)
    rows = tx.take(at)
    if rows is not None:
        _adopt_on_fail(tx, op, agent, failure, rows[0])
    elif not tx.may_start():
        _fail(tx, op.node, failure, op.step_id)
    else:
        state = tx.state
        epoch = state.setup.epoch
        step_id = ids.step_id(state.setup.run_id, at, epoch, 0)
        place = Place(at, op.place.passes, state.position)
        row = new_row(agent.columns, place, epoch, 0, "running")
        state.position += 1
        tx.insert_step(step_id, row)
        tx.step_event("step_started", step_id, row)
        variables = tasks.on_fail_variables(state, op.node, error)
        tasks.dispatch(tx, agent, step_id, row, variables=variables)
        state.leaf = OnFailOp(op.node, op.step_id, failure, step_id, row)


def _adopt_on_fail(
    tx: Scratch, op: CallOp, agent: CallNode, failure: str, record: StepRecord
) -> None:
    if record.status == "running":
        place = Place(record.at, op.place.passes, record.position)
        row = new_row(agent.columns, place, record.epoch, 0, "running")
        tx.state.leaf = OnFailOp(op.node, op.step_id, failure, record.id, row)
        return
    if record.status == "completed":
        succeed(tx, agent.key, op.place.passes, completion_of(record))
    _fail(tx, op.node, failure, op.step_id)


def report_on_fail(tx: Scratch, op: OnFailOp, fact: Reported) -> bool:
    """An on_fail agent ended; whether it was this one. The call has failed in any case."""
    if fact.task_id != ids.task_id(op.step_id, 0):
        return False
    agent = op.call.on_fail
    assert agent is not None
    if fact.outcome is Outcome.COMPLETED:
        done = _complete(tx, op.step_id, op.row, fact)
        succeed(tx, agent.key, op.row["iterations"], done)
    else:
        _end_row(tx, "step_failed", op.step_id, op.row, tasks.failed_columns(fact))
    _fail(tx, op.call, op.failure, op.failed_step_id)
    return True


def stop(tx: Scratch, op: CallOp) -> None:
    """A cancel: end a pause, ask a running attempt to stop."""
    if not op.is_paused:
        tasks.ask_to_stop(tx, _task(op), tasks.RUN_CANCELLED)
        return
    tx.order(ClearTimer(timer_id=ids.retry_timer(_task(op))))
    _after_failure(tx, op, {"step_error": op.error, "retryable": True})


def stop_on_fail(tx: Scratch, op: OnFailOp) -> None:
    """A cancel: ask the agent to stop."""
    tasks.ask_to_stop(tx, ids.task_id(op.step_id, 0), tasks.RUN_CANCELLED)


def give_up(tx: Scratch, op: CallOp) -> None:
    """The run no longer waits for a running attempt; a pause has ended with the cancel."""
    task = _task(op)
    tasks.abandon(tx, task, tasks.RUN_CANCELLED)
    report(tx, op, tasks.given_up(task, _GIVEN_UP))


def give_up_on_fail(tx: Scratch, op: OnFailOp) -> None:
    """The run no longer waits for the agent."""
    task = ids.task_id(op.step_id, 0)
    tasks.abandon(tx, task, tasks.RUN_CANCELLED)
    report_on_fail(tx, op, tasks.given_up(task, _GIVEN_UP))


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

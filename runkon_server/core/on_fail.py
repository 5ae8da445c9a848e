"""The agent that runs after the last attempt at a step; the step has failed in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runkon_server.core import ids, tasks
from runkon_server.core.facts import Outcome
from runkon_server.core.model import OnFailOp, Place
from runkon_server.core.outcomes import fail, forget, succeed
from runkon_server.core.rows import completion_of, new_row

if TYPE_CHECKING:
    from runkon_server.core.facts import Reported
    from runkon_server.core.model import RepeatableOp
    from runkon_server.core.plan import CallNode, Repeatable
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch


def begin(tx: Scratch, op: RepeatableOp, agent: CallNode, error: str) -> None:
    """Start the agent, or take it from its row."""
    at = ids.on_fail_at(op.place.at)
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, op, agent, error, rows[0])
    elif not tx.may_start():
        fail_step(tx, op.node, failure(op, error), op.step_id)
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
        state.leaf = OnFailOp(op.node, op.step_id, failure(op, error), step_id, row)


def failure(op: RepeatableOp, error: str) -> str:
    """Why the step counts as failed, for people."""
    attempts = op.attempt + 1
    times = "" if attempts == 1 else f" after {attempts} attempts"
    return f"step `{op.node.name}` failed{times}: {error}"


def fail_step(tx: Scratch, node: Repeatable, why: str, step_id: str) -> None:
    """The step has failed, and with it the section."""
    tx.state.leaf = None
    forget(tx, node.key)
    fail(tx, why, (step_id,))


def _adopt(tx: Scratch, op: RepeatableOp, agent: CallNode, error: str, record: StepRecord) -> None:
    why = failure(op, error)
    if record.status == "running":
        place = Place(record.at, op.place.passes, record.position)
        row = new_row(agent.columns, place, record.epoch, 0, "running")
        tx.state.leaf = OnFailOp(op.node, op.step_id, why, record.id, row)
        return
    if record.status == "completed":
        succeed(tx, agent.key, op.place.passes, completion_of(record))
    fail_step(tx, op.node, why, op.step_id)


def report(tx: Scratch, op: OnFailOp, fact: Reported) -> bool:
    """An on_fail agent ended; whether it was this one."""
    if fact.task_id != ids.task_id(op.step_id, 0):
        return False
    agent = op.node.on_fail
    assert agent is not None
    fact = tasks.interpreted(agent, fact)
    if fact.outcome is Outcome.COMPLETED:
        done = tasks.complete(tx, op.step_id, op.row, fact)
        succeed(tx, agent.key, op.row["iterations"], done)
    else:
        tasks.end_row(tx, "step_failed", op.step_id, op.row, tasks.failed_columns(fact))
    fail_step(tx, op.node, op.failure, op.failed_step_id)
    return True


def stop(tx: Scratch, op: OnFailOp) -> None:
    """A cancel: ask the agent to stop."""
    tasks.ask_to_stop(tx, ids.task_id(op.step_id, 0), tasks.RUN_CANCELLED)


def give_up(tx: Scratch, op: OnFailOp) -> None:
    """The run no longer waits for the agent."""
    task = ids.task_id(op.step_id, 0)
    tasks.abandon(tx, task, tasks.RUN_CANCELLED)
    report(tx, op, tasks.given_up(task))

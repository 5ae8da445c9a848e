"""Parallel blocks: branches that run at the same time on one row each, and what they amount to.

Results apply in declaration order when the last branch has ended, so reports may come in any
order. Until then they lie in the branches, which are rebuilt from the rows alone: a branch that
waits for its next attempt is a running row with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from runkon_server.core import ids, tasks
from runkon_server.core.decision import ClearTimer, SetTimer
from runkon_server.core.facts import Outcome
from runkon_server.core.model import Branch, ParallelOp, Place
from runkon_server.core.outcomes import abort, fail, forget, set_markers, succeed
from runkon_server.core.rows import CANCELLED_CODE, completion_of, new_row
from runkon_server.core.variables import task_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from runkon_server.core.facts import Reported
    from runkon_server.core.model import BranchState, Passes, Setup
    from runkon_server.core.plan import CallNode, ParallelNode
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

_AT_WIDTH = 5
"""Characters that a branch's number adds to `at`."""


class Tally(NamedTuple):
    """How far a block is."""

    open: int
    good: int
    """Completed and skipped branches."""
    failed: int


def tally(op: ParallelOp) -> Tally:
    """Count the branches."""
    is_open = good = failed = 0
    for branch in op.branches:
        if branch.state in ("running", "paused"):
            is_open += 1
        elif branch.state == "failed":
            failed += 1
        else:
            good += 1
    return Tally(is_open, good, failed)


def is_doomed(op: ParallelOp) -> bool:
    """Whether the block can no longer succeed and has said that it stops then."""
    node = op.node
    return node.fail_fast and tally(op).failed > len(node.branches) - node.min_success


def enter(tx: Scratch, node: ParallelNode, at: str, passes: Passes) -> None:
    """Begin a block, or take it from its rows."""
    if _is_known(tx, node, at):
        _adopt(tx, node, at, passes)
    elif tx.may_start():
        for branch in node.branches:
            if branch.output_schema is not None and branch.schema is None:
                abort(tx, tasks.no_schema(branch))
                return
        _begin(tx, node, at, passes)


def _is_known(tx: Scratch, node: ParallelNode, at: str) -> bool:
    """Whether some branch has a row; only a resume may leave a block with rows for some."""
    if tx.is_known(ids.child_at(at, 0)):
        return True
    has_memo = tx.state.memo is not None
    return has_memo and any(
        tx.is_known(ids.child_at(at, number)) for number in range(1, len(node.branches))
    )


def _begin(tx: Scratch, node: ParallelNode, at: str, passes: Passes) -> None:
    state = tx.state
    branches = tuple(_new_branch(tx, call) for call in node.branches)
    op = ParallelOp(node, Place(at, passes, state.position), branches)
    _start(tx, op, range(len(branches)))
    _settle(tx, op)
    state.starts += _is_awaited(op)


def _start(tx: Scratch, op: ParallelOp, numbers: Sequence[int]) -> None:
    """Insert the rows of these branches, in order, then hand out those that are wanted."""
    tx.state.position = op.place.position + numbers[-1] + 1
    for number in numbers:
        _insert(tx, op, number)
    variables = task_variables(tx.state)
    for number in numbers:
        if op.branches[number].state == "running":
            _dispatch(tx, op, number, variables=variables)


def _new_branch(tx: Scratch, call: CallNode) -> Branch:
    return Branch("running" if _is_wanted(tx, call) else "skipped")


def _is_wanted(tx: Scratch, node: CallNode) -> bool:
    condition = node.condition
    return condition is None or condition.marker in tx.state.results.get(condition.step, ())


def _is_awaited(op: ParallelOp) -> bool:
    return any(branch.state != "skipped" for branch in op.branches)


def _insert(tx: Scratch, op: ParallelOp, number: int) -> None:
    step_id, row = _row(tx.state.setup, op, number)
    tx.insert_step(step_id, row)
    kind = "step_started" if row["status"] == "running" else "step_skipped"
    tx.step_event(kind, step_id, row)


def _row(setup: Setup, op: ParallelOp, number: int) -> tuple[str, dict[str, Any]]:
    """Id and columns of a branch's row, without those that its end adds."""
    node, branch = op.node.branches[number], op.branches[number]
    at = ids.child_at(op.place.at, number)
    status = "skipped" if branch.state == "skipped" else "running"
    place = Place(at, op.place.passes, op.place.position + number)
    row = new_row(node.columns, place, setup.epoch, branch.attempt, status)
    row["parallel_group_id"] = ids.group_id(setup.run_id, op.place.at, setup.epoch)
    if node.condition is not None:
        expression = f"{node.condition.step}.{node.condition.marker}"
        row["condition_expr"] = expression
        row["condition_met"] = branch.state != "skipped"
        if branch.state == "skipped":
            row["result_text"] = f"skipped: `{expression}` is not set"
    return ids.step_id(setup.run_id, at, setup.epoch, 0), row


def _dispatch(
    tx: Scratch,
    op: ParallelOp,
    number: int,
    *,
    retry_error: str | None = None,
    variables: dict[str, str] | None = None,
) -> None:
    step_id, row = _row(tx.state.setup, op, number)
    node = op.node.branches[number]
    tasks.dispatch(tx, node, step_id, row, retry_error=retry_error, variables=variables)


def _step_id(setup: Setup, op: ParallelOp, number: int) -> str:
    epoch = op.branches[number].earlier_epoch or setup.epoch
    return ids.step_id(setup.run_id, ids.child_at(op.place.at, number), epoch, 0)


def _task(setup: Setup, op: ParallelOp, number: int) -> str:
    step_id = ids.step_id(setup.run_id, ids.child_at(op.place.at, number), setup.epoch, 0)
    return ids.task_id(step_id, op.branches[number].attempt)


def _retry_timer(setup: Setup, op: ParallelOp, number: int) -> str:
    return ids.retry_timer(_task(setup, op, number))


def _number_in(setup: Setup, op: ParallelOp, identity: str) -> int | None:
    """The branch that an id seems to belong to; the caller compares the whole id."""
    start = len(setup.run_id) + 1 + len(op.place.at)
    digits = identity[start + 1 : start + _AT_WIDTH]
    number = int(digits) if digits.isascii() and digits.isdigit() else len(op.branches)
    return number if number < len(op.branches) else None


def report(tx: Scratch, op: ParallelOp, fact: Reported) -> bool:
    """An attempt ended; whether it was one of this block's."""
    setup = tx.state.setup
    number = _number_in(setup, op, fact.task_id)
    if number is None or op.branches[number].state != "running":
        return False
    if fact.task_id != _task(setup, op, number):
        return False
    fact = tasks.interpreted(op.node.branches[number], fact)
    if fact.outcome is Outcome.COMPLETED:
        op = _complete(tx, op, number, fact)
    else:
        op = _fail_attempt(tx, op, number, fact)
    _settle(tx, op)
    return True


def _complete(tx: Scratch, op: ParallelOp, number: int, fact: Reported) -> ParallelOp:
    done = tasks.complete(tx, *_row(tx.state.setup, op, number), fact)
    attempt = op.branches[number].attempt
    return _with(op, number, Branch("completed", attempt, done=done))


def _fail_attempt(tx: Scratch, op: ParallelOp, number: int, fact: Reported) -> ParallelOp:
    node, attempt = op.node.branches[number], op.branches[number].attempt
    columns = tasks.failed_columns(fact)
    is_last = attempt >= node.retries or not columns["retryable"]
    if is_last or tx.is_stopping() or is_doomed(op):
        return _fail_branch(tx, op, number, columns)
    op = _with(op, number, Branch("paused", attempt, columns["step_error"]))
    step_id, row = _row(tx.state.setup, op, number)
    paused = {"step_error": columns["step_error"]}
    delay_s = tasks.retry_delay_s(node.retry_delay_s, attempt, fact.jitter)
    tx.step_event(
        "step_retrying", step_id, {**row, **paused}, attempt=attempt + 1, delay_s=delay_s or 0.0
    )
    if delay_s is None:
        return _retry(tx, op, number, {})
    tx.update_step(step_id, paused)
    tx.order(
        SetTimer(
            timer_id=_retry_timer(tx.state.setup, op, number),
            kind="retry",
            delay_s=delay_s,
            step_id=step_id,
            attempt=attempt,
        )
    )
    return op


def _retry(tx: Scratch, op: ParallelOp, number: int, changes: dict[str, Any]) -> ParallelOp:
    branch = op.branches[number]
    op = _with(op, number, Branch("running", branch.attempt + 1))
    step_id, row = _row(tx.state.setup, op, number)
    tx.update_step(step_id, {"retry_count": branch.attempt + 1, **changes})
    tx.step_event("step_started", step_id, row)
    _dispatch(tx, op, number, retry_error=branch.error)
    return op


def _fail_branch(tx: Scratch, op: ParallelOp, number: int, columns: dict[str, Any]) -> ParallelOp:
    was_doomed = is_doomed(op)
    _end(tx, op, number, "step_failed", columns)
    branch = Branch(
        "failed",
        op.branches[number].attempt,
        columns["step_error"],
        was_stopped=columns.get("error_code") == CANCELLED_CODE,
    )
    op = _with(op, number, branch)
    if is_doomed(op) and not was_doomed and not tx.is_stopping():
        op = _stop_branches(tx, op, tasks.FAIL_FAST)
    return op


def _end(tx: Scratch, op: ParallelOp, number: int, kind: str, columns: dict[str, Any]) -> None:
    tasks.end_row(tx, kind, *_row(tx.state.setup, op, number), columns)


def _with(op: ParallelOp, number: int, branch: Branch) -> ParallelOp:
    branches = (*op.branches[:number], branch, *op.branches[number + 1 :])
    return op._replace(branches=branches)


def _in_state(op: ParallelOp, state: BranchState) -> Iterator[int]:
    return (number for number, branch in enumerate(op.branches) if branch.state == state)


def pause_over(tx: Scratch, op: ParallelOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause of one of this block's branches."""
    setup = tx.state.setup
    number = _number_in(setup, op, timer_id)
    if number is None or op.branches[number].state != "paused":
        return False
    if timer_id != _retry_timer(setup, op, number):
        return False
    tx.state.leaf = _retry(tx, op, number, {"step_error": tasks.NO_ERROR})
    return True


def stop(tx: Scratch, op: ParallelOp) -> None:
    """A cancel: end the pauses, ask the running branches to stop."""
    reason = None if is_doomed(op) else tasks.RUN_CANCELLED
    _settle(tx, _stop_branches(tx, op, reason))


def _stop_branches(tx: Scratch, op: ParallelOp, reason: str | None) -> ParallelOp:
    """Ask what runs to stop (None: it has been asked), and let no other attempt follow."""
    for number in _in_state(op, "running"):
        if reason is not None:
            tasks.ask_to_stop(tx, _task(tx.state.setup, op, number), reason)
    for number in tuple(_in_state(op, "paused")):
        branch = op.branches[number]
        tx.order(ClearTimer(timer_id=_retry_timer(tx.state.setup, op, number)))
        columns = {"status": "failed", "step_error": branch.error, "retryable": True}
        _end(tx, op, number, "step_failed", columns)
        op = _with(op, number, branch._replace(state="failed"))
    return op


def give_up(tx: Scratch, op: ParallelOp) -> None:
    """The run no longer waits for any branch."""
    for number in tuple(_in_state(op, "running")):
        task = _task(tx.state.setup, op, number)
        tasks.abandon(tx, task, tasks.RUN_CANCELLED)
        op = _fail_branch(tx, op, number, tasks.failed_columns(tasks.given_up(task)))
    _settle(tx, op)


def _settle(tx: Scratch, op: ParallelOp) -> None:
    """Go on waiting, or apply the results if every branch has ended."""
    counts = tally(op)
    if counts.open:
        tx.state.leaf = op
        return
    tx.state.leaf = None
    node = op.node
    merged: set[str] = set()
    for call, branch in zip(node.branches, op.branches, strict=True):
        if branch.done is not None:
            succeed(tx, call.key, op.place.passes, branch.done)
            merged.update(branch.done.markers)
        elif branch.state == "failed":
            forget(tx, call.key)
    if node.name is not None and node.name in tx.state.setup.plan.watched:
        set_markers(tx, node.name, frozenset(merged))
    if counts.good < node.min_success:
        culprits = [_step_id(tx.state.setup, op, number) for number in _in_state(op, "failed")]
        fail(tx, _failure(op, counts), culprits)


def _failure(op: ParallelOp, counts: Tally) -> str:
    node = op.node
    number = min(_in_state(op, "failed"), key=lambda n: op.branches[n].was_stopped)
    which = "" if node.name is None else f" `{node.name}`"
    return (
        f"parallel block{which}: {counts.good} of {len(node.branches)} calls succeeded, "
        f"{node.min_success} needed; `{node.branches[number].name}` failed: "
        f"{op.branches[number].error}"
    )


def _adopt(tx: Scratch, node: ParallelNode, at: str, passes: Passes) -> None:
    """Take a block from its rows; branches that a resume repeats have none, and start."""
    epoch = tx.state.setup.epoch
    found = [tx.take(ids.child_at(at, number)) for number in range(len(node.branches))]
    missing = [number for number, records in enumerate(found) if records is None]
    if missing and not tx.may_start():
        return
    position = tx.state.position if missing else _position(found, epoch)
    branches = tuple(
        _new_branch(tx, node.branches[number]) if records is None else _branch_of(records[0], epoch)
        for number, records in enumerate(found)
    )
    op = ParallelOp(node, Place(at, passes, position), branches)
    if missing:
        _start(tx, op, missing)
    tx.state.starts += _is_awaited(op)
    _settle(tx, op)


def _position(found: list[Sequence[StepRecord] | None], epoch: int) -> int:
    """That of the first branch, by the rows of this epoch if there are any."""
    records = [(number, each[0]) for number, each in enumerate(found) if each is not None]
    own = [(number, record) for number, record in records if record.epoch == epoch] or records
    number, record = own[-1]
    return record.position - number


def _branch_of(record: StepRecord, epoch: int) -> Branch:
    attempt = record.retry_count
    earlier = None if record.epoch == epoch else record.epoch
    match record.status:
        case "skipped":
            return Branch("skipped")
        case "completed":
            return Branch("completed", attempt, done=completion_of(record))
        case "running" if not record.step_error:
            return Branch("running", attempt)
        case "running":
            return Branch("paused", attempt, record.step_error)
        case _:
            was_stopped = record.error_code == CANCELLED_CODE
            return Branch(
                "failed",
                attempt,
                record.step_error,
                was_stopped=was_stopped,
                earlier_epoch=earlier,
            )

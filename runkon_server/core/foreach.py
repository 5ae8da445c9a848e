"""foreach: a worker collects the items, then a child run is started for each of them.

One row for the step and one per item, frozen when they have been collected. The lowest item that
is ready starts next. All that is needed to go on is in these rows: the state of an item is one
byte, and counters are counts of bytes, so that 10,000 items cost little more than ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.core import ids, tasks
from runkon_server.core.aggregate import aggregate, sentence
from runkon_server.core.budgets import BUDGET_EXCEEDED
from runkon_server.core.children import RESUME_REFUSED
from runkon_server.core.decision import Dispatch, ItemsWork, ItemWrite
from runkon_server.core.facts import Item, Outcome
from runkon_server.core.fan import CycleError, Fan, TangleError, collect, fan_of
from runkon_server.core.items import (
    BLOCKED,
    CODES,
    COMPLETED,
    ENDED,
    FAILED,
    NAMES,
    READY,
    counters,
    counts_of,
    end_item,
    is_free,
    is_halted,
    shown_gate,
    start_child,
    start_ready,
    stop_children,
    tell_of_gate,
    without_child,
)
from runkon_server.core.model import Completion, ForEachOp, Place
from runkon_server.core.outcomes import (
    abort,
    fail,
    forget,
    leave_results,
    record_metrics,
    succeed,
)
from runkon_server.core.persistent import Vector
from runkon_server.core.rows import CANCELLED_CODE, completion_of, new_row
from runkon_server.core.variables import task_variables, text_variables
from runkon_server.dsl.ast import OnChildFail, OnCycle
from runkon_server.dsl.substitute import ExpansionTooLargeError, Unresolved, substitute

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runkon_server.core.facts import ChildBlocked, ChildEnded, ItemsCollected, Reported
    from runkon_server.core.model import Carried, Passes
    from runkon_server.core.plan import ForEachNode
    from runkon_server.core.records import ItemRecord, StepRecord
    from runkon_server.core.scratch import Scratch

ITEMS_MAX: Final = 10_000
STALLED: Final = "foreach_stalled"
"""The marker of a step that ended although nothing will ever set some of its items free."""
_OVER_BUDGET: Final = "a child run exceeded a budget of the whole run, see the items"
_GIVEN_UP: Final = "given up, because the run was cancelled"


def enter(tx: Scratch, node: ForEachNode, at: str, passes: Passes) -> None:
    """Begin a foreach, or take it from its rows."""
    rows = tx.take(at)
    if rows is not None:
        _adopt(tx, node, at, passes, rows[-1])
    elif tx.may_start():
        _begin(tx, node, at, passes)


def _begin(tx: Scratch, node: ForEachNode, at: str, passes: Passes) -> None:
    state = tx.state
    setup = state.setup
    step_id = ids.step_id(setup.run_id, at, setup.epoch, 0)
    place = Place(at, passes, state.position)
    state.position += 1
    state.starts += 1
    row = new_row(node.columns, place, setup.epoch, 0, "running")
    tx.insert_step(step_id, row)
    tx.step_event("step_started", step_id, row)
    op = ForEachOp(node, place, step_id, row)
    carried = tx.carried(at)
    if carried is not None and carried.record.fan_out_total is not None:
        _go_on(tx, op, _carry(tx, op, carried))
    else:
        _ask_for_items(tx, op)


def _ask_for_items(tx: Scratch, op: ForEachOp) -> None:
    each, row, setup = op.node.each, op.row, tx.state.setup
    variables = task_variables(tx.state)
    try:
        values = text_variables(tx.state)
        scope = None if each.scope is None else _filled(each.scope, values)
        wanted = _filled(each.filter, values)
    except ExpansionTooLargeError as error:
        _end(tx, op, {"status": "failed", "step_error": f"scope and filter: {error}"})
        return
    tx.state.leaf = op
    tx.order(
        Dispatch(
            task_id=_task(op),
            step_id=op.step_id,
            step_name=op.node.name,
            action=each.over,
            iteration=row["iteration"],
            iterations=row["iterations"],
            attempt=0,
            retries_remaining=0,
            idempotency_key=ids.idempotency_key(setup.run_id, row["at"]),
            inputs=variables,
            prior_contexts=None,
            dry_run=setup.dry_run,
            kind="items",
            work=ItemsWork(
                provider=each.over,
                scope=scope,
                filter=wanted,
                ordered=each.ordered,
                items_max=ITEMS_MAX,
            ),
        )
    )


def _filled(pairs: Sequence[tuple[str, str]], variables: dict[str, str]) -> dict[str, str]:
    return {name: substitute(text, variables, unresolved=Unresolved.KEEP) for name, text in pairs}


def _task(op: ForEachOp) -> str:
    return ids.task_id(op.step_id, 0)


def collected(tx: Scratch, op: ForEachOp, fact: ItemsCollected) -> bool:
    """A provider found these; whether it was asked."""
    if op.fan is not None or fact.task_id != _task(op):
        return False
    each = op.node.each
    try:
        fan, warning = collect(
            fact.items,
            fact.dependencies if each.ordered else (),
            breaks_cycles=each.on_cycle is OnCycle.WARN,
        )
    except CycleError as circle:
        _fail_collection(tx, op, f"items wait for one another in a circle: {circle}")
        return True
    except TangleError as tangle:
        _fail_collection(tx, op, str(tangle))
        return True
    if len(fan.items) > ITEMS_MAX:
        _fail_collection(tx, op, f"{len(fan.items)} items are more than {ITEMS_MAX}")
        return True
    statuses = b"".join(BLOCKED if waits_for else READY for waits_for in fan.blockers)
    op = op._replace(fan=fan, statuses=statuses, warning=warning, outputs=_no_outputs(fan))
    _tell_collected(tx, op, _new_items(op))
    _go_on(tx, op, op)
    return True


def report(tx: Scratch, op: ForEachOp, fact: Reported) -> bool:
    """The collection of items failed; whether that was asked."""
    if op.fan is not None or fact.task_id != _task(op):
        return False
    if fact.outcome is Outcome.COMPLETED:
        _fail_collection(tx, op, f"provider `{op.node.each.over}` reported no items, but a result")
    else:
        _end(tx, op, tasks.failed_columns(fact))
    return True


def _fail_collection(tx: Scratch, op: ForEachOp, error: str) -> None:
    _end(tx, op, {"status": "failed", "step_error": error})


def _no_outputs(fan: Fan) -> Vector[str | None]:
    return Vector([None] * len(fan.items))


def _new_items(op: ForEachOp) -> list[dict[str, Any]]:
    assert op.fan is not None
    return [_item_columns(op.fan, ordinal, "pending") for ordinal in range(len(op.fan.items))]


def _item_columns(fan: Fan, ordinal: int, status: str) -> dict[str, Any]:
    item = fan.items[ordinal]
    return {
        "ordinal": ordinal,
        "item_type": item.item_type,
        "item_id": item.item_id,
        "item_ref": item.item_ref,
        "context": dict(item.context),
        "blockers": fan.blockers[ordinal],
        "status": status,
    }


def _tell_collected(tx: Scratch, op: ForEachOp, rows: list[dict[str, Any]]) -> None:
    """Write the items of a step, and what its row says of them."""
    columns: dict[str, Any] = counters(op)
    if op.warning is not None:
        columns["result_text"] = op.warning
    tx.update_step(op.step_id, columns)
    for row in rows:
        item_row = ids.item_id(op.step_id, row["ordinal"])
        tx.write_item(ItemWrite(item_row, op.step_id, insert=True, columns=row))
    tx.step_event(
        "fan_out_items_collected", op.step_id, {**op.row, **columns}, count=len(op.statuses)
    )


def _carry(tx: Scratch, op: ForEachOp, carried: Carried) -> ForEachOp:
    """Take over the items of the epoch before: completed ones stay so, failed children go on."""
    fan = _fan_of_rows(carried.items)
    rows, outputs, resumable = [], _no_outputs(fan), {}
    for ordinal, item in enumerate(carried.items):
        is_done = item.status == "completed"
        row = _item_columns(fan, ordinal, "completed" if is_done else "pending")
        if is_done or item.child_end == "failed":
            row["child_run_id"], row["child_epoch"] = item.child_run_id, item.child_epoch
            row["child_end"] = item.child_end
        if item.structured_output is not None and is_done:
            row["structured_output"] = item.structured_output
            outputs = outputs.replaced(ordinal, item.structured_output)
        if not is_done and item.child_end == "failed":
            assert item.child_run_id is not None
            resumable[ordinal] = (item.child_run_id, item.child_epoch or 1)
        rows.append(row)
    op = op._replace(
        fan=fan,
        statuses=_statuses(fan, [row["status"] for row in rows]),
        outputs=outputs,
        resumable=resumable,
    )
    _tell_collected(tx, op, rows)
    return op


def _fan_of_rows(items: Sequence[ItemRecord]) -> Fan:
    return fan_of(
        [Item(each.item_type, each.item_id, each.item_ref, each.context) for each in items],
        [tuple(each.blockers) for each in items],
    )


def _statuses(fan: Fan, statuses: Sequence[str]) -> bytes:
    """One byte per item; those that are pending are ready once what they wait for has ended."""
    known = b"".join(CODES.get(status, BLOCKED) for status in statuses)
    return b"".join(
        READY
        if known[n : n + 1] == BLOCKED and is_free(known, fan.blockers[n])
        else known[n : n + 1]
        for n in range(len(known))
    )


def child_ended(tx: Scratch, op: ForEachOp, fact: ChildEnded) -> bool:
    """A child run ended; whether it is awaited."""
    running = op.running.get(fact.child_run_id)
    if running is None or running[1] != fact.child_epoch:
        return False
    ordinal, _ = running
    if fact.status == "completed":
        output = None if fact.results is None else fact.results.structured_output
        columns: dict[str, Any] = {"child_end": fact.status}
        if output is not None:
            columns["structured_output"] = output
        record_metrics(tx, fact.metrics or None)
        _go_on(tx, op, end_item(tx, op, ordinal, COMPLETED, columns, output=output))
        return True
    if _may_start_anew(tx, op, fact):
        before, op = op, without_child(tx, op, ordinal)
        _go_on(tx, before, start_child(tx, op, ordinal, text_variables(tx.state)))
        return True
    before = op
    error = fact.error or f"child run {fact.status}"
    if fact.error_code == BUDGET_EXCEEDED and not op.is_over_budget:
        if not is_halted(op) and not tx.is_stopping():
            stop_children(tx, _others(op, ordinal), _OVER_BUDGET)
        tx.update_step(op.step_id, {"retryable": False})  # which is how a restore knows
        op = op._replace(is_over_budget=True)
    columns = {"child_end": fact.status, "error": error}
    _go_on(tx, before, end_item(tx, op, ordinal, FAILED, columns))
    return True


def _others(op: ForEachOp, ordinal: int) -> ForEachOp:
    """The foreach as if the child of an item did not run."""
    running = {child: each for child, each in op.running.items() if each[0] != ordinal}
    return op._replace(running=running)


def _may_start_anew(tx: Scratch, op: ForEachOp, fact: ChildEnded) -> bool:
    """Whether a child that could not be resumed is replaced by a new one."""
    was_resumed = fact.error_code == RESUME_REFUSED and fact.child_epoch > 1
    return was_resumed and not tx.is_stopping() and not is_halted(op)


def child_blocked(tx: Scratch, op: ForEachOp, fact: ChildBlocked) -> bool:
    """A child came to a gate or left one; whether that is news of a child that is awaited."""
    running = op.running.get(fact.child_run_id)
    known = op.blocked.get(fact.child_run_id)
    if running is None or running[1] != fact.child_epoch or known == fact.blocked_on:
        return False
    blocked = {child: gate for child, gate in op.blocked.items() if child != fact.child_run_id}
    if fact.blocked_on is not None:
        blocked[fact.child_run_id] = fact.blocked_on
    item_row = ids.item_id(op.step_id, running[0])
    columns = {"blocked_on": fact.blocked_on or {}}
    tx.write_item(ItemWrite(item_row, op.step_id, insert=False, columns=columns))
    tx.state.leaf = op._replace(blocked=blocked)
    tell_of_gate(tx, op, tx.state.leaf)
    return True


def _go_on(tx: Scratch, before: ForEachOp, op: ForEachOp) -> None:
    """Start what may start; with nothing running the step is over."""
    op = start_ready(tx, op)
    if op.running:
        tx.state.leaf = op
        tell_of_gate(tx, before, op)
        return
    tell_of_gate(tx, before, None)
    _end(tx, op, _end_columns(tx, op))


def _end_columns(tx: Scratch, op: ForEachOp) -> dict[str, Any]:
    """The columns in which the row of a step ends whose items have been collected."""
    assert op.fan is not None
    counts = counts_of(op)
    text = sentence(counts, op.node.each.over)
    columns: dict[str, Any] = {
        "status": "completed",
        "context_out": text,
        "result_text": text if op.warning is None else f"{text}; {op.warning}",
    }
    output = aggregate(
        (item, NAMES[code], output)
        for item, output, code in zip(op.fan.items, op.outputs, _codes(op), strict=True)
        if code in NAMES
    )
    if output is not None:
        columns["structured_output"] = output
    if tx.is_stopping():
        columns |= {"status": "failed", "step_error": "cancelled", "error_code": CANCELLED_CODE}
    elif op.is_over_budget:
        columns |= {
            "status": "failed", "step_error": _OVER_BUDGET, "error_code": BUDGET_EXCEEDED,
        }  # fmt: skip
    elif _has_failed(op):
        columns |= {
            "status": "failed", "step_error": f"{counts.failed} of {counts.total} items failed",
        }  # fmt: skip
    else:
        is_stalled = any(code not in ENDED for code in op.statuses)
        columns["markers_out"] = (STALLED,) if is_stalled else ()
    return columns


def _codes(op: ForEachOp) -> list[bytes]:
    return [op.statuses[n : n + 1] for n in range(len(op.statuses))]


def _has_failed(op: ForEachOp) -> bool:
    counts = counts_of(op)
    if op.node.each.on_child_fail is OnChildFail.CONTINUE:
        return counts.failed > 0 and counts.completed == 0
    return counts.failed > 0


def _end(tx: Scratch, op: ForEachOp, columns: dict[str, Any]) -> None:
    """The step is over: its row, its event, and what that means for the section."""
    shown = columns if op.fan is None else {**columns, **counters(op)}
    tx.update_step(op.step_id, columns)
    kind = "step_completed" if columns["status"] == "completed" else "step_failed"
    tx.step_event(kind, op.step_id, {**op.row, **shown})
    tx.state.leaf = None
    if columns["status"] == "completed":
        done = Completion(
            columns["context_out"], columns["markers_out"], columns.get("structured_output"), None
        )
        _succeed(tx, op.node, op.place.passes, done)
    else:
        is_final = op.fan is None or columns.get("error_code") == BUDGET_EXCEEDED
        _fail(tx, op.node, op.step_id, columns["step_error"], is_final=is_final)


def _succeed(tx: Scratch, node: ForEachNode, passes: Passes, done: Completion) -> None:
    """Conditions cannot spell the key `foreach:NAME`, so they find it by its bare name (IMP-19)."""
    leave_results(tx, node.each.name, done)
    succeed(tx, node.key, passes, done)


def _fail(tx: Scratch, node: ForEachNode, step_id: str, error: str, *, is_final: bool) -> None:
    """The section has failed; without items, or without a budget, it ends here."""
    forget(tx, node.key)
    forget(tx, node.each.name)
    end = abort if is_final else fail
    end(tx, f"step `{node.name}` failed: {error}", (step_id,))


def stop(tx: Scratch, op: ForEachOp) -> None:
    """A cancel: ask whatever works on the step to stop."""
    if op.fan is None:
        tasks.ask_to_stop(tx, _task(op), tasks.RUN_CANCELLED)
    elif not is_halted(op):
        stop_children(tx, op, tasks.RUN_CANCELLED)


def give_up(tx: Scratch, op: ForEachOp) -> None:
    """The run no longer waits for whatever works on the step."""
    if op.fan is None:
        tasks.abandon(tx, _task(op), tasks.RUN_CANCELLED)
        report(tx, op, tasks.given_up(_task(op)))
        return
    stop_children(tx, op, tasks.RUN_CANCELLED, force=True)
    columns = {"child_end": "cancelled", "error": _GIVEN_UP}  # which is how all of them will end
    for ordinal, _ in sorted(op.running.values()):
        op = end_item(tx, op, ordinal, FAILED, columns)
    _end(tx, op, _end_columns(tx, op))


def _adopt(tx: Scratch, node: ForEachNode, at: str, passes: Passes, record: StepRecord) -> None:
    tx.state.starts += 1
    if record.status == "completed":
        _succeed(tx, node, passes, completion_of(record))
        return
    if record.status == "failed":
        is_final = record.fan_out_total is None or record.error_code == BUDGET_EXCEEDED
        _fail(tx, node, record.id, record.step_error or "", is_final=is_final)
        return
    place = Place(at, passes, record.position)
    op = ForEachOp(node, place, record.id, new_row(node.columns, place, record.epoch, 0, "running"))
    if record.fan_out_total is not None:
        op = _adopted(tx, op, record)
        if shown_gate(op) is not None:
            tx.state.status = "waiting"  # unless the run turns out to be cancelled
    tx.state.leaf = op


def _adopted(tx: Scratch, op: ForEachOp, record: StepRecord) -> ForEachOp:
    """A foreach whose children run, from the rows of its items."""
    items = tx.items_of(record.id)
    fan = _fan_of_rows(items)
    return op._replace(
        fan=fan,
        statuses=_statuses(fan, [each.status for each in items]),
        running={
            each.child_run_id: (each.ordinal, each.child_epoch or 1)
            for each in items
            if each.status == "running" and each.child_run_id is not None
        },
        blocked={
            each.child_run_id: each.blocked_on
            for each in items
            if each.status == "running" and each.child_run_id is not None and each.blocked_on
        },
        outputs=Vector([each.structured_output for each in items]),
        resumable={
            each.ordinal: (each.child_run_id, each.child_epoch or 1)
            for each in items
            if each.status == "pending" and each.child_run_id is not None
        },
        warning=record.result_text,
        is_over_budget=record.retryable is False,
    )

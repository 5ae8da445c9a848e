"""The items of a foreach, one at a time: started, ended, skipped, set free."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core import ids
from runkon_server.core.decision import CancelChild, ItemWrite, ResumeChild, StartChild
from runkon_server.core.events import ERROR_CUT_BYTES
from runkon_server.core.model import FanCounts, ForEachOp
from runkon_server.core.variables import text_variables
from runkon_server.core.waiting import block, unblock
from runkon_server.dsl.ast import OnChildFail
from runkon_server.dsl.substitute import ExpansionTooLargeError, Unresolved, substitute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runkon_server.core.facts import Item
    from runkon_server.core.scratch import Scratch

READY: Final = b"p"
BLOCKED: Final = b"w"
RUNNING: Final = b"r"
COMPLETED: Final = b"c"
FAILED: Final = b"f"
SKIPPED: Final = b"s"
ENDED: Final = COMPLETED + FAILED + SKIPPED
NAMES: Final = {COMPLETED: "completed", FAILED: "failed", SKIPPED: "skipped"}
CODES: Final = {"running": RUNNING, "completed": COMPLETED, "failed": FAILED, "skipped": SKIPPED}
"""How a state is kept in `statuses`, by the status in the row; pending ones are two."""
_BLOCKER_FAILED: Final = "an item that it waits for failed"
_HALTED: Final = "another item failed, and on_child_fail is halt"


def is_halted(op: ForEachOp) -> bool:
    """Whether nothing more may start, so that what runs has been told to stop."""
    halts = op.node.each.on_child_fail is OnChildFail.HALT
    return op.is_over_budget or (halts and FAILED in op.statuses)


def counts_of(op: ForEachOp) -> FanCounts:
    """Items by how they ended."""
    count = op.statuses.count
    return FanCounts(len(op.statuses), count(COMPLETED), count(FAILED), count(SKIPPED))


def counters(op: ForEachOp) -> dict[str, int]:
    """The columns of the step's row that say so."""
    total, completed, failed, skipped = counts_of(op)
    return {
        "fan_out_total": total,
        "fan_out_completed": completed,
        "fan_out_failed": failed,
        "fan_out_skipped": skipped,
    }


def start_ready(tx: Scratch, op: ForEachOp) -> ForEachOp:
    """Start the lowest items that are ready, as many as may run at once."""
    slots = max(1, op.node.each.max_parallel) - len(op.running)
    if slots <= 0 or READY not in op.statuses or tx.is_stopping():
        return op
    variables = text_variables(tx.state)
    while slots > 0 and not is_halted(op):
        ordinal = op.statuses.find(READY)
        if ordinal < 0:
            break
        op = _start(tx, op, ordinal, variables)
        slots = max(1, op.node.each.max_parallel) - len(op.running)
    return op


def _start(tx: Scratch, op: ForEachOp, ordinal: int, variables: Mapping[str, str]) -> ForEachOp:
    """Resume the child of an item, if a resume of the parent left it one, or start a new one."""
    former = op.resumable.get(ordinal)
    if former is None:
        return start_child(tx, op, ordinal, variables)
    child, epoch = former[0], former[1] + 1
    tx.order(
        ResumeChild(
            child_run_id=child,
            child_epoch=epoch,
            step_id=op.step_id,
            step_name=op.node.name,
            workflow_name=op.node.each.workflow,
            ordinal=ordinal,
            item_id=ids.item_id(op.step_id, ordinal),
        )
    )
    resumable = {key: value for key, value in op.resumable.items() if key != ordinal}
    return _now_running(tx, op._replace(resumable=resumable), ordinal, child, epoch)


def start_child(
    tx: Scratch, op: ForEachOp, ordinal: int, variables: Mapping[str, str]
) -> ForEachOp:
    """Start a new child run for an item, which may have had another one before."""
    assert op.fan is not None
    item_row = ids.item_id(op.step_id, ordinal)
    setup = tx.state.setup
    try:
        inputs = _inputs(op, op.fan.items[ordinal], variables)
    except ExpansionTooLargeError as error:
        columns = {"error": f"inputs: {error}"}
        return end_item(tx, op, ordinal, FAILED, columns)
    child = ids.child_run_id(item_row)
    tx.order(
        StartChild(
            child_run_id=child,
            step_id=op.step_id,
            step_name=op.node.name,
            workflow_name=op.node.each.workflow,
            inputs=inputs,
            ordinal=ordinal,
            item_id=item_row,
            iteration=op.row["iteration"],
            depth=setup.depth + 1,
            root_run_id=setup.root_run_id,
        )
    )
    return _now_running(tx, op, ordinal, child, 1)


def _inputs(op: ForEachOp, item: Item, variables: Mapping[str, str]) -> dict[str, str]:
    """The foreach's inputs with the item's values filled in, and those values themselves."""
    own = {f"item.{name}": value for name, value in item.context.items()}
    own |= {"item.id": item.item_id, "item.ref": item.item_ref}
    values = {**variables, **own}
    filled = {
        name: substitute(text, values, unresolved=Unresolved.KEEP)
        for name, text in op.node.each.inputs
    }
    return filled | own


def _now_running(tx: Scratch, op: ForEachOp, ordinal: int, child: str, epoch: int) -> ForEachOp:
    columns = {"status": "running", "child_run_id": child, "child_epoch": epoch}
    item_row = ids.item_id(op.step_id, ordinal)
    tx.write_item(ItemWrite(item_row, op.step_id, insert=False, columns=columns))
    tx.event("fan_out_item_started", _payload(op, ordinal, columns))
    return op._replace(
        statuses=_with(op.statuses, ordinal, RUNNING),
        running={**op.running, child: (ordinal, epoch)},
    )


def end_item(
    tx: Scratch,
    op: ForEachOp,
    ordinal: int,
    status: bytes,
    columns: dict[str, Any],
    *,
    output: str | None = None,
) -> ForEachOp:
    """An item ended; what depends on it becomes ready, or is skipped, or everything halts.

    Args:
        tx: the decision.
        op: the foreach.
        ordinal: of the item.
        status: `COMPLETED` or `FAILED`.
        columns: those of the item's row that say more about its end.
        output: the structured output of its child.
    """
    was_halted = is_halted(op)
    op = _close(tx, without_child(tx, op, ordinal), ordinal, status, columns)
    if output is not None:
        op = op._replace(outputs=op.outputs.replaced(ordinal, output))
    if is_halted(op) and not was_halted and not tx.is_stopping():
        stop_children(tx, op, _HALTED)
    if status == FAILED and op.node.each.on_child_fail is OnChildFail.SKIP_DEPENDENTS:
        op = _skip_dependents(tx, op, ordinal)
    tx.update_step(op.step_id, counters(op))
    return _set_free(op, ordinal)


def without_child(tx: Scratch, op: ForEachOp, ordinal: int) -> ForEachOp:
    """The child of an item is awaited no more, and neither is its gate."""
    child = next((name for name, each in op.running.items() if each[0] == ordinal), None)
    running = {name: each for name, each in op.running.items() if name != child}
    if child not in op.blocked:
        return op._replace(running=running)
    item_row = ids.item_id(op.step_id, ordinal)
    tx.write_item(ItemWrite(item_row, op.step_id, insert=False, columns={"blocked_on": {}}))
    blocked = {name: gate for name, gate in op.blocked.items() if name != child}
    return op._replace(running=running, blocked=blocked)


def shown_gate(op: ForEachOp) -> dict[str, Any] | None:
    """The gate that the run waits for: that of the first child, if all wait; None: some work."""
    if len(op.blocked) < len(op.running) or not op.blocked:
        return None
    return op.blocked[min(op.blocked, key=lambda child: op.running[child][0])]


def tell_of_gate(tx: Scratch, before: ForEachOp, after: ForEachOp | None) -> None:
    """Say that the run begins or ceases to wait, or for which gate it waits now."""
    old, new = shown_gate(before), None if after is None else shown_gate(after)
    if new == old:
        return
    if new is None:
        unblock(tx)
    else:
        block(tx, new)


def in_order(op: ForEachOp) -> list[tuple[str, tuple[int, int]]]:
    """The children that run, each with ordinal and epoch; a dictionary's order is no part of it."""
    return sorted(op.running.items(), key=itemgetter(1))


def stop_children(tx: Scratch, op: ForEachOp, reason: str, *, force: bool = False) -> None:
    """Ask every child that runs to stop, in the order of the items."""
    for child, (_, epoch) in in_order(op):
        tx.order(CancelChild(child_run_id=child, child_epoch=epoch, reason=reason, force=force))


def _close(
    tx: Scratch, op: ForEachOp, ordinal: int, status: bytes, columns: dict[str, Any]
) -> ForEachOp:
    """Write the end of one item and tell of it."""
    columns = {"status": NAMES[status], **columns}
    item_row = ids.item_id(op.step_id, ordinal)
    tx.write_item(ItemWrite(item_row, op.step_id, insert=False, columns=columns))
    op = op._replace(statuses=_with(op.statuses, ordinal, status))
    payload = _payload(op, ordinal, columns)
    payload["counts"] = counts_of(op)._asdict()
    tx.event("fan_out_item_completed", payload)
    return op


def _skip_dependents(tx: Scratch, op: ForEachOp, ordinal: int) -> ForEachOp:
    """Skip whatever waits for an item, and what waits for that."""
    assert op.fan is not None
    dependents = op.fan.dependents
    todo = list(reversed(dependents[ordinal]))
    while todo:
        each = todo.pop()
        if op.statuses[each : each + 1] in (READY, BLOCKED):
            op = _close(tx, op, each, SKIPPED, {"error": _BLOCKER_FAILED})
            todo += reversed(dependents[each])
    return op


def _set_free(op: ForEachOp, ordinal: int) -> ForEachOp:
    """Items that waited only for this one become ready."""
    assert op.fan is not None
    for each in op.fan.dependents[ordinal]:
        if op.statuses[each : each + 1] == BLOCKED and is_free(op.statuses, op.fan.blockers[each]):
            op = op._replace(statuses=_with(op.statuses, each, READY))
    return op


def is_free(statuses: bytes, blockers: Iterable[int]) -> bool:
    """Whether all of these items have ended; the last ones are looked at first."""
    return all(statuses[each] in ENDED for each in reversed(tuple(blockers)))


def _with(statuses: bytes, ordinal: int, status: bytes) -> bytes:
    return statuses[:ordinal] + status + statuses[ordinal + 1 :]


def _payload(op: ForEachOp, ordinal: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    """How events show an item: its row, without its output, long errors cut."""
    assert op.fan is not None
    item = op.fan.items[ordinal]
    shown = {
        "id": ids.item_id(op.step_id, ordinal),
        "step_run_id": op.step_id,
        "ordinal": ordinal,
        "item_type": item.item_type,
        "item_id": item.item_id,
        "item_ref": item.item_ref,
        "context": dict(item.context),
        "blockers": list(op.fan.blockers[ordinal]),
        **{name: value for name, value in columns.items() if name != "structured_output"},
    }
    error = shown.get("error")
    if not isinstance(error, str) or len(error.encode()) <= ERROR_CUT_BYTES:
        return {"item": shown}
    shown["error"] = error.encode()[:ERROR_CUT_BYTES].decode(errors="ignore")
    return {"item": shown, "truncated": True}

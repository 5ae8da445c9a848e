"""Gates that workers look at, time and again, until one look decides.

The looks are tasks of kind `gate`. A look that decides is recorded as the gate's decision, like a
person's; the core hears of those that do not, and of what a look means no more once the gate is
decided otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.core import ids, tasks
from runkon_server.core.decision import ClearTimer, Dispatch, GateWork, SetTimer
from runkon_server.core.variables import task_variables

if TYPE_CHECKING:
    from typing import Any

    from runkon_server.core.model import GateOp
    from runkon_server.core.records import StepRecord
    from runkon_server.core.scratch import Scratch

PAUSE_S: Final = 30.0
"""Between two looks, unless the worker wants another pause."""
GATE_CLOSED: Final = "gate_closed"
_PENDING: Final = "pending"


def look(tx: Scratch, op: GateOp) -> GateOp:
    """Ask a worker to look at the gate."""
    op = op._replace(looks=op.looks + 1, is_paused=False)
    tx.update_step(op.step_id, {"blocked_on": {"polls": op.looks}})
    gate, row, setup = op.node.gate, op.row, tx.state.setup
    tx.order(
        Dispatch(
            task_id=task_of(op),
            step_id=op.step_id,
            step_name=gate.name,
            action=gate.gate_type,
            iteration=row["iteration"],
            iterations=row["iterations"],
            attempt=op.looks - 1,
            retries_remaining=0,
            idempotency_key=ids.idempotency_key(setup.run_id, row["at"]),
            inputs=task_variables(tx.state),
            prior_contexts=None,
            gate_feedback=tx.state.memory.gate_feedback,
            identity=gate.as_identity,
            kind="gate",
            work=GateWork(
                gate_id=op.step_id,
                name=gate.name,
                gate_type=gate.gate_type,
                prompt=gate.prompt,
                options=op.options,
                min_approvals=gate.min_approvals,
                approval_mode=gate.approval_mode.value,
            ),
        )
    )
    return op


def task_of(op: GateOp) -> str:
    """The task of the newest look."""
    return ids.task_id(op.step_id, op.looks - 1)


def is_looking(op: GateOp) -> bool:
    """Whether a look is under way."""
    return op.node.is_polled and not op.is_paused


def pause(tx: Scratch, op: GateOp, delay_s: float | None, note: str | None) -> None:
    """A look did not decide: look again later."""
    tx.update_step(op.step_id, {"blocked_on": {"polls": op.looks, "note": note or _PENDING}})
    tx.order(
        SetTimer(
            timer_id=ids.poll_timer(task_of(op)),
            kind="poll",
            delay_s=PAUSE_S if delay_s is None else delay_s,
            step_id=op.step_id,
            attempt=op.looks,
        )
    )
    tx.state.leaf = op._replace(is_paused=True)


def pause_over(tx: Scratch, op: GateOp, timer_id: str) -> bool:
    """A timer went off; whether it was the pause before the next look."""
    if not op.is_paused or timer_id != ids.poll_timer(task_of(op)):
        return False
    tx.state.leaf = look(tx, op)
    return True


def end(tx: Scratch, op: GateOp, decided_by_task: str | None, reason: str) -> None:
    """The gate is decided or given up: end its pause, or the look if that is not what decided."""
    if not op.node.is_polled:
        return
    task = task_of(op)
    if op.is_paused:
        tx.order(ClearTimer(timer_id=ids.poll_timer(task)))
    elif task != decided_by_task:
        tasks.ask_to_stop(tx, task, reason)
        tasks.abandon(tx, task, reason)


def adopted(op: GateOp, record: StepRecord) -> GateOp:
    """The gate with its looks as the row tells them."""
    looks: dict[str, Any] = record.blocked_on or {}
    return op._replace(looks=looks.get("polls", 0), is_paused="note" in looks)

"""Tasks as they go to workers: from the order of a decision, or from the row of a queued one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runkon_server.core.decision import GateWork, ItemsWork, ScriptWork
from runkon_server.runtime.commands import TaskLease
from runkon_server.store.locking import run_of

if TYPE_CHECKING:
    from datetime import datetime

    from runkon_server.runtime.changeset import Changeset, NewTask
    from runkon_server.runtime.programs import Program
    from runkon_server.store.claiming import ClaimedTask


def ordered_lease(
    changeset: Changeset, task: NewTask, *, fence: int, now: datetime, lease: timedelta
) -> TaskLease:
    """A task that was committed as leased just now."""
    order, program = task.order, changeset.program
    assert task.token is not None
    return TaskLease(
        task_id=order.task_id,
        token=task.token,
        namespace=changeset.namespace,
        run_id=run_of(order.task_id),
        workflow_name=changeset.workflow_name,
        step_id=order.step_id,
        step_name=order.step_name,
        action=order.action,
        iteration=order.iteration,
        iterations=order.iterations,
        attempt=order.attempt,
        delivery=0,
        retries_remaining=order.retries_remaining,
        idempotency_key=order.idempotency_key,
        fence=f"{fence}.0",
        inputs=dict(order.inputs),
        prior_contexts=order.prior_contexts,
        retry_error=order.retry_error,
        gate_feedback=order.gate_feedback,
        identity=order.identity,
        max_turns=order.max_turns,
        plugin_dirs=order.plugin_dirs,
        lease=lease,
        deadline_at=(None if order.timeout_s is None else now + timedelta(seconds=order.timeout_s)),
        dry_run=order.dry_run,
        kind=order.kind,
        work=order.work,
        snippets=program.snippets_for(order.snippets, order.inputs) if order.snippets else (),
        output_schema=program.schema_for(order.output_schema),
    )


def content_hash_of(task: ClaimedTask) -> str | None:
    """The definition whose texts the lease of a task needs; None: it needs none."""
    if '"content_hash"' not in task.payload:
        return None
    found: str | None = json.loads(task.payload).get("content_hash")
    return found


def claimed_lease(task: ClaimedTask, program: Program | None, lease: timedelta) -> TaskLease:
    """A task that was taken from the queue.

    Args:
        program: of the hash that `content_hash_of` gives; None: it gives none, or is not stored.
    """
    payload: dict[str, Any] = json.loads(task.payload)
    inputs, names = payload["inputs"], payload.get("snippets", ())
    schema = payload.get("output_schema")
    if program is None:
        snippets = tuple((name, "") for name in names)
        output_schema = None if schema is None else (schema, "")
    else:
        snippets = program.snippets_for(names, inputs)
        output_schema = program.schema_for(schema)
    return TaskLease(
        task_id=task.id,
        token=task.token,
        namespace=task.namespace,
        run_id=task.run_id,
        workflow_name=payload["workflow_name"],
        step_id=task.step_id,
        step_name=payload["step_name"],
        action=task.action,
        iteration=payload.get("iteration", 0),
        iterations=tuple(payload.get("iterations", ())),
        attempt=payload.get("attempt", 0),
        delivery=task.delivery,
        retries_remaining=payload.get("retries_remaining", 0),
        idempotency_key=payload["key"],
        fence=f"{task.fence}.{task.delivery}",
        inputs=inputs,
        prior_contexts=payload.get("prior_contexts"),
        retry_error=payload.get("retry_error"),
        gate_feedback=payload.get("gate_feedback"),
        identity=payload.get("identity"),
        max_turns=payload.get("max_turns"),
        plugin_dirs=tuple(payload.get("plugin_dirs", ())),
        lease=lease,
        deadline_at=task.deadline_at,
        dry_run=payload.get("dry_run", False),
        kind=task.kind,
        work=_work(payload.get("work"), task.kind),
        snippets=snippets,
        output_schema=output_schema,
    )


def _work(values: dict[str, Any] | None, kind: str) -> ScriptWork | ItemsWork | GateWork | None:
    if values is None:
        return None
    match kind:
        case "script":
            return ScriptWork(**values)
        case "items":
            return ItemsWork(**values)
        case _:
            options = values["options"]
            pairs = None if options is None else tuple((key, label) for key, label in options)
            return GateWork(**{**values, "options": pairs})

"""Several decisions on one run, folded into the rows, events and orders of one commit.

Built outside the lock (JSON is encoded here); `write_to` only appends to the batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core import decision as core
from runkon_server.store.writing import to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from runkon_server.runtime.entries import Batch
    from runkon_server.runtime.programs import Program
    from runkon_server.store.locking import LockedRun

HOT_COLUMNS: Final = ("phase", "body_outcome", "force", "iteration")
DETAIL_COLUMNS: Final = (
    "cancel_reason",
    "body_error",
    "error",
    "result_summary",
    "metrics",
    "resume_mode",
)
OPEN_STATUSES: Final = frozenset({"running", "waiting"})
ENDED_STATUSES: Final = frozenset({"completed", "failed", "skipped", "timed_out"})


@dataclass(slots=True)
class NewTask:
    """A task to insert: handed to a session already (`session`, `token`), or queued."""

    order: core.Dispatch
    payload: str
    session: Any = None
    token: str | None = None


@dataclass(slots=True)
class Changeset:
    """What a commit does to one run."""

    program: Program
    namespace: str
    workflow_name: str
    queue: str
    """Of all its tasks."""
    priority: int
    identity: str | None
    """Of tasks whose step names none."""
    is_child: bool
    """Whether some parent has to be told of the run's end and of its gates."""
    decided_gates: frozenset[str] = frozenset()
    """Decided by facts that this commit applies: their rows and events are written already."""
    run: dict[str, Any] = field(default_factory=dict)
    steps: list[core.StepWrite] = field(default_factory=list)
    items: list[core.ItemWrite] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    tasks: dict[str, NewTask] = field(default_factory=dict)
    cancelled_tasks: dict[str, str] = field(default_factory=dict)
    """Task id → reason."""
    abandoned_tasks: dict[str, str] = field(default_factory=dict)
    timers: dict[str, core.SetTimer] = field(default_factory=dict)
    cleared_timers: list[str] = field(default_factory=list)
    gates: list[core.OpenGate] = field(default_factory=list)
    closed_gates: list[str] = field(default_factory=list)
    child_starts: list[core.StartChild] = field(default_factory=list)
    child_resumes: list[core.ResumeChild] = field(default_factory=list)
    child_cancels: list[core.CancelChild] = field(default_factory=list)
    ended: str | None = None
    """The terminal status."""

    def add(
        self,
        decision: core.Decision,
        started_at: dict[str, datetime],
        extra: Callable[[str], dict[str, Any]],
    ) -> None:
        """Fold in one more decision.

        Args:
            started_at: of the steps that are open, for the step rows inside events.
            extra: what the runtime adds to the payload of an event kind.
        """
        self.run.update(decision.run)
        self.steps.extend(decision.steps)
        if decision.items:
            self.items.extend(decision.items)
        for event in decision.events:
            kind, payload = event.kind, event.payload
            if kind == "gate_resolved" and payload["gate"]["id"] in self.decided_gates:
                # Something recorded before the decision ends the step; the decision stands.
                kind = "step_failed"
                payload = {name: value for name, value in payload.items() if name != "gate"}
            step = payload.get("step")
            if step is not None:
                began = started_at.get(step["id"])
                if began is not None:
                    step["started_at"] = began.isoformat()
            else:
                payload = {**payload, **extra(kind)}
            self.events.append((kind, to_json(payload)))
        for order in decision.orders:
            self._add_order(order)

    @property
    def has_children(self) -> bool:
        """Whether child runs have to be looked after before the commit."""
        return bool(self.child_starts or self.child_resumes or self.child_cancels)

    @property
    def concerns_parent(self) -> bool:
        """Whether the run's parent has to be told of it."""
        return self.is_child and (self.ended is not None or "blocked_on" in self.run)

    def _add_order(self, order: core.Order) -> None:
        match order:
            case core.Dispatch():
                order.identity = order.identity or self.identity
                payload = task_payload(order, self.workflow_name, self.program.content_hash)
                self.tasks[order.task_id] = NewTask(order, payload)
            case core.CancelTask():
                self.cancelled_tasks[order.task_id] = order.reason
            case core.AbandonTask():
                self.abandoned_tasks[order.task_id] = order.reason
            case core.SetTimer():
                self.timers[order.timer_id] = order
            case core.ClearTimer():
                if self.timers.pop(order.timer_id, None) is None:
                    self.cleared_timers.append(order.timer_id)
            case core.OpenGate():
                self.gates.append(order)
            case core.CloseGate():
                if order.gate_id not in self.decided_gates:
                    self.closed_gates.append(order.gate_id)
            case core.StartChild():
                self.child_starts.append(order)
            case core.ResumeChild():
                self.child_resumes.append(order)
            case core.CancelChild():
                self.child_cancels.append(order)
            case core.RunEnded():
                self.ended = order.status

    def write_to(self, batch: Batch, run: LockedRun) -> None:
        """Add everything to the batch, numbering the events; `run` takes the new status."""
        writes = batch.writes
        run.status = self.run.get("status", run.status)
        changes = run.changes
        changes.setdefault("lease", "keep")
        # A decision alone is none: whoever makes it may die of what follows, again and again.
        if changes.get("reopens") or any(
            step.columns.get("status") in ENDED_STATUSES for step in self.steps
        ):
            changes["progress"] = True
        for name in HOT_COLUMNS:
            if name in self.run:
                changes[name] = self.run[name]
        if "blocked_on" in self.run:
            changes["set_blocked"] = True
            changes["blocked_on"] = self.run["blocked_on"]
        if self.concerns_parent:
            changes["parent_notified"] = run.parent_notified = False
        details: dict[str, Any] = {n: self.run[n] for n in DETAIL_COLUMNS if n in self.run}
        if changes.get("reopens"):
            details["reopens"] = True
        if details:
            writes.details.append({"run_id": run.id, **details})
        for step in self.steps:
            writes.add_step(step)
        for item in self.items:
            writes.add_item(item)
        for kind, payload in self.events:
            batch.append_event(run, kind, payload)
        self._write_tasks(batch, run)
        self._write_waits(batch, run)

    def _write_tasks(self, batch: Batch, run: LockedRun) -> None:
        writes = batch.writes
        for task in self.tasks.values():
            order = task.order
            row: dict[str, Any] = {
                "run_id": run.id,
                "id": order.task_id,
                "namespace": self.namespace,
                "step_id": order.step_id,
                "kind": order.kind,
                "action": order.action,
                "priority": self.priority,
                "payload": task.payload,
            }
            if self.queue:
                row["queue"] = self.queue
            if order.timeout_s is not None:
                row["timeout_s"] = order.timeout_s
            if task.token is None:
                batch.queued_tasks.add((self.namespace, self.queue, order.kind, order.action))
            else:
                row["token"] = task.token
                row["worker_id"] = task.session.worker_id
            writes.tasks.append(row)
        for task_id, reason in self.cancelled_tasks.items():
            writes.task_cancels.append({"run_id": run.id, "id": task_id, "reason": reason})
        for task_id in self.abandoned_tasks:
            writes.task_ends.append({"run_id": run.id, "id": task_id, "state": "abandoned"})

    def _write_waits(self, batch: Batch, run: LockedRun) -> None:
        writes = batch.writes
        for timer in self.timers.values():
            writes.timers.append(
                {
                    "run_id": run.id,
                    "id": timer.timer_id,
                    "kind": timer.kind,
                    "step_id": timer.step_id,
                    "attempt": timer.attempt,
                    "delay_s": timer.delay_s,
                }
            )
        writes.cleared_timers.extend(self.cleared_timers)
        for gate in self.gates:
            writes.gates.append(
                {
                    "run_id": run.id,
                    "id": gate.gate_id,
                    "namespace": self.namespace,
                    "step_id": gate.step_id,
                    "name": gate.name,
                    "gate_type": gate.gate_type,
                    "iteration": gate.iteration,
                    "prompt": gate.prompt,
                    "options": gate.options,
                    "approvers": gate.approvers,
                    "exclude_starter": gate.exclude_starter,
                    "on_timeout": gate.on_timeout,
                    "timeout_s": gate.timeout_s,
                    "min_approvals": gate.min_approvals,
                    "approval_mode": gate.approval_mode,
                }
            )
        for gate_id in self.closed_gates:
            writes.gate_ends.append({"run_id": run.id, "id": gate_id, "state": "cancelled"})


def task_payload(order: core.Dispatch, workflow_name: str, content_hash: str) -> str:
    """What a worker needs beyond the task's own columns, as JSON; unset fields are left out."""
    payload: dict[str, Any] = {
        "workflow_name": workflow_name,
        "step_name": order.step_name,
        "key": order.idempotency_key,
        "inputs": order.inputs,
    }
    for name in (
        "iteration",
        "iterations",
        "attempt",
        "retries_remaining",
        "prior_contexts",
        "retry_error",
        "gate_feedback",
        "identity",
        "max_turns",
        "plugin_dirs",
        "dry_run",
        "output_schema",
        "snippets",
    ):
        value = getattr(order, name)
        if value is not None and value != () and value is not False and value != 0:
            payload[name] = value
    if order.output_schema is not None or order.snippets:
        payload["content_hash"] = content_hash
    if order.work is not None:
        payload["work"] = asdict(order.work)
    return to_json(payload)

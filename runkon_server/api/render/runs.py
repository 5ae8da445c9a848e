"""Runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runkon.v1 import types_pb2
from runkon_server.api.render.values import duration, metrics, options, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_server.store.rows import RunRow

_STATUSES: Final = {
    name.removeprefix("RUN_STATUS_").lower(): number for name, number in types_pb2.RunStatus.items()
}


class Place(NamedTuple):
    """Where a run is: its innermost step, and the workflows from its root down to there."""

    run_id: str
    """The run that the step belongs to."""
    step_name: str
    iteration: int
    workflow_names: tuple[str, ...]


def run_status(status: str) -> types_pb2.RunStatus.ValueType:
    """A status as the contract numbers it."""
    return _STATUSES.get(status, types_pb2.RUN_STATUS_UNSPECIFIED)


def render_run(
    run: RunRow, *, summary: str | None = None, snapshot: str = "", place: Place | None = None
) -> types_pb2.Run:
    """A run in the BASIC view, or in the FULL view if there is a snapshot.

    Args:
        summary: what the run came to, if the caller has worked it out; else the stored headline.
        snapshot: JSON of the definition.
        place: where it is, looked up in the runs above and below; else as its own row says.
    """
    message = types_pb2.Run(
        id=run.id,
        namespace=run.namespace,
        key=run.key or "",
        workflow_name=run.workflow_name,
        workflow_version=run.workflow_version or 0,
        content_hash=run.content_hash,
        workflow_title=run.workflow_title or "",
        display_name=run.workflow_title or run.workflow_name,
        status=run_status(run.status),
        dry_run=run.dry_run,
        trigger=run.trigger,
        started_by=run.started_by,
        parent_run_id=run.parent_run_id or "",
        parent_workflow_run_id=run.parent_workflow_run_id or "",
        create_time=timestamp(run.created_at),
        start_time=timestamp(run.started_at),
        end_time=timestamp(run.ended_at),
        scheduled_time=timestamp(run.scheduled_at),
        result_summary=(summary or run.result_summary or "") if run.ended_at else "",
        error=run.error or "",
        cancel_reason=run.cancel_reason or "",
        inputs=run.inputs,
        iteration=run.iteration,
        dismissed=run.dismissed,
        labels=run.labels,
        priority=run.priority,
        config=types_pb2.RunConfig(fail_fast=run.fail_fast),
        metrics=metrics(run.metrics),
        epoch=run.epoch,
        last_seq=run.last_seq,
        definition_snapshot=snapshot,
        root_run_id=run.root_run_id or run.id,
        depth=run.depth,
        parent_step_id=run.parent_step_id or "",
        fan_out_item_id=run.fan_out_item_id or "",
    )
    if run.started_at is not None and run.ended_at is not None:
        message.total_duration.CopyFrom(
            duration(max(run.ended_at, run.started_at) - run.started_at)
        )
    if run.status == "waiting" and run.blocked_on is not None:
        message.blocked_on.CopyFrom(render_blocked_on(run.blocked_on, run.id))
    if place is None and run.current_step is not None:
        place = Place(run.id, *run.current_step, (run.workflow_name,))
    if place is not None:
        current = message.current_step
        current.run_id, current.step_name = place.run_id, place.step_name
        current.iteration = place.iteration
        current.workflow_chain.extend(place.workflow_names)
    return message


def shorten_blocked_on(blocked_on: Mapping[str, Any]) -> types_pb2.BlockedOn:
    """The gate that a child waits for, as lists of steps and items show it."""
    prompt = blocked_on.get("prompt") or ""
    short = prompt.encode()[:_PROMPT_BYTES].decode(errors="ignore")
    return render_blocked_on({**blocked_on, "prompt": short, "options": None}, "")


_PROMPT_BYTES: Final = 1024


def render_blocked_on(blocked_on: Mapping[str, Any], run_id: str) -> types_pb2.BlockedOn:
    """The gate that a run waits for: its own, or a child's; then the payload names the child."""
    message = types_pb2.BlockedOn(
        gate_id=blocked_on.get("gate_id", ""), run_id=blocked_on.get("run_id", run_id)
    )
    name, prompt = blocked_on.get("gate_name", ""), blocked_on.get("prompt") or ""
    choices = options(blocked_on.get("options"))
    match blocked_on.get("type", ""):
        case "human_approval":
            message.human_approval.CopyFrom(
                types_pb2.HumanApproval(gate_name=name, prompt=prompt, options=choices)
            )
        case "human_review":
            message.human_review.CopyFrom(
                types_pb2.HumanReview(gate_name=name, prompt=prompt, options=choices)
            )
        case "pr_approval":
            needed = blocked_on.get("approvals_needed", 0)
            message.pr_approval.CopyFrom(
                types_pb2.PrApproval(gate_name=name, approvals_needed=needed)
            )
        case "pr_checks":
            message.pr_checks.CopyFrom(types_pb2.PrChecks(gate_name=name))
        case gate_type:
            message.custom_gate.CopyFrom(
                types_pb2.CustomGate(gate_name=name, type=gate_type, prompt=prompt, options=choices)
            )
    return message

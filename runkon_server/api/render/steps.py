"""Steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon.v1 import types_pb2
from runkon_server.api.render.values import metrics, options, seconds, timestamp

if TYPE_CHECKING:
    from runkon_server.store.rows import StepRow

_STATUSES: Final = {
    name.removeprefix("STEP_STATUS_").lower(): number
    for name, number in types_pb2.StepStatus.items()
}
_ROLES: Final = {
    name.removeprefix("STEP_ROLE_").lower(): number for name, number in types_pb2.StepRole.items()
}


def render_step(step: StepRow) -> types_pb2.Step:
    """One row of a step."""
    message = types_pb2.Step(
        id=step.id,
        run_id=step.workflow_run_id,
        step_name=step.step_name,
        role=_ROLES.get(step.role, types_pb2.STEP_ROLE_UNSPECIFIED),
        status=_STATUSES.get(step.status, types_pb2.STEP_STATUS_UNSPECIFIED),
        can_commit=step.can_commit,
        condition_expr=step.condition_expr or "",
        condition_met=step.condition_met,
        child_run_id=step.child_run_id or "",
        position=step.position,
        iteration=step.iteration,
        iterations=step.iterations,
        path=step.path,
        retry_count=step.retry_count,
        parallel_group_id=step.parallel_group_id or "",
        start_time=timestamp(step.started_at),
        end_time=timestamp(step.ended_at),
        result_text=step.result_text or "",
        context=step.context_out or "",
        markers=step.markers_out or (),
        structured_output=step.structured_output or "",
        output_file=step.output_file or "",
        step_error=step.step_error or "",
        error_code=step.error_code or "",
        metrics=metrics(step.metrics),
        epoch=step.epoch,
        superseded_epoch=step.superseded_epoch or 0,
    )
    if step.gate_type is not None:
        message.gate.CopyFrom(_gate(step))
    return message


def _gate(step: StepRow) -> types_pb2.StepGate:
    approved = step.status == "completed"
    return types_pb2.StepGate(
        # A gate has the id of its step; one that a dry run approved was never opened.
        gate_id=step.id if step.role == "gate" else "",
        type=step.gate_type or "",
        prompt=step.gate_prompt or "",
        timeout=seconds(step.gate_timeout),
        approved_by=step.gate_approved_by or "",
        approve_time=timestamp(step.gate_approved_at) if approved else None,
        feedback=step.gate_feedback or "",
        options=options(step.gate_options),
        selections=step.gate_selections or (),
    )

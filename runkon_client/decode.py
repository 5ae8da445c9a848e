"""Protobuf → plain values: instants as aware datetimes, spans as timedelta, else `UNKNOWN`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from runkon.v1 import gates_pb2, types_pb2, workflows_pb2
from runkon_client import values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum

    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

_E = TypeVar("_E", bound="StrEnum")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def by_number(file: FileDescriptor, into: type[_E]) -> Mapping[int, _E]:
    """The members of `into` by the numbers that the contract's enum of the same name has."""
    found = file.enum_types_by_name[into.__name__].values
    prefix = found[0].name.removesuffix("UNSPECIFIED")
    known = into.__members__
    names = {value.number: value.name.removeprefix(prefix) for value in found[1:]}
    return {number: known[name] for number, name in names.items() if name in known}


_RUN_STATUS: Final = by_number(types_pb2.DESCRIPTOR, values.RunStatus)
_STEP_STATUS: Final = by_number(types_pb2.DESCRIPTOR, values.StepStatus)
_STEP_ROLE: Final = by_number(types_pb2.DESCRIPTOR, values.StepRole)
_ITEM_STATUS: Final = by_number(types_pb2.DESCRIPTOR, values.FanOutItemStatus)
_SEVERITY: Final = by_number(types_pb2.DESCRIPTOR, values.Severity)
_GATE_STATE: Final = by_number(gates_pb2.DESCRIPTOR, values.GateState)
_APPROVAL_MODE: Final = by_number(gates_pb2.DESCRIPTOR, values.ApprovalMode)
_GATE_DECISION: Final = by_number(gates_pb2.DESCRIPTOR, values.GateDecision)
_TRIGGER: Final = by_number(workflows_pb2.DESCRIPTOR, values.WorkflowTrigger)
_INPUT_TYPE: Final = by_number(workflows_pb2.DESCRIPTOR, values.InputType)


def decode_instant(message: Timestamp) -> datetime:
    """The instant, to the microsecond."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def decode_span(message: Duration) -> timedelta:
    """The span, to the microsecond."""
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def decode_run_status(number: int) -> values.RunStatus:
    """The status of a run."""
    return _RUN_STATUS.get(number, values.RunStatus.UNKNOWN)


def decode_run(message: types_pb2.Run) -> values.Run:
    """A run, in either view."""
    has = message.HasField
    return values.Run(
        id=message.id,
        namespace=message.namespace,
        key=message.key,
        workflow_name=message.workflow_name,
        workflow_version=message.workflow_version,
        content_hash=message.content_hash,
        workflow_title=message.workflow_title,
        display_name=message.display_name,
        status=decode_run_status(message.status),
        dry_run=message.dry_run,
        trigger=message.trigger,
        started_by=message.started_by,
        parent_run_id=message.parent_run_id,
        parent_workflow_run_id=message.parent_workflow_run_id,
        created_at=decode_instant(message.create_time) if has("create_time") else None,
        started_at=decode_instant(message.start_time) if has("start_time") else None,
        ended_at=decode_instant(message.end_time) if has("end_time") else None,
        total_duration=decode_span(message.total_duration) if has("total_duration") else None,
        scheduled_at=decode_instant(message.scheduled_time) if has("scheduled_time") else None,
        result_summary=message.result_summary,
        error=message.error,
        cancel_reason=message.cancel_reason,
        inputs=dict(message.inputs),
        iteration=message.iteration,
        blocked_on=decode_blocked_on(message.blocked_on) if has("blocked_on") else None,
        current_step=decode_step_summary(message.current_step) if has("current_step") else None,
        dismissed=message.dismissed,
        labels=dict(message.labels),
        priority=message.priority,
        fail_fast=message.config.fail_fast if message.config.HasField("fail_fast") else True,
        metrics=decode_metrics(message.metrics) if has("metrics") else None,
        epoch=message.epoch,
        last_seq=message.last_seq,
        definition_snapshot=message.definition_snapshot,
        root_run_id=message.root_run_id,
        depth=message.depth,
        parent_step_id=message.parent_step_id,
        fan_out_item_id=message.fan_out_item_id,
    )


def decode_blocked_on(message: types_pb2.BlockedOn) -> values.BlockedOn:
    """What a run waits for."""
    gate_id, run_id = message.gate_id, message.run_id
    match message.WhichOneof("kind"):
        case "human_approval":
            approval = message.human_approval
            return values.HumanApproval(
                gate_id=gate_id,
                run_id=run_id,
                gate_name=approval.gate_name,
                prompt=approval.prompt,
                options=_options(approval.options),
            )
        case "human_review":
            review = message.human_review
            return values.HumanReview(
                gate_id=gate_id,
                run_id=run_id,
                gate_name=review.gate_name,
                prompt=review.prompt,
                options=_options(review.options),
            )
        case "pr_approval":
            return values.PrApproval(
                gate_id=gate_id,
                run_id=run_id,
                gate_name=message.pr_approval.gate_name,
                approvals_needed=message.pr_approval.approvals_needed,
            )
        case "pr_checks":
            return values.PrChecks(
                gate_id=gate_id, run_id=run_id, gate_name=message.pr_checks.gate_name
            )
        case "custom_gate":
            custom = message.custom_gate
            return values.CustomGate(
                gate_id=gate_id,
                run_id=run_id,
                gate_name=custom.gate_name,
                type=custom.type,
                prompt=custom.prompt,
                options=_options(custom.options),
            )
        case _:
            return values.UnknownBlocker(gate_id=gate_id, run_id=run_id)


def _options(messages: Iterable[types_pb2.GateOption]) -> tuple[values.GateOption, ...]:
    return tuple(values.GateOption(key=option.key, label=option.label) for option in messages)


def decode_step_summary(message: types_pb2.StepSummary) -> values.StepSummary:
    """Where a run is."""
    return values.StepSummary(
        step_name=message.step_name,
        iteration=message.iteration,
        workflow_chain=tuple(message.workflow_chain),
        run_id=message.run_id,
    )


def decode_metrics(message: types_pb2.Metrics) -> values.Metrics:
    """Sums of what workers reported."""
    return values.Metrics(
        cost_usd=message.cost_usd,
        num_turns=message.num_turns,
        duration=decode_span(message.duration),
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cache_read_input_tokens=message.cache_read_input_tokens,
        cache_creation_input_tokens=message.cache_creation_input_tokens,
    )


def decode_step(message: types_pb2.Step) -> values.Step:
    """A step's row."""
    has = message.HasField
    return values.Step(
        id=message.id,
        run_id=message.run_id,
        step_name=message.step_name,
        role=_STEP_ROLE.get(message.role, values.StepRole.UNKNOWN),
        status=_STEP_STATUS.get(message.status, values.StepStatus.UNKNOWN),
        can_commit=message.can_commit,
        condition_expr=message.condition_expr,
        condition_met=message.condition_met if has("condition_met") else None,
        child_run_id=message.child_run_id,
        position=message.position,
        iteration=message.iteration,
        iterations=tuple(message.iterations),
        path=message.path,
        retry_count=message.retry_count,
        parallel_group_id=message.parallel_group_id,
        started_at=decode_instant(message.start_time) if has("start_time") else None,
        ended_at=decode_instant(message.end_time) if has("end_time") else None,
        result_text=message.result_text,
        context=message.context,
        markers=tuple(message.markers),
        structured_output=message.structured_output,
        output_file=message.output_file,
        step_error=message.step_error,
        error_code=message.error_code,
        gate=_step_gate(message.gate) if has("gate") else None,
        fan_out=decode_fan_out_counts(message.fan_out) if has("fan_out") else None,
        metrics=decode_metrics(message.metrics) if has("metrics") else None,
        epoch=message.epoch,
        superseded_epoch=message.superseded_epoch,
        blocked_on=decode_blocked_on(message.blocked_on) if has("blocked_on") else None,
    )


def _step_gate(message: types_pb2.StepGate) -> values.StepGate:
    has = message.HasField
    return values.StepGate(
        gate_id=message.gate_id,
        type=message.type,
        prompt=message.prompt,
        timeout=decode_span(message.timeout) if has("timeout") else None,
        approved_by=message.approved_by,
        approved_at=decode_instant(message.approve_time) if has("approve_time") else None,
        feedback=message.feedback,
        options=_options(message.options),
        selections=tuple(message.selections),
    )


def decode_fan_out_counts(message: types_pb2.FanOutCounts) -> values.FanOutCounts:
    """Counters of a `foreach`."""
    return values.FanOutCounts(
        total=message.total,
        completed=message.completed,
        failed=message.failed,
        skipped=message.skipped,
    )


def decode_fan_out_item(message: types_pb2.FanOutItem) -> values.FanOutItem:
    """One item of a `foreach`."""
    has = message.HasField
    return values.FanOutItem(
        id=message.id,
        step_run_id=message.step_run_id,
        item_type=message.item_type,
        item_id=message.item_id,
        item_ref=message.item_ref,
        child_run_id=message.child_run_id,
        status=_ITEM_STATUS.get(message.status, values.FanOutItemStatus.UNKNOWN),
        dispatched_at=decode_instant(message.dispatch_time) if has("dispatch_time") else None,
        completed_at=decode_instant(message.complete_time) if has("complete_time") else None,
        context=dict(message.context),
        position=message.position,
        blockers=tuple(message.blockers),
        structured_output=message.structured_output,
        run_id=message.run_id,
        error=message.error,
        blocked_on=decode_blocked_on(message.blocked_on) if has("blocked_on") else None,
    )


def decode_gate(message: gates_pb2.Gate) -> values.Gate:
    """A gate with its votes."""
    has = message.HasField
    return values.Gate(
        id=message.id,
        namespace=message.namespace,
        run_id=message.run_id,
        step_id=message.step_id,
        name=message.name,
        type=message.type,
        iteration=message.iteration,
        prompt=message.prompt,
        options=_options(message.options),
        approvers=message.approvers,
        exclude_starter=message.exclude_starter,
        votes=tuple(decode_vote(vote) for vote in message.votes),
        state=_GATE_STATE.get(message.state, values.GateState.UNKNOWN),
        opened_at=decode_instant(message.open_time) if has("open_time") else None,
        deadline_at=decode_instant(message.deadline_time) if has("deadline_time") else None,
        resolved_at=decode_instant(message.resolve_time) if has("resolve_time") else None,
        resolved_by=message.resolved_by,
        on_behalf_of=message.on_behalf_of,
        feedback=message.feedback,
        selections=tuple(message.selections),
        workflow_name=message.workflow_name,
        display_name=message.display_name,
        labels=dict(message.labels),
        min_approvals=message.min_approvals,
        approval_mode=(
            _APPROVAL_MODE.get(message.approval_mode, values.ApprovalMode.UNKNOWN)
            if message.approval_mode
            else None
        ),
    )


def decode_vote(message: gates_pb2.GateVote) -> values.GateVote:
    """One principal's vote."""
    return values.GateVote(
        principal=message.principal,
        decision=_GATE_DECISION.get(message.decision, values.GateDecision.UNKNOWN),
        feedback=message.feedback,
        selections=tuple(message.selections),
        on_behalf_of=message.on_behalf_of,
        at=decode_instant(message.time) if message.HasField("time") else None,
    )


def decode_diagnostic(message: types_pb2.Diagnostic) -> values.Diagnostic:
    """One problem of a source."""
    return values.Diagnostic(
        code=message.code,
        severity=_SEVERITY.get(message.severity, values.Severity.UNKNOWN),
        message=message.message,
        hint=message.hint,
        line=message.line,
        column=message.column,
        end_line=message.end_line,
        end_column=message.end_column,
        length=message.length,
        excerpt=message.excerpt,
    )


def decode_diagnostics(
    messages: Iterable[types_pb2.Diagnostic],
) -> tuple[values.Diagnostic, ...]:
    """Problems, in the order of the source."""
    return tuple(decode_diagnostic(message) for message in messages)


def decode_workflow(message: workflows_pb2.Workflow) -> values.Workflow:
    """One version of a workflow, in either view."""
    return values.Workflow(
        namespace=message.namespace,
        name=message.name,
        version=message.version,
        content_hash=message.content_hash,
        title=message.title,
        description=message.description,
        trigger=_TRIGGER.get(message.trigger, values.WorkflowTrigger.UNKNOWN),
        targets=tuple(message.targets),
        group=message.group,
        inputs=tuple(_workflow_input(declared) for declared in message.inputs),
        created_at=(
            decode_instant(message.create_time) if message.HasField("create_time") else None
        ),
        created_by=message.created_by,
        source=message.source,
        output_schemas=dict(message.output_schemas),
        snippets=dict(message.snippets),
        definition_json=message.definition_json,
    )


def _workflow_input(message: workflows_pb2.WorkflowInput) -> values.WorkflowInput:
    return values.WorkflowInput(
        name=message.name,
        type=_INPUT_TYPE.get(message.type, values.InputType.UNKNOWN),
        required=message.required,
        default_value=message.default_value if message.HasField("default_value") else None,
        description=message.description,
    )

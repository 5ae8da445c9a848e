"""Rows and events as messages: every value of the store has its number, nothing is lost."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runkon.v1 import events_pb2, gates_pb2, types_pb2, workflows_pb2
from runkon_server.api.definitions import check_source
from runkon_server.api.encoding import encode_event
from runkon_server.api.events import render_event
from runkon_server.api.render import (
    render_blocked_on,
    render_diagnostic,
    render_gate,
    render_run,
    render_step,
    render_workflow,
)
from runkon_server.core.events import KINDS
from runkon_server.store.migrations.versions import __path__ as migrations
from runkon_server.store.reads.events import EventRow
from runkon_server.store.rows import GateRow, RunRow, StepRow, VoteRow, WorkflowRow
from support.rows import NOON, ulid

RUN = ulid(1)
STEP = f"{RUN}/b.0001/e1/0"


def run_row(**columns: Any) -> RunRow:
    base: dict[str, Any] = {"id": RUN, "namespace": "n", "workflow_name": "w", "status": "running"}
    return RunRow(**base | {"content_hash": "h", "created_at": NOON} | columns)


def event(kind: str, payload: dict[str, Any], seq: int = 1) -> events_pb2.RunEvent:
    """Built as a message; what streams send without building it must be the same."""
    row = EventRow(RUN, seq, 2, kind, NOON, 3, json.dumps(payload))
    built = render_event(row)
    assert events_pb2.RunEvent.FromString(encode_event(row)) == built
    return built


def checked_values(table: str, column: str) -> set[str]:
    """The values that the schema allows in a column."""
    sql = (Path(migrations[0]) / "0001_runs.py").read_text(encoding="utf-8")
    body = sql.partition(f"CREATE TABLE {table} (")[2]
    found = re.search(rf"CHECK \({column} IN\s+\(([^)]*)\)", body)
    assert found is not None
    return set(re.findall(r"'(\w+)'", found[1]))


def test_every_state_of_the_schema_has_a_number() -> None:
    """Statuses of runs and steps, roles and states of gates, as the CHECKs list them."""
    for status in checked_values("workflow_runs", "status"):
        assert render_run(run_row(status=status)).status, status
    for status in checked_values("workflow_run_steps", "status"):
        assert render_step(StepRow(workflow_run_id=RUN, id="s", status=status)).status, status
    for role in checked_values("workflow_run_steps", "role"):
        step = StepRow(workflow_run_id=RUN, id="s", status="running", role=role)
        assert render_step(step).role, role
    for state in checked_values("gates", "state"):
        assert render_gate(gate_row(state=state)).state, state


def test_what_a_newer_server_wrote_is_shown_as_unknown() -> None:
    assert render_run(run_row(status="dreaming")).status == types_pb2.RUN_STATUS_UNSPECIFIED
    assert event("child_run_dreamt", {"a": 1}).WhichOneof("payload") is None


def test_a_live_run() -> None:
    run = render_run(
        run_row(
            key="k",
            workflow_version=3,
            workflow_title="The W",
            started_at=NOON,
            inputs={"a": "1"},
            labels={"team": "x"},
            fail_fast=False,
            metrics={"cost_usd": 1.5, "duration_ms": 2500, "num_turns": 7},
            current_step=("plan", 2),
            result_summary="not yet",
        )
    )

    assert (run.key, run.workflow_version, run.display_name) == ("k", 3, "The W")
    assert (dict(run.inputs), dict(run.labels)) == ({"a": "1"}, {"team": "x"})
    assert (run.config.HasField("fail_fast"), run.config.fail_fast) == (True, False)
    assert (run.metrics.cost_usd, run.metrics.num_turns) == (1.5, 7)
    assert run.metrics.duration.ToMilliseconds() == 2500
    assert (run.current_step.step_name, run.current_step.iteration) == ("plan", 2)
    assert list(run.current_step.workflow_chain) == ["w"]
    assert run.start_time.ToDatetime(NOON.tzinfo) == NOON
    for unset in ("end_time", "total_duration", "blocked_on", "scheduled_time"):
        assert not run.HasField(unset), unset
    assert run.result_summary == ""


def test_an_ended_run() -> None:
    row = run_row(
        status="failed",
        started_at=NOON,
        ended_at=NOON + timedelta(minutes=2),
        error="no",
        result_summary="headline",
    )

    assert render_run(row).result_summary == "headline"
    ended = render_run(row, summary="all of it", snapshot="{}")
    assert (ended.result_summary, ended.definition_snapshot, ended.error) == (
        "all of it",
        "{}",
        "no",
    )
    assert ended.total_duration.ToSeconds() == 120
    assert not ended.HasField("current_step")
    assert not ended.HasField("metrics")


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("human_approval", "human_approval"),
        ("human_review", "human_review"),
        ("pr_approval", "pr_approval"),
        ("pr_checks", "pr_checks"),
        ("moon_phase", "custom_gate"),
    ],
)
def test_what_a_run_waits_for(kind: str, field: str) -> None:
    """The stored object; a type without a message of its own is told as it is."""
    blocked_on = {
        "type": kind,
        "gate_id": STEP,
        "gate_name": "check",
        "prompt": "ok?",
        "options": [{"key": "y", "label": "Yes"}],
        "approvals_needed": 2,
    }
    found = render_blocked_on(blocked_on, RUN)

    assert (found.WhichOneof("kind"), found.gate_id, found.run_id) == (field, STEP, RUN)
    assert getattr(found, field).gate_name == "check"
    assert kind != "human_review" or found.human_review.options[0].label == "Yes"
    assert kind != "moon_phase" or found.custom_gate.type == "moon_phase"
    assert kind != "moon_phase" or found.custom_gate.options[0].key == "y"
    assert kind != "pr_approval" or found.pr_approval.approvals_needed == 2


def test_a_parent_waits_for_the_gate_of_its_child() -> None:
    blocked_on = {"type": "human_review", "gate_id": "g", "gate_name": "check", "run_id": ulid(2)}

    assert render_blocked_on(blocked_on, RUN).run_id == ulid(2)


def test_a_run_shows_what_it_waits_for_only_while_it_waits() -> None:
    blocked_on = {"type": "human_review", "gate_id": STEP, "gate_name": "check"}

    assert render_run(run_row(status="waiting", blocked_on=blocked_on)).HasField("blocked_on")
    assert not render_run(run_row(status="cancelling", blocked_on=blocked_on)).HasField(
        "blocked_on"
    )


def test_a_step_of_a_worker() -> None:
    step = render_step(
        StepRow(
            workflow_run_id=RUN,
            id=STEP,
            status="completed",
            step_name="plan",
            iterations=[1, 4],
            iteration=4,
            started_at=NOON,
            ended_at=NOON,
            result_text="text",
            context_out="context",
            markers_out=["a", "b"],
            structured_output="{}",
            output_file="f",
            condition_met=False,
            superseded_epoch=2,
            metrics={"input_tokens": 5},
        )
    )

    assert (step.run_id, step.role) == (RUN, types_pb2.STEP_ROLE_ACTOR)
    assert (list(step.iterations), list(step.markers)) == ([1, 4], ["a", "b"])
    assert (step.context, step.structured_output, step.output_file) == ("context", "{}", "f")
    assert (step.HasField("condition_met"), step.condition_met) == (True, False)
    assert (step.superseded_epoch, step.metrics.input_tokens) == (2, 5)
    assert not step.HasField("gate")


def test_the_step_of_a_gate_and_when_it_was_approved() -> None:
    """A rejection has a decider, but no time of approval."""
    base: dict[str, Any] = {
        "workflow_run_id": RUN,
        "id": STEP,
        "role": "gate",
        "gate_type": "human_review",
        "gate_timeout": "86400",
        "gate_options": [["y", "Yes"]],
        "gate_approved_by": "zoe",
        "gate_approved_at": NOON,
    }
    approved = render_step(StepRow(status="completed", **base)).gate
    rejected = render_step(StepRow(status="failed", **base)).gate
    dry = render_step(StepRow(status="completed", **base | {"role": "reviewer"})).gate

    assert (approved.gate_id, approved.timeout.ToSeconds()) == (STEP, 86_400)
    assert [(each.key, each.label) for each in approved.options] == [("y", "Yes")]
    assert approved.HasField("approve_time")
    assert (rejected.approved_by, rejected.HasField("approve_time")) == ("zoe", False)
    assert dry.gate_id == ""


def gate_row(**columns: Any) -> GateRow:
    base: dict[str, Any] = {"run_id": RUN, "id": STEP, "namespace": "n", "step_id": STEP}
    base |= {"name": "check", "gate_type": "human_review", "state": "pending", "opened_at": NOON}
    return GateRow(**base | columns)


def test_a_gate_with_its_votes() -> None:
    gate = render_gate(
        gate_row(
            state="approved",
            resolved_by="zoe",
            resolved_at=NOON,
            workflow_name="w",
            labels={"a": "b"},
            votes=[
                VoteRow(principal="adam", decision="approve", at=NOON),
                VoteRow(principal="zoe", decision="approve", feedback="ok", selections=["y"]),
            ],
        )
    )

    assert (gate.state, gate.resolved_by) == (gates_pb2.GATE_STATE_APPROVED, "zoe")
    assert [vote.principal for vote in gate.votes] == ["adam", "zoe"]
    assert gate.votes[1].decision == gates_pb2.GATE_DECISION_APPROVE
    assert (gate.display_name, dict(gate.labels)) == ("w", {"a": "b"})


def test_a_gate_with_many_words_still_fits_a_message() -> None:
    """A hundred votes of 64 KiB: each keeps its beginning, nobody is left out."""
    votes = [
        VoteRow(principal=f"p{n}", decision="approve", feedback="é" * 32_000) for n in range(100)
    ]
    gate = render_gate(gate_row(votes=votes))

    assert gate.ByteSize() < 3 * 1024 * 1024
    assert len(gate.votes) == 100
    assert all(vote.feedback.startswith("ééé") for vote in gate.votes)


def test_a_gate_that_timed_out_was_resolved_by_nobody() -> None:
    assert (
        render_gate(gate_row(state="timed_out", resolved_by="x", resolved_at=NOON)).resolved_by
        == ""
    )


def test_a_stored_workflow_in_both_views() -> None:
    snapshot = check_source(
        'workflow w { meta { title = "T" trigger = "pr" targets = ["repo"] }'
        ' inputs { a required b boolean c default = "" description = "why" } call x }',
        "h",
    ).snapshot
    head = {k: v for k, v in json.loads(snapshot).items() if k not in ("body", "always")}
    base: dict[str, Any] = {"namespace": "n", "name": "w", "version": 2, "content_hash": "h"}
    base |= {"created_at": NOON, "created_by": "zoe", "head": head}
    basic = render_workflow(WorkflowRow(**base))
    full = render_workflow(
        WorkflowRow(**base, source="s", output_schemas={"o": "y"}, snippets={}, snapshot=snapshot)
    )

    assert (basic.title, basic.trigger) == ("T", workflows_pb2.WORKFLOW_TRIGGER_PR)
    assert list(basic.targets) == ["repo"]
    assert [(each.name, each.type, each.required) for each in basic.inputs] == [
        ("a", workflows_pb2.INPUT_TYPE_STRING, True),
        ("b", workflows_pb2.INPUT_TYPE_BOOLEAN, False),
        ("c", workflows_pb2.INPUT_TYPE_STRING, False),
    ]
    assert [each.HasField("default_value") for each in basic.inputs] == [False, False, True]
    assert basic.inputs[2].description == "why"
    assert (basic.source, basic.definition_json) == ("", "")
    assert (full.source, dict(full.output_schemas)) == ("s", {"o": "y"})
    assert full.definition_json == snapshot


def test_a_diagnostic_shows_the_place() -> None:
    checked = check_source("workflow w {\n  call a { colour = 1 }\n}", "h")
    (found,) = (render_diagnostic(each, checked.source) for each in checked.diagnostics)

    assert (found.severity, found.line, found.column) == (types_pb2.SEVERITY_WARNING, 2, 12)
    assert (found.end_line, found.end_column, found.length) == (2, 18, 6)
    source_line, carets = found.excerpt.split("\n")
    assert source_line.endswith("call a { colour = 1 }")
    assert carets.index("^") == source_line.index("colour")
    assert carets.count("^") == 6


SHOWN_STEP = {"id": STEP, "at": "b.0001", "step_name": "plan", "status": "running", "new": 1}
SHOWN_GATE = {
    "id": STEP,
    "step_id": STEP,
    "name": "check",
    "gate_type": "human_review",
    "options": [{"key": "y", "label": "Yes"}],
    "approvers": 2,
    "timeout_s": 60,
    "state": "pending",
}
SHOWN_ITEM = {
    "id": f"{STEP}/4",
    "step_run_id": STEP,
    "ordinal": 4,
    "item_type": "ticket",
    "item_id": "T-4",
    "item_ref": "the fourth",
    "context": {"title": "Fix it"},
    "blockers": [0, 3],
    "status": "running",
    "child_run_id": ulid(2),
    "child_epoch": 1,
}
PAYLOADS: dict[str, dict[str, Any]] = {
    "run_started": {"workflow_name": "w", "workflow_version": 2, "started_by": "zoe"},
    "run_resumed": {"workflow_name": "w", "mode": "normal", "resumed_by": "zoe"},
    "run_waiting": {"blocked_on": {"type": "human_review", "gate_id": STEP, "gate_name": "g"}},
    "run_unblocked": {},
    "run_cancel_requested": {"reason": "enough", "force": True, "requested_by": "zoe"},
    "run_finished": {"status": "failed", "error": "no", "truncated": True},
    "step_started": {"step": SHOWN_STEP},
    "step_retrying": {"step": SHOWN_STEP, "attempt": 2, "delay_s": 1.5},
    "step_completed": {"step": SHOWN_STEP | {"status": "completed"}, "truncated": True},
    "step_failed": {"step": SHOWN_STEP | {"status": "failed", "step_error": "no"}},
    "step_skipped": {"step": SHOWN_STEP | {"status": "skipped"}},
    "step_timed_out": {"step": SHOWN_STEP | {"status": "timed_out"}},
    "step_progress": {"step_id": STEP, "step_name": "plan", "iteration": 1, "progress": "half"},
    "gate_waiting": {"gate": SHOWN_GATE, "step": SHOWN_STEP | {"status": "waiting"}},
    "gate_voted": {
        "gate_id": STEP,
        "gate_name": "check",
        "vote": {"principal": "zoe", "decision": "approve", "feedback": None},
    },
    "gate_resolved": {"gate": SHOWN_GATE | {"state": "approved", "resolved_by": "zoe"}},
    "fan_out_items_collected": {
        "step": SHOWN_STEP | {"role": "foreach", "fan_out_total": 3, "fan_out_skipped": 1},
        "count": 3,
    },
    "fan_out_item_started": {"item": SHOWN_ITEM},
    "fan_out_item_completed": {
        "item": SHOWN_ITEM | {"status": "failed", "error": "no"},
        "counts": {"total": 3, "completed": 1, "failed": 1, "skipped": 0},
        "truncated": True,
    },
    "child_run_started": {"step_id": STEP, "child_run_id": ulid(2), "workflow_name": "child"},
    "child_run_finished": {
        "step_id": STEP,
        "child_run_id": ulid(2),
        "status": "failed",
        "error": "no",
        "fan_out_item_id": f"{STEP}/4",
    },
    "metrics_updated": {"metrics": {"cost_usd": 2.0}},
    "definition_warning": {"diagnostic": {"code": "WF301", "message": "m", "line": 3}},
    "always_started": {"workflow_status": "cancelled"},
}


def test_every_kind_of_the_core_has_a_sample_here() -> None:
    assert set(PAYLOADS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_rendered_as_its_own_payload(kind: str) -> None:
    """Each field that the sample names is there: nothing renders to an empty message."""
    found = event(kind, PAYLOADS[kind])

    assert found.WhichOneof("payload") == kind
    assert (found.seq, found.epoch, found.generation, found.run_id) == (1, 2, 3, RUN)
    assert found.time.ToDatetime(NOON.tzinfo) == NOON
    assert bool(getattr(found, kind).ListFields()) is (kind != "run_unblocked")
    assert found.kind == events_pb2.RunEvent.DESCRIPTOR.fields_by_name[kind].number


def test_a_kind_is_numbered_as_its_payload() -> None:
    """The enum for filters and the oneof agree, as the contract says."""
    payload = events_pb2.RunEvent.DESCRIPTOR.oneofs_by_name["payload"]

    assert {field.name: field.number for field in payload.fields} == {
        name.removeprefix("EVENT_KIND_").lower(): number
        for name, number in events_pb2.EventKind.items()
        if number
    }


def test_times_of_a_step_in_an_event() -> None:
    """It begins with its first event, unless the payload knows better, and ends with its last."""
    started = event("step_started", PAYLOADS["step_started"]).step_started.step
    ended = event(
        "step_completed",
        {
            "step": SHOWN_STEP
            | {"status": "completed", "started_at": (NOON - timedelta(hours=1)).isoformat()}
        },
    ).step_completed.step

    assert (started.start_time.ToDatetime(NOON.tzinfo), started.HasField("end_time")) == (
        NOON,
        False,
    )
    assert ended.start_time.ToDatetime(NOON.tzinfo) == NOON - timedelta(hours=1)
    assert ended.end_time.ToDatetime(NOON.tzinfo) == NOON


def test_an_opened_gate_tells_its_deadline_and_a_closed_one_its_end() -> None:
    opened = event("gate_waiting", PAYLOADS["gate_waiting"]).gate_waiting.gate
    closed = event("gate_resolved", PAYLOADS["gate_resolved"]).gate_resolved

    assert opened.deadline_time.ToDatetime(NOON.tzinfo) == NOON + timedelta(minutes=1)
    assert [(each.key, each.label) for each in opened.options] == [("y", "Yes")]
    assert closed.gate.resolve_time.ToDatetime(NOON.tzinfo) == NOON
    assert (closed.gate.resolved_by, closed.HasField("step")) == ("zoe", False)


def test_the_items_of_a_foreach() -> None:
    """Where they stand, what they wait for, when they began and ended, and the counts."""
    collected = event("fan_out_items_collected", PAYLOADS["fan_out_items_collected"])
    started = event("fan_out_item_started", PAYLOADS["fan_out_item_started"])
    completed = event("fan_out_item_completed", PAYLOADS["fan_out_item_completed"])

    counts = collected.fan_out_items_collected.step.fan_out
    assert (counts.total, counts.completed, counts.skipped) == (3, 0, 1)
    item = started.fan_out_item_started.item
    assert (item.run_id, item.step_run_id, item.child_run_id) == (RUN, STEP, ulid(2))
    assert (item.position, list(item.blockers), item.item_id) == (4, [0, 3], "T-4")
    assert (item.status, dict(item.context)) == (
        types_pb2.FAN_OUT_ITEM_STATUS_RUNNING,
        {"title": "Fix it"},
    )
    assert item.dispatch_time.ToDatetime(NOON.tzinfo) == NOON
    ended = completed.fan_out_item_completed
    assert (ended.item.error, ended.item.status) == ("no", types_pb2.FAN_OUT_ITEM_STATUS_FAILED)
    assert ended.item.complete_time.ToDatetime(NOON.tzinfo) == NOON
    assert (ended.counts.total, ended.counts.failed, ended.truncated) == (3, 1, True)


def test_the_end_of_a_child_run_says_how() -> None:
    finished = event("child_run_finished", PAYLOADS["child_run_finished"]).child_run_finished

    assert (finished.status, finished.error) == (types_pb2.RUN_STATUS_FAILED, "no")
    assert (finished.child_run_id, finished.fan_out_item_id) == (ulid(2), f"{STEP}/4")


def test_every_column_of_a_step_is_shown_or_internal() -> None:
    """A column that nobody thought of would be missing in silence."""
    internal = {"workflow_run_id", "at", "step_key", "retryable", "fatal"}
    internal |= {"child_epoch", "child_end"}
    times = {"started_at", "ended_at"}
    gate = {each.name for each in fields(StepRow) if each.name.startswith("gate_")}
    counts = {f"fan_out_{name}" for name in ("total", "completed", "failed", "skipped")}
    columns = {each.name for each in fields(StepRow)} - internal - times - gate - counts
    shown = {"context_out": "context", "markers_out": "markers"}

    assert {shown.get(name, name) for name in columns} <= set(
        types_pb2.Step.DESCRIPTOR.fields_by_name
    )


def test_a_retry_says_when() -> None:
    retrying = event("step_retrying", PAYLOADS["step_retrying"]).step_retrying

    assert (retrying.attempt, retrying.delay.ToMilliseconds()) == (2, 1500)

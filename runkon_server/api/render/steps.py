"""Steps, as rows and as events show them."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runkon.v1 import types_pb2
from runkon_server.api.render.runs import shorten_blocked_on
from runkon_server.api.render.values import metrics, options, seconds, timestamp
from runkon_server.store.rows import StepRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

STATUSES: Final = {
    name.removeprefix("STEP_STATUS_").lower(): number
    for name, number in types_pb2.StepStatus.items()
}
ROLES: Final = {
    name.removeprefix("STEP_ROLE_").lower(): number for name, number in types_pb2.StepRole.items()
}
_COLUMNS: Final = tuple(each.name for each in fields(StepRow))
_RENAMED: Final = {"context_out": "context", "markers_out": "markers"}
ALIKE: Final[Mapping[str, str]] = MappingProxyType(
    {
        column: field
        for column in _COLUMNS
        if (field := _RENAMED.get(column, column)) in types_pb2.Step.DESCRIPTOR.fields_by_name
        and column not in ("status", "role", "metrics", "blocked_on")
    }
)
"""The field of each column whose values are shown as they are."""


def render_step(step: StepRow) -> types_pb2.Step:
    """One row of a step."""
    columns = {name: value for name in _COLUMNS if (value := getattr(step, name)) is not None}
    approved = step.gate_approved_at if step.status == "completed" else None
    return types_pb2.Step(
        run_id=step.workflow_run_id,
        start_time=timestamp(step.started_at),
        end_time=timestamp(step.ended_at),
        blocked_on=shorten_blocked_on(step.blocked_on) if step.blocked_on else None,
        **step_fields(columns, timestamp(approved)),
    )


def step_fields(
    columns: Mapping[str, Any], approve_time: Timestamp | None = None
) -> dict[str, Any]:
    """The fields of a `Step` but its run and its times, for the constructor of a message.

    Args:
        columns: by their names; none of them null, some of them perhaps of a newer server.
        approve_time: when the gate was approved, if it is one that was.
    """
    shown = {ALIKE[name]: value for name, value in columns.items() if name in ALIKE}
    shown["status"] = STATUSES.get(columns["status"], types_pb2.STEP_STATUS_UNSPECIFIED)
    shown["role"] = ROLES.get(columns.get("role", "actor"), types_pb2.STEP_ROLE_UNSPECIFIED)
    if "metrics" in columns:
        shown["metrics"] = metrics(columns["metrics"])
    if "gate_type" in columns:
        shown["gate"] = _gate_fields(columns, approve_time)
    if columns.get("fan_out_total") is not None:
        shown["fan_out"] = {name: columns.get(f"fan_out_{name}", 0) for name in _COUNTS}
    return shown


_COUNTS: Final = ("total", "completed", "failed", "skipped")


def _gate_fields(columns: Mapping[str, Any], approve_time: Timestamp | None) -> dict[str, Any]:
    return {
        # A gate has the id of its step; one that a dry run approved was never opened.
        "gate_id": columns["id"] if columns.get("role") == "gate" else "",
        "type": columns["gate_type"],
        "prompt": columns.get("gate_prompt"),
        "timeout": seconds(columns.get("gate_timeout")),
        "approved_by": columns.get("gate_approved_by"),
        "approve_time": approve_time,
        "feedback": columns.get("gate_feedback"),
        "options": options(columns.get("gate_options")),
        "selections": columns.get("gate_selections"),
    }

"""The tables as SQLAlchemy Core sees them; the migrations make them, and a test compares the two.

Only what reads and the short transactions of `store` use by name stands here as columns with types:
the committer's statements are plain SQL (`locking`, `writing`).
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata: Final = MetaData()


def _text(*names: str) -> list[Column[Any]]:
    return [Column(name, Text) for name in names]


def _integer(*names: str) -> list[Column[Any]]:
    return [Column(name, Integer) for name in names]


def _bigint(*names: str) -> list[Column[Any]]:
    return [Column(name, BigInteger) for name in names]


def _boolean(*names: str) -> list[Column[Any]]:
    return [Column(name, Boolean) for name in names]


def _instant(*names: str) -> list[Column[Any]]:
    return [Column(name, DateTime(timezone=True)) for name in names]


def _json(*names: str) -> list[Column[Any]]:
    return [Column(name, JSONB(none_as_null=True)) for name in names]


workflows: Final = Table(
    "workflows",
    metadata,
    *_text("namespace", "name"),
    *_bigint("version"),
    *_text("content_hash", "title", "description", "source", "created_by"),
    *_json("output_schemas", "snippets"),
    *_instant("created_at"),
)

deleted_workflows: Final = Table(
    "deleted_workflows",
    metadata,
    *_text("namespace", "name"),
    *_bigint("last_version"),
    *_text("deleted_by"),
    *_instant("deleted_at"),
)

definitions: Final = Table(
    "definitions",
    metadata,
    *_text("namespace", "content_hash", "snapshot"),
    *_json("output_schemas", "snippets"),
    *_instant("created_at"),
)

runs: Final = Table(
    "workflow_runs",
    metadata,
    *_text("id", "namespace", "workflow_name", "status", "phase"),
    *_text("parent_run_id", "parent_workflow_run_id", "body_outcome", "owner_token"),
    *_boolean("dry_run", "fail_fast", "dismissed", "force", "parent_notified"),
    Column("priority", SmallInteger),
    *_integer("iteration", "epoch", "infra_attempts", "descendants"),
    *_instant("created_at", "started_at", "ended_at", "lease_until", "ready_at"),
    *_json("blocked_on"),
    *_bigint("generation", "last_seq", "fact_seq", "applied_fact_seq"),
)

run_details: Final = Table(
    "run_details",
    metadata,
    *_text("run_id", "namespace", "key", "content_hash", "workflow_title", "trigger", "started_by"),
    *_text("resume_mode", "cancel_reason", "body_error", "error", "result_summary"),
    *_text("root_run_id", "parent_step_id", "fan_out_item_id", "identity"),
    *_bigint("workflow_version"),
    *_integer("depth"),
    Column("grace_s", Double),
    *_json("inputs", "labels", "metrics"),
    *_instant("scheduled_at"),
)

run_labels: Final = Table("run_labels", metadata, *_text("namespace", "key", "value", "run_id"))

run_keys: Final = Table("run_keys", metadata, *_text("namespace", "key", "run_id"))

requests: Final = Table(
    "requests",
    metadata,
    *_text("namespace", "request_id", "method", "digest"),
    *_json("response"),
    *_instant("created_at"),
)

steps: Final = Table(
    "workflow_run_steps",
    metadata,
    *_text("workflow_run_id", "id", "at", "path", "step_name", "step_key", "role", "status"),
    *_text("condition_expr", "child_run_id", "result_text", "context_out", "structured_output"),
    *_text("output_file", "step_error", "error_code", "parallel_group_id", "child_end"),
    *_text("gate_type", "gate_prompt", "gate_timeout", "gate_approved_by", "gate_feedback"),
    *_boolean("can_commit", "condition_met", "retryable", "fatal"),
    *_integer("position", "iteration", "epoch", "superseded_epoch", "retry_count", "child_epoch"),
    *_integer("fan_out_total", "fan_out_completed", "fan_out_failed", "fan_out_skipped"),
    Column("iterations", ARRAY(Integer)),
    *_instant("started_at", "ended_at", "gate_approved_at"),
    *_json("markers_out", "metrics", "gate_options", "gate_selections"),
    *_json("child_results", "blocked_on"),
)

items: Final = Table(
    "workflow_run_step_fan_out_items",
    metadata,
    *_text("workflow_run_id", "step_run_id", "id", "item_type", "item_id", "item_ref", "status"),
    *_text("child_run_id", "child_end", "structured_output", "error"),
    *_integer("ordinal", "child_epoch"),
    Column("blockers", ARRAY(Integer)),
    *_instant("dispatched_at", "completed_at"),
    *_json("context", "blocked_on"),
)

run_events: Final = Table(
    "run_events",
    metadata,
    *_text("run_id", "kind", "payload"),
    *_bigint("seq", "generation"),
    *_integer("epoch"),
    *_instant("at"),
    Column("xid", Text),
)

run_tombstones: Final = Table(
    "run_tombstones",
    metadata,
    *_text("run_id", "namespace", "workflow_name", "status"),
    *_integer("epoch"),
    *_bigint("last_seq"),
    *_instant("ended_at", "purged_at"),
    *_boolean("is_swept"),
)

gates: Final = Table(
    "gates",
    metadata,
    *_text("run_id", "id", "namespace", "step_id", "name", "gate_type", "prompt", "on_timeout"),
    *_text("state", "resolved_by", "on_behalf_of", "feedback"),
    *_text("approval_mode"),
    *_integer("iteration", "approvers", "min_approvals"),
    *_boolean("exclude_starter"),
    *_json("options", "selections"),
    *_instant("opened_at", "deadline_at", "resolved_at"),
)

gate_votes: Final = Table(
    "gate_votes",
    metadata,
    *_text("run_id", "gate_id", "principal", "decision", "feedback", "on_behalf_of"),
    *_integer("n"),
    *_json("selections"),
    *_instant("at"),
)

workers: Final = Table(
    "workers",
    metadata,
    *_text("namespace", "worker_id", "replica_token", "replica", "client"),
    *(Column(name, ARRAY(Text)) for name in ("queues", "actions", "item_providers", "gate_types")),
    *_boolean("scripts", "polls"),
    *_integer("concurrency"),
    *_instant("connected_at", "seen_at", "expires_at"),
)

settings: Final = Table("settings", metadata, *_text("name", "value"), *_instant("created_at"))

"""The second half of a batch: every row of every entry, one statement per table, then COMMIT.

Also one round trip. Rows travel as one JSON document per table: a missing key is NULL, so wide
sparse rows cost what they hold (measured: equal to binary arrays on narrow rows, less on wide ones,
ADR-0006). Times are the batch's instant, stamped by the rules of `core.decision`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runkon_server.store.locking import run_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from runkon_server.core.decision import StepWrite
    from runkon_server.store.locking import LockedRun
    from runkon_server.store.pipeline import Parameter, Pipeline


def to_json(value: object) -> str:
    """JSON text of plain values; tuples become arrays, NaN and infinity null."""
    return orjson.dumps(value).decode()


@dataclass(slots=True)
class NewRun:
    """A run to insert, with its details; the counters come from the entry's `LockedRun`."""

    run: dict[str, Any]
    details: dict[str, Any]


@dataclass(slots=True)
class Writes:
    """Rows collected from the entries of a batch. Later writes to a step fold into earlier ones."""

    new_runs: list[NewRun] = field(default_factory=list)
    definitions: dict[tuple[str, str], str] = field(default_factory=dict)
    step_inserts: dict[str, dict[str, Any]] = field(default_factory=dict)
    step_updates: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Each a JSON object already, see `add_event`."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    applied_facts: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    task_ends: list[dict[str, Any]] = field(default_factory=list)
    task_cancels: list[dict[str, Any]] = field(default_factory=list)
    timers: list[dict[str, Any]] = field(default_factory=list)
    cleared_timers: list[str] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    gate_ends: list[dict[str, Any]] = field(default_factory=list)
    votes: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    released_requests: list[tuple[str, str]] = field(default_factory=list)

    def add_event(
        self, run_id: str, *, seq: int, epoch: int, kind: str, generation: int, payload: str
    ) -> None:
        """Add one event; `payload` is JSON text, ids and kinds need no escaping."""
        self.events.append(
            f'{{"r":"{run_id}","s":{seq},"e":{epoch},"k":"{kind}","g":{generation},"p":{payload}}}'
        )

    def add_step(self, write: StepWrite) -> None:
        """Add one step row or change; a change to a row inserted by this batch joins it."""
        target = self.step_inserts.get(write.step_id)
        if target is None:
            rows = self.step_inserts if write.insert else self.step_updates
            target = rows.setdefault(
                write.step_id, {"workflow_run_id": run_of(write.step_id), "id": write.step_id}
            )
        target.update(write.columns)


_STEP_COLUMNS = """
    workflow_run_id text, id text, at text, path text, step_name text, step_key text, role text,
    condition_expr text, condition_met boolean, status text, position integer, iteration integer,
    iterations integer[], epoch integer, superseded_epoch integer, retry_count integer,
    result_text text, context_out text, markers_out jsonb, structured_output text,
    output_file text, step_error text, error_code text, retryable boolean, fatal boolean,
    metrics jsonb, parallel_group_id text, gate_type text, gate_prompt text, gate_timeout text,
    gate_options jsonb, gate_approved_by text, gate_feedback text, gate_selections jsonb"""

INSERT_STEPS = f"""
INSERT INTO workflow_run_steps (workflow_run_id, id, at, path, step_name, step_key, role,
    condition_expr, condition_met, status, position, iteration, iterations, epoch,
    superseded_epoch, retry_count, result_text, context_out, markers_out, structured_output,
    output_file, step_error, error_code, retryable, fatal, metrics, parallel_group_id, gate_type,
    gate_prompt, gate_timeout, gate_options, gate_approved_by, gate_feedback, gate_selections,
    started_at, ended_at, gate_approved_at)
SELECT u.workflow_run_id, u.id, u.at, coalesce(u.path, ''), u.step_name, u.step_key, u.role,
    u.condition_expr, u.condition_met, u.status, coalesce(u.position, 0), coalesce(u.iteration, 0),
    coalesce(u.iterations, '{{}}'), coalesce(u.epoch, 1), u.superseded_epoch,
    coalesce(u.retry_count, 0), u.result_text, u.context_out, u.markers_out, u.structured_output,
    u.output_file, u.step_error, u.error_code, u.retryable, u.fatal, u.metrics,
    u.parallel_group_id, u.gate_type, u.gate_prompt, u.gate_timeout, u.gate_options,
    u.gate_approved_by, u.gate_feedback, u.gate_selections,
    CASE WHEN u.status NOT IN ('pending','skipped') THEN p.now END,
    CASE WHEN u.status IN ('completed','failed','skipped','timed_out') THEN p.now END,
    CASE WHEN u.gate_approved_by IS NOT NULL THEN p.now END
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u({_STEP_COLUMNS})"""

# Columns of a step only ever go from unset to set, so "absent" can mean "as it was".
UPDATE_STEPS = f"""
UPDATE workflow_run_steps s SET
    status = coalesce(u.status, s.status),
    started_at = CASE WHEN u.status IN ('running','waiting')
                      THEN coalesce(s.started_at, p.now) ELSE s.started_at END,
    ended_at = CASE WHEN u.status IN ('completed','failed','skipped','timed_out')
                    THEN coalesce(s.ended_at, p.now) ELSE s.ended_at END,
    retry_count = coalesce(u.retry_count, s.retry_count),
    superseded_epoch = coalesce(u.superseded_epoch, s.superseded_epoch),
    result_text = coalesce(u.result_text, s.result_text),
    context_out = coalesce(u.context_out, s.context_out),
    markers_out = coalesce(u.markers_out, s.markers_out),
    structured_output = coalesce(u.structured_output, s.structured_output),
    output_file = coalesce(u.output_file, s.output_file),
    step_error = coalesce(u.step_error, s.step_error),
    error_code = coalesce(u.error_code, s.error_code),
    retryable = coalesce(u.retryable, s.retryable),
    fatal = coalesce(u.fatal, s.fatal),
    metrics = coalesce(u.metrics, s.metrics),
    condition_met = coalesce(u.condition_met, s.condition_met),
    gate_approved_by = coalesce(u.gate_approved_by, s.gate_approved_by),
    gate_approved_at = CASE WHEN u.gate_approved_by IS NOT NULL THEN p.now
                            ELSE s.gate_approved_at END,
    gate_feedback = coalesce(u.gate_feedback, s.gate_feedback),
    gate_selections = coalesce(u.gate_selections, s.gate_selections)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u({_STEP_COLUMNS})
WHERE s.workflow_run_id = u.workflow_run_id AND s.id = u.id"""

INSERT_RUNS = """
INSERT INTO workflow_runs (id, namespace, workflow_name, status, phase, parent_run_id, dry_run,
    fail_fast, priority, created_at, started_at, ended_at, body_outcome, blocked_on, owner_token,
    lease_until, generation, last_seq, fact_seq, applied_fact_seq, ready_at)
SELECT u.id, u.namespace, u.workflow_name, u.status, u.phase, u.parent_run_id, u.dry_run,
    u.fail_fast, u.priority, p.now,
    CASE WHEN u.status <> 'pending' THEN p.now END,
    CASE WHEN u.status IN ('completed','failed','cancelled') THEN p.now END,
    u.body_outcome, u.blocked_on, u.owner_token,
    CASE WHEN u.owner_token IS NOT NULL THEN p.now + make_interval(secs => p.ttl) END,
    u.generation, u.last_seq, u.fact_seq, u.applied_fact_seq,
    p.now + make_interval(secs => u.ready_in_s)
FROM (SELECT $1::timestamptz AS now, $2::float8 AS ttl) p, json_to_recordset($3::json) AS u(
    id text, namespace text, workflow_name text, status text, phase text, parent_run_id text,
    dry_run boolean, fail_fast boolean, priority smallint, body_outcome text, blocked_on jsonb,
    owner_token text, generation bigint, last_seq bigint, fact_seq bigint,
    applied_fact_seq bigint, ready_in_s float8)"""

INSERT_DETAILS = """
INSERT INTO run_details (run_id, namespace, key, workflow_version, content_hash, workflow_title,
    trigger, started_by, inputs, labels, scheduled_at, cancel_reason, body_error, error,
    result_summary, metrics)
SELECT u.run_id, u.namespace, u.key, u.workflow_version, u.content_hash, u.workflow_title,
    u.trigger, u.started_by, u.inputs, u.labels, p.now + make_interval(secs => u.delay_s),
    u.cancel_reason, u.body_error, u.error, u.result_summary, coalesce(u.metrics, '{}')
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, namespace text, key text, workflow_version bigint, content_hash text,
    workflow_title text, trigger text, started_by text, inputs jsonb, labels jsonb,
    delay_s float8, cancel_reason text, body_error text, error text, result_summary text,
    metrics jsonb)"""

# `lease`: keep, take (by this replica), drop. `ready`: keep, now, timers (the next one), never.
UPDATE_RUNS = """
UPDATE workflow_runs r SET
    status = u.status,
    phase = coalesce(u.phase, r.phase),
    body_outcome = coalesce(u.body_outcome, r.body_outcome),
    force = coalesce(u.force, r.force),
    iteration = coalesce(u.iteration, r.iteration),
    blocked_on = CASE WHEN u.set_blocked THEN u.blocked_on ELSE r.blocked_on END,
    started_at = CASE WHEN u.status <> 'pending' THEN coalesce(r.started_at, p.now)
                      ELSE r.started_at END,
    ended_at = CASE WHEN u.status IN ('completed','failed','cancelled')
                    THEN coalesce(r.ended_at, p.now) ELSE r.ended_at END,
    owner_token = CASE u.lease WHEN 'take' THEN p.token WHEN 'drop' THEN NULL
                               ELSE r.owner_token END,
    lease_until = CASE u.lease WHEN 'take' THEN p.now + make_interval(secs => p.ttl)
                               WHEN 'drop' THEN NULL ELSE r.lease_until END,
    generation = u.generation, last_seq = u.last_seq, fact_seq = u.fact_seq,
    applied_fact_seq = u.applied_fact_seq,
    ready_at = CASE u.ready WHEN 'now' THEN least(r.ready_at, p.now)
                            WHEN 'timers' THEN (SELECT min(t.due_at) FROM timers t
                                                WHERE t.run_id = r.id)
                            WHEN 'never' THEN NULL ELSE r.ready_at END,
    infra_attempts = CASE WHEN u.progress THEN 0 ELSE r.infra_attempts END
FROM (SELECT $1::timestamptz AS now, $2::float8 AS ttl, $3::text AS token) p,
    json_to_recordset($4::json) AS u(
    id text, status text, phase text, body_outcome text, force boolean, iteration integer,
    set_blocked boolean, blocked_on jsonb, lease text, generation bigint, last_seq bigint,
    fact_seq bigint, applied_fact_seq bigint, ready text, progress boolean)
WHERE r.id = u.id"""

UPDATE_DETAILS = """
UPDATE run_details d SET
    cancel_reason = coalesce(u.cancel_reason, d.cancel_reason),
    body_error = coalesce(u.body_error, d.body_error),
    error = coalesce(u.error, d.error),
    result_summary = coalesce(u.result_summary, d.result_summary),
    metrics = coalesce(u.metrics, d.metrics)
FROM json_to_recordset($1::json) AS u(run_id text, cancel_reason text, body_error text,
    error text, result_summary text, metrics jsonb)
WHERE d.run_id = u.run_id"""

# The payload travels as JSON inside JSON, not as text: nothing is escaped here and unescaped there,
# and the type `json` keeps its text as it was.
INSERT_EVENTS = """
INSERT INTO run_events (run_id, seq, epoch, kind, at, generation, payload)
SELECT u.r, u.s, u.e, u.k, p.now, u.g, u.p::text
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json)
    AS u(r text, s bigint, e integer, k text, g bigint, p json)"""

INSERT_FACTS = """
INSERT INTO facts (run_id, fact_seq, kind, payload, recorded_at)
SELECT u.run_id, u.fact_seq, u.kind, u.payload, p.now
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json)
    AS u(run_id text, fact_seq bigint, kind text, payload text)"""

DELETE_FACTS = """
DELETE FROM facts f USING json_to_recordset($1::json) AS u(run_id text, upto bigint)
WHERE f.run_id = u.run_id AND f.fact_seq <= u.upto"""

INSERT_TASKS = """
INSERT INTO tasks (run_id, id, namespace, step_id, kind, action, priority, state, token, worker_id,
    lease_until, created_at, deadline_at, payload)
SELECT u.run_id, u.id, u.namespace, u.step_id, 'action', u.action, u.priority,
    CASE WHEN u.token IS NULL THEN 'queued' ELSE 'leased' END, u.token, u.worker_id,
    CASE WHEN u.token IS NOT NULL THEN p.now + make_interval(secs => p.ttl) END, p.now,
    p.now + make_interval(secs => u.timeout_s), u.payload
FROM (SELECT $1::timestamptz AS now, $2::float8 AS ttl) p, json_to_recordset($3::json) AS u(
    run_id text, id text, namespace text, step_id text, action text, priority smallint,
    token text, worker_id text, timeout_s float8, payload text)"""

# No condition on the state: tasks and gates end only under their run's lock, so the entry knows it;
# and a filter would tempt the planner to read the whole index instead of probing by key.
END_TASKS = """
UPDATE tasks t SET state = u.state, digest = coalesce(u.digest, t.digest), lease_until = NULL
FROM json_to_recordset($1::json) AS u(run_id text, id text, state text, digest text)
WHERE t.run_id = u.run_id AND t.id = u.id"""

CANCEL_TASKS = """
UPDATE tasks t SET cancel_requested_at = coalesce(t.cancel_requested_at, p.now),
    cancel_reason = coalesce(t.cancel_reason, u.reason)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json)
    AS u(run_id text, id text, reason text)
WHERE t.run_id = u.run_id AND t.id = u.id"""

INSERT_TIMERS = """
INSERT INTO timers (run_id, id, kind, step_id, attempt, due_at)
SELECT u.run_id, u.id, u.kind, u.step_id, u.attempt, p.now + make_interval(secs => u.delay_s)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json)
    AS u(run_id text, id text, kind text, step_id text, attempt integer, delay_s float8)"""

DELETE_TIMERS = """
DELETE FROM timers t USING unnest($1::text[], $2::text[]) AS u(r, i)
WHERE t.run_id = u.r AND t.id = u.i"""

INSERT_GATES = """
INSERT INTO gates (run_id, id, namespace, step_id, name, gate_type, iteration, prompt, options,
    approvers, exclude_starter, on_timeout, opened_at, deadline_at)
SELECT u.run_id, u.id, u.namespace, u.step_id, u.name, u.gate_type, u.iteration, u.prompt,
    u.options, u.approvers, u.exclude_starter, u.on_timeout, p.now,
    p.now + make_interval(secs => u.timeout_s)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, id text, namespace text, step_id text, name text, gate_type text,
    iteration integer, prompt text, options jsonb, approvers integer, exclude_starter boolean,
    on_timeout text, timeout_s float8)"""

END_GATES = """
UPDATE gates g SET state = u.state, resolved_at = p.now, resolved_by = u.resolved_by,
    on_behalf_of = u.on_behalf_of, feedback = u.feedback, selections = u.selections
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, id text, state text, resolved_by text, on_behalf_of text, feedback text,
    selections jsonb)
WHERE g.run_id = u.run_id AND g.id = u.id"""

INSERT_VOTES = """
INSERT INTO gate_votes (run_id, gate_id, principal, n, decision, feedback, selections,
    on_behalf_of, at)
SELECT u.run_id, u.gate_id, u.principal, u.n, u.decision, u.feedback, u.selections,
    u.on_behalf_of, p.now
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, gate_id text, principal text, n integer, decision text, feedback text,
    selections jsonb, on_behalf_of text)"""

INSERT_DEFINITIONS = """
INSERT INTO definitions (namespace, content_hash, snapshot)
SELECT u.n, u.h, u.s FROM json_to_recordset($1::json) AS u(n text, h text, s text)
ORDER BY 1, 2 ON CONFLICT DO NOTHING"""

MOVE_KEYS = """
UPDATE run_keys k SET run_id = u.run_id
FROM json_to_recordset($1::json) AS u(namespace text, key text, run_id text)
WHERE k.namespace = u.namespace AND k.key = u.key"""

STORE_RESPONSES = """
UPDATE requests q SET response = u.response
FROM json_to_recordset($1::json) AS u(namespace text, request_id text, response jsonb)
WHERE q.namespace = u.namespace AND q.request_id = u.request_id"""

RELEASE_REQUESTS = """
DELETE FROM requests q USING unnest($1::text[], $2::text[]) AS u(n, r)
WHERE q.namespace = u.n AND q.request_id = u.r"""

NOTIFY = "SELECT pg_notify('runkon', $1)"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every statement of a batch shares."""

    now: datetime
    lease_ttl_s: float
    task_lease_s: float
    owner_token: str


def run_update(run: LockedRun) -> dict[str, Any]:
    """The row that `UPDATE_RUNS` takes for a run that was touched."""
    return {
        "id": run.id,
        "status": run.status,
        "generation": run.generation,
        "last_seq": run.last_seq,
        "fact_seq": run.fact_seq,
        "applied_fact_seq": run.applied_fact_seq,
        **run.changes,
    }


async def write(
    pipeline: Pipeline,
    writes: Writes,
    touched: Iterable[LockedRun],
    stamp: Stamp,
    *,
    notice: str | None,
) -> None:
    """Send everything and COMMIT, in one round trip.

    Args:
        notice: payload for the other replicas, a hint; None sends nothing.

    Raises:
        psycopg.Error: nothing was committed, unless the connection broke: then the outcome is
            unknown and `Locked.xid` tells.
    """
    now, lease, work = stamp.now, stamp.lease_ttl_s, stamp.task_lease_s
    updates = [run_update(run) for run in touched if run.changes]
    new, steps, moved = writes.new_runs, writes.step_inserts, writes.step_updates
    timers = writes.cleared_timers
    # Inserts come before updates of the same table: one batch may open and end the same row.
    statements: list[tuple[str, object, tuple[Parameter, ...]]] = [
        (INSERT_DEFINITIONS, writes.definitions, (_definitions(writes.definitions),)),
        (INSERT_RUNS, new, (now, lease, to_json([n.run for n in new]))),
        (INSERT_DETAILS, new, (now, to_json([n.details for n in new]))),
        (INSERT_STEPS, steps, (now, to_json(list(steps.values())))),
        (UPDATE_STEPS, moved, (now, to_json(list(moved.values())))),
        (INSERT_EVENTS, writes.events, (now, f"[{','.join(writes.events)}]")),
        (INSERT_FACTS, writes.facts, (now, to_json(writes.facts))),
        (DELETE_FACTS, writes.applied_facts, (to_json(writes.applied_facts),)),
        (INSERT_TASKS, writes.tasks, (now, work, to_json(writes.tasks))),
        (CANCEL_TASKS, writes.task_cancels, (now, to_json(writes.task_cancels))),
        (END_TASKS, writes.task_ends, (to_json(writes.task_ends),)),
        (DELETE_TIMERS, timers, ([run_of(i) for i in timers], timers)),
        (INSERT_TIMERS, writes.timers, (now, to_json(writes.timers))),
        (INSERT_GATES, writes.gates, (now, to_json(writes.gates))),
        (INSERT_VOTES, writes.votes, (now, to_json(writes.votes))),
        (END_GATES, writes.gate_ends, (now, to_json(writes.gate_ends))),
        (UPDATE_DETAILS, writes.details, (to_json(writes.details),)),
        (UPDATE_RUNS, updates, (now, lease, stamp.owner_token, to_json(updates))),
        (MOVE_KEYS, writes.keys, (to_json(writes.keys),)),
        (STORE_RESPONSES, writes.responses, (to_json(writes.responses),)),
        (RELEASE_REQUESTS, writes.released_requests, _released(writes.released_requests)),
    ]
    chosen = [(statement, parameters) for statement, rows, parameters in statements if rows]
    if notice is not None:
        chosen.append((NOTIFY, (notice,)))
    await pipeline.run([*chosen, ("COMMIT", ())])


def _definitions(definitions: dict[tuple[str, str], str]) -> str:
    return to_json([{"n": n, "h": h, "s": s} for (n, h), s in definitions.items()])


def _released(requests: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [n for n, _ in requests], [r for _, r in requests]

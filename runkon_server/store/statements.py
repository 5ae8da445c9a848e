"""What the committer writes with: one statement per table, each taking its rows as one document.

All of them are prepared on connections whose planner has no choice (ADR-0006), so they join by
whole primary keys and have no further conditions. Times are the batch's instant.
"""

from __future__ import annotations

_STEP_COLUMNS = """
    workflow_run_id text, id text, at text, path text, step_name text, step_key text, role text,
    condition_expr text, condition_met boolean, status text, position integer, iteration integer,
    iterations integer[], epoch integer, superseded_epoch integer, retry_count integer,
    result_text text, context_out text, markers_out jsonb, structured_output text,
    output_file text, step_error text, error_code text, retryable boolean, fatal boolean,
    metrics jsonb, parallel_group_id text, gate_type text, gate_prompt text, gate_timeout text,
    gate_options jsonb, gate_approved_by text, gate_feedback text, gate_selections jsonb,
    child_run_id text, child_epoch integer, child_end text, child_results jsonb, blocked_on jsonb,
    fan_out_total integer, fan_out_completed integer, fan_out_failed integer,
    fan_out_skipped integer"""

INSERT_STEPS = f"""
INSERT INTO workflow_run_steps (workflow_run_id, id, at, path, step_name, step_key, role,
    condition_expr, condition_met, status, position, iteration, iterations, epoch,
    superseded_epoch, retry_count, result_text, context_out, markers_out, structured_output,
    output_file, step_error, error_code, retryable, fatal, metrics, parallel_group_id, gate_type,
    gate_prompt, gate_timeout, gate_options, gate_approved_by, gate_feedback, gate_selections,
    child_run_id, child_epoch, child_end, child_results, blocked_on, fan_out_total,
    fan_out_completed, fan_out_failed, fan_out_skipped, started_at, ended_at, gate_approved_at)
SELECT u.workflow_run_id, u.id, u.at, coalesce(u.path, ''), u.step_name, u.step_key, u.role,
    u.condition_expr, u.condition_met, u.status, coalesce(u.position, 0), coalesce(u.iteration, 0),
    coalesce(u.iterations, '{{}}'), coalesce(u.epoch, 1), u.superseded_epoch,
    coalesce(u.retry_count, 0), u.result_text, u.context_out, u.markers_out, u.structured_output,
    u.output_file, u.step_error, u.error_code, u.retryable, u.fatal, u.metrics,
    u.parallel_group_id, u.gate_type, u.gate_prompt, u.gate_timeout, u.gate_options,
    u.gate_approved_by, u.gate_feedback, u.gate_selections, u.child_run_id, u.child_epoch,
    u.child_end, u.child_results, u.blocked_on, u.fan_out_total, u.fan_out_completed,
    u.fan_out_failed, u.fan_out_skipped,
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
    gate_selections = coalesce(u.gate_selections, s.gate_selections),
    child_run_id = coalesce(u.child_run_id, s.child_run_id),
    child_epoch = coalesce(u.child_epoch, s.child_epoch),
    child_end = coalesce(u.child_end, s.child_end),
    child_results = coalesce(u.child_results, s.child_results),
    blocked_on = coalesce(u.blocked_on, s.blocked_on),
    fan_out_total = coalesce(u.fan_out_total, s.fan_out_total),
    fan_out_completed = coalesce(u.fan_out_completed, s.fan_out_completed),
    fan_out_failed = coalesce(u.fan_out_failed, s.fan_out_failed),
    fan_out_skipped = coalesce(u.fan_out_skipped, s.fan_out_skipped)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u({_STEP_COLUMNS})
WHERE s.workflow_run_id = u.workflow_run_id AND s.id = u.id"""

_ITEM_COLUMNS = """
    r text, s text, ordinal integer, id text, item_type text, item_id text, item_ref text,
    context jsonb, blockers integer[], status text, child_run_id text, child_epoch integer,
    child_end text, structured_output text, error text, blocked_on jsonb"""

# A row that is inserted as completed was carried over from an earlier epoch: no times.
INSERT_ITEMS = f"""
INSERT INTO workflow_run_step_fan_out_items (workflow_run_id, step_run_id, ordinal, id, item_type,
    item_id, item_ref, context, blockers, status, child_run_id, child_epoch, child_end,
    structured_output, error, blocked_on, dispatched_at, completed_at)
SELECT u.r, u.s, u.ordinal, u.id, coalesce(u.item_type, ''), u.item_id, coalesce(u.item_ref, ''),
    coalesce(u.context, '{{}}'), coalesce(u.blockers, '{{}}'), coalesce(u.status, 'pending'),
    u.child_run_id, u.child_epoch, u.child_end, u.structured_output, u.error, u.blocked_on,
    CASE WHEN u.status = 'running' THEN p.now END,
    CASE WHEN u.status IN ('failed','skipped') THEN p.now END
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u({_ITEM_COLUMNS})"""

UPDATE_ITEMS = f"""
UPDATE workflow_run_step_fan_out_items i SET
    status = coalesce(u.status, i.status),
    dispatched_at = CASE WHEN u.status = 'running' THEN p.now ELSE i.dispatched_at END,
    completed_at = CASE WHEN u.status IN ('completed','failed','skipped') THEN p.now
                        ELSE i.completed_at END,
    child_run_id = coalesce(u.child_run_id, i.child_run_id),
    child_epoch = coalesce(u.child_epoch, i.child_epoch),
    child_end = coalesce(u.child_end, i.child_end),
    structured_output = coalesce(u.structured_output, i.structured_output),
    error = coalesce(u.error, i.error),
    blocked_on = coalesce(u.blocked_on, i.blocked_on)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u({_ITEM_COLUMNS})
WHERE i.workflow_run_id = u.r AND i.step_run_id = u.s AND i.ordinal = u.ordinal"""

INSERT_RUNS = """
INSERT INTO workflow_runs (id, namespace, workflow_name, status, phase, parent_run_id,
    parent_workflow_run_id, dry_run, fail_fast, priority, created_at, started_at, ended_at,
    body_outcome, blocked_on, owner_token, lease_until, generation, last_seq, fact_seq,
    applied_fact_seq, ready_at)
SELECT u.id, u.namespace, u.workflow_name, u.status, u.phase, u.parent_run_id,
    u.parent_workflow_run_id, u.dry_run, u.fail_fast, u.priority, p.now,
    CASE WHEN u.status <> 'pending' THEN p.now END,
    CASE WHEN u.status IN ('completed','failed','cancelled') THEN p.now END,
    u.body_outcome, u.blocked_on, u.owner_token,
    CASE WHEN u.owner_token IS NOT NULL THEN p.now + make_interval(secs => p.ttl) END,
    u.generation, u.last_seq, u.fact_seq, u.applied_fact_seq,
    p.now + make_interval(secs => u.ready_in_s)
FROM (SELECT $1::timestamptz AS now, $2::float8 AS ttl) p, json_to_recordset($3::json) AS u(
    id text, namespace text, workflow_name text, status text, phase text, parent_run_id text,
    parent_workflow_run_id text, dry_run boolean, fail_fast boolean, priority smallint,
    body_outcome text, blocked_on jsonb,
    owner_token text, generation bigint, last_seq bigint, fact_seq bigint,
    applied_fact_seq bigint, ready_in_s float8)"""

INSERT_DETAILS = """
INSERT INTO run_details (run_id, namespace, key, workflow_version, content_hash, workflow_title,
    trigger, started_by, inputs, labels, scheduled_at, cancel_reason, body_error, error,
    result_summary, metrics, root_run_id, depth, parent_step_id, fan_out_item_id, identity,
    grace_s)
SELECT u.run_id, u.namespace, u.key, u.workflow_version, u.content_hash, u.workflow_title,
    u.trigger, u.started_by, u.inputs, u.labels, p.now + make_interval(secs => u.delay_s),
    u.cancel_reason, u.body_error, u.error, u.result_summary, coalesce(u.metrics, '{}'),
    u.root_run_id, coalesce(u.depth, 0), u.parent_step_id, u.fan_out_item_id, u.identity,
    coalesce(u.grace_s, 300)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, namespace text, key text, workflow_version bigint, content_hash text,
    workflow_title text, trigger text, started_by text, inputs jsonb, labels jsonb,
    delay_s float8, cancel_reason text, body_error text, error text, result_summary text,
    metrics jsonb, root_run_id text, depth integer, parent_step_id text, fan_out_item_id text,
    identity text, grace_s float8)"""

# A run that `reopens` begins an epoch: what the one before came to is no longer so.
# `lease`: keep, take (by this replica), drop. `ready`: keep, now, timers (the next one), never.
UPDATE_RUNS = """
UPDATE workflow_runs r SET
    status = u.status,
    epoch = coalesce(u.epoch, r.epoch),
    phase = coalesce(u.phase, CASE WHEN u.reopens THEN 'body' ELSE r.phase END),
    body_outcome = coalesce(u.body_outcome, CASE WHEN u.reopens THEN NULL ELSE r.body_outcome END),
    force = coalesce(u.force, CASE WHEN u.reopens THEN false ELSE r.force END),
    iteration = coalesce(u.iteration, r.iteration),
    blocked_on = CASE WHEN u.set_blocked THEN u.blocked_on ELSE r.blocked_on END,
    started_at = CASE WHEN u.status <> 'pending' THEN coalesce(r.started_at, p.now)
                      ELSE r.started_at END,
    ended_at = CASE WHEN u.status NOT IN ('completed','failed','cancelled') THEN NULL
                    WHEN u.reopens THEN p.now ELSE coalesce(r.ended_at, p.now) END,
    parent_notified = coalesce(u.parent_notified, r.parent_notified),
    descendants = coalesce(u.descendants, r.descendants),
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
    fact_seq bigint, applied_fact_seq bigint, ready text, progress boolean, epoch integer,
    reopens boolean, parent_notified boolean, descendants integer)
WHERE r.id = u.id"""

UPDATE_DETAILS = """
UPDATE run_details d SET
    cancel_reason = coalesce(u.cancel_reason, CASE WHEN NOT u.reopens THEN d.cancel_reason END),
    body_error = coalesce(u.body_error, CASE WHEN NOT u.reopens THEN d.body_error END),
    error = coalesce(u.error, CASE WHEN NOT u.reopens THEN d.error END),
    result_summary = coalesce(u.result_summary, CASE WHEN NOT u.reopens THEN d.result_summary END),
    resume_mode = coalesce(u.resume_mode, d.resume_mode),
    metrics = coalesce(u.metrics, d.metrics)
FROM (SELECT t.run_id, coalesce(t.reopens, false) AS reopens, t.resume_mode, t.cancel_reason,
             t.body_error, t.error, t.result_summary, t.metrics
      FROM json_to_recordset($1::json) AS t(run_id text, reopens boolean, resume_mode text,
          cancel_reason text, body_error text, error text, result_summary text, metrics jsonb)) u
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
INSERT INTO tasks (run_id, id, namespace, queue, step_id, kind, action, priority, state, token,
    worker_id, lease_until, created_at, deadline_at, payload)
SELECT u.run_id, u.id, u.namespace, coalesce(u.queue, ''), u.step_id, u.kind, u.action, u.priority,
    CASE WHEN u.token IS NULL THEN 'queued' ELSE 'leased' END, u.token, u.worker_id,
    CASE WHEN u.token IS NOT NULL THEN p.now + make_interval(secs => p.ttl) END, p.now,
    p.now + make_interval(secs => u.timeout_s), u.payload
FROM (SELECT $1::timestamptz AS now, $2::float8 AS ttl) p, json_to_recordset($3::json) AS u(
    run_id text, id text, namespace text, queue text, step_id text, kind text, action text,
    priority smallint, token text, worker_id text, timeout_s float8, payload text)"""

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
    approvers, exclude_starter, on_timeout, min_approvals, approval_mode, opened_at, deadline_at)
SELECT u.run_id, u.id, u.namespace, u.step_id, u.name, u.gate_type, u.iteration, u.prompt,
    u.options, u.approvers, u.exclude_starter, u.on_timeout, u.min_approvals, u.approval_mode,
    p.now, p.now + make_interval(secs => u.timeout_s)
FROM (SELECT $1::timestamptz AS now) p, json_to_recordset($2::json) AS u(
    run_id text, id text, namespace text, step_id text, name text, gate_type text,
    iteration integer, prompt text, options jsonb, approvers integer, exclude_starter boolean,
    on_timeout text, timeout_s float8, min_approvals integer, approval_mode text)"""

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
INSERT INTO definitions (namespace, content_hash, snapshot, output_schemas, snippets)
SELECT u.n, u.h, u.s, u.o, u.t
FROM json_to_recordset($1::json) AS u(n text, h text, s text, o jsonb, t jsonb)
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

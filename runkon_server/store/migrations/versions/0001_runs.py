"""Workflows, runs, steps, events, facts, tasks, gates, timers, requests."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

WORKFLOWS = """
CREATE TABLE workflows (
    namespace      text        COLLATE "C" NOT NULL,
    name           text        COLLATE "C" NOT NULL,
    version        bigint      NOT NULL CHECK (version > 0),
    content_hash   text        COLLATE "C" NOT NULL,
    title          text,
    description    text        NOT NULL DEFAULT '',
    source         text        NOT NULL,
    output_schemas jsonb       NOT NULL DEFAULT '{}',
    snippets       jsonb       NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by     text        NOT NULL DEFAULT '',
    PRIMARY KEY (namespace, name, version)
);
CREATE TABLE definitions (
    namespace    text        COLLATE "C" NOT NULL,
    content_hash text        COLLATE "C" NOT NULL,
    snapshot     text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, content_hash)
);
"""

# No foreign keys between the tables of one run: each would lock and look up the run's row once more
# per inserted row, and every writer holds that lock already. A purge deletes by run id.
#
# The hot row: copied by every decision, so it is narrow, and no column that changes per decision is
# indexed (the partial indexes are on columns that change when a run parks, wakes or ends).
RUNS = """
CREATE TABLE workflow_runs (
    id                     text        COLLATE "C" PRIMARY KEY CHECK (length(id) = 26),
    namespace              text        COLLATE "C" NOT NULL,
    workflow_name          text        COLLATE "C" NOT NULL,
    status                 text        COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending','running','waiting','cancelling','completed','failed','cancelled','needs_resume')),
    phase                  text        COLLATE "C" NOT NULL DEFAULT 'body'
        CHECK (phase IN ('body','always','done')),
    parent_run_id          text        COLLATE "C",
    parent_workflow_run_id text        COLLATE "C",
    dry_run                boolean     NOT NULL DEFAULT false,
    fail_fast              boolean     NOT NULL DEFAULT true,
    dismissed              boolean     NOT NULL DEFAULT false,
    force                  boolean     NOT NULL DEFAULT false,
    priority               smallint    NOT NULL DEFAULT 0,
    iteration              integer     NOT NULL DEFAULT 0,
    epoch                  integer     NOT NULL DEFAULT 1,
    created_at             timestamptz NOT NULL,
    started_at             timestamptz,
    ended_at               timestamptz,
    body_outcome           text        COLLATE "C",
    blocked_on             jsonb,
    owner_token            text        COLLATE "C",
    lease_until            timestamptz,
    generation             bigint      NOT NULL DEFAULT 0,
    last_seq               bigint      NOT NULL DEFAULT 0,
    fact_seq               bigint      NOT NULL DEFAULT 0,
    applied_fact_seq       bigint      NOT NULL DEFAULT 0,
    ready_at               timestamptz,
    infra_attempts         integer     NOT NULL DEFAULT 0,
    CHECK ((owner_token IS NULL) = (lease_until IS NULL)),
    CHECK (applied_fact_seq <= fact_seq),
    CHECK ((status IN ('completed','failed','cancelled')) = (ended_at IS NOT NULL)),
    CHECK (status <> 'waiting' OR blocked_on IS NOT NULL)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX workflow_runs_ready ON workflow_runs (ready_at)
    WHERE ready_at IS NOT NULL AND owner_token IS NULL;
CREATE INDEX workflow_runs_owned ON workflow_runs (owner_token) WHERE owner_token IS NOT NULL;
CREATE INDEX workflow_runs_by_namespace ON workflow_runs (namespace, id);

CREATE TABLE run_details (
    run_id           text        COLLATE "C" PRIMARY KEY,
    namespace        text        COLLATE "C" NOT NULL,
    key              text        COLLATE "C",
    workflow_version bigint,
    content_hash     text        COLLATE "C" NOT NULL,
    workflow_title   text,
    trigger          text        NOT NULL DEFAULT '',
    started_by       text        NOT NULL DEFAULT '',
    inputs           jsonb       NOT NULL DEFAULT '{}',
    labels           jsonb       NOT NULL DEFAULT '{}',
    scheduled_at     timestamptz,
    resume_mode      text,
    cancel_reason    text,
    body_error       text,
    error            text,
    result_summary   text,
    metrics          jsonb       NOT NULL DEFAULT '{}'
) WITH (fillfactor = 85);

CREATE TABLE run_keys (
    namespace text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    run_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key)
);
CREATE TABLE requests (
    namespace  text        COLLATE "C" NOT NULL,
    request_id text        COLLATE "C" NOT NULL,
    method     text        COLLATE "C" NOT NULL,
    digest     text        COLLATE "C" NOT NULL,
    response   jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, request_id)
);
CREATE INDEX requests_by_age ON requests (created_at);
"""

GUARDS = """
CREATE FUNCTION runkon_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run %: % is final, refused %', OLD.id, OLD.status, NEW.status
        USING ERRCODE = 'RK001';
END $$;
CREATE TRIGGER workflow_runs_terminal BEFORE UPDATE ON workflow_runs FOR EACH ROW
    WHEN (OLD.status IN ('completed','failed','cancelled') AND NEW.epoch = OLD.epoch
          AND NEW.status <> OLD.status)
    EXECUTE FUNCTION runkon_refuse_transition();
CREATE TRIGGER workflow_runs_cancelling BEFORE UPDATE ON workflow_runs FOR EACH ROW
    WHEN (OLD.status = 'cancelling' AND NEW.epoch = OLD.epoch
          AND NEW.status NOT IN ('cancelling','cancelled'))
    EXECUTE FUNCTION runkon_refuse_transition();
CREATE TRIGGER workflow_runs_generation BEFORE UPDATE ON workflow_runs FOR EACH ROW
    WHEN (NEW.generation < OLD.generation OR NEW.last_seq < OLD.last_seq
          OR NEW.fact_seq < OLD.fact_seq OR NEW.epoch < OLD.epoch)
    EXECUTE FUNCTION runkon_refuse_transition();
"""

STEPS = """
CREATE TABLE workflow_run_steps (
    workflow_run_id   text        COLLATE "C" NOT NULL,
    id                text        COLLATE "C" NOT NULL,
    at                text        COLLATE "C" NOT NULL,
    path              text        NOT NULL DEFAULT '',
    step_name         text        NOT NULL DEFAULT '',
    step_key          text        NOT NULL DEFAULT '',
    role              text        COLLATE "C" NOT NULL DEFAULT 'actor'
        CHECK (role IN ('actor','workflow','script','foreach','gate','reviewer')),
    can_commit        boolean     NOT NULL DEFAULT false,
    condition_expr    text,
    condition_met     boolean,
    status            text        COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending','running','waiting','completed','failed','skipped','timed_out')),
    child_run_id      text        COLLATE "C",
    position          integer     NOT NULL DEFAULT 0,
    iteration         integer     NOT NULL DEFAULT 0,
    iterations        integer[]   NOT NULL DEFAULT '{}',
    epoch             integer     NOT NULL DEFAULT 1,
    superseded_epoch  integer,
    retry_count       integer     NOT NULL DEFAULT 0,
    started_at        timestamptz,
    ended_at          timestamptz,
    result_text       text,
    context_out       text,
    markers_out       jsonb,
    structured_output text,
    output_file       text,
    step_error        text,
    error_code        text,
    retryable         boolean,
    fatal             boolean,
    metrics           jsonb,
    parallel_group_id text,
    gate_type         text,
    gate_prompt       text,
    gate_timeout      text,
    gate_options      jsonb,
    gate_approved_by  text,
    gate_approved_at  timestamptz,
    gate_feedback     text,
    gate_selections   jsonb,
    PRIMARY KEY (workflow_run_id, id),
    CHECK ((status IN ('completed','failed','skipped','timed_out')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
"""

EVENTS = """
CREATE TABLE run_events (
    run_id     text        COLLATE "C" NOT NULL,
    seq        bigint      NOT NULL CHECK (seq > 0),
    epoch      integer     NOT NULL,
    kind       text        COLLATE "C" NOT NULL,
    at         timestamptz NOT NULL,
    generation bigint      NOT NULL,
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    payload    text        NOT NULL,
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);
CREATE TABLE run_events_default PARTITION OF run_events DEFAULT;
CREATE UNIQUE INDEX run_events_one_end ON run_events (run_id, epoch) WHERE kind = 'run_finished';
CREATE UNIQUE INDEX run_events_one_always ON run_events (run_id, epoch)
    WHERE kind = 'always_started';
CREATE TABLE facts (
    run_id      text        COLLATE "C" NOT NULL,
    fact_seq    bigint      NOT NULL,
    kind        text        COLLATE "C" NOT NULL,
    payload     text        NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, fact_seq)
);
"""

# Step ids sort after their run id, and task ids after their step id, so one primary key serves
# both the lookup of one row and the load of a whole run.
WORK = """
CREATE TABLE tasks (
    run_id              text        COLLATE "C" NOT NULL,
    id                  text        COLLATE "C" NOT NULL,
    namespace           text        COLLATE "C" NOT NULL,
    step_id             text        COLLATE "C" NOT NULL,
    kind                text        COLLATE "C" NOT NULL CHECK (kind IN ('action')),
    action              text        COLLATE "C" NOT NULL,
    priority            smallint    NOT NULL DEFAULT 0,
    state               text        COLLATE "C" NOT NULL
        CHECK (state IN ('queued','leased','done','abandoned')),
    delivery            integer     NOT NULL DEFAULT 0,
    token               text        COLLATE "C",
    worker_id           text        COLLATE "C",
    lease_until         timestamptz,
    cancel_requested_at timestamptz,
    cancel_reason       text        COLLATE "C",
    created_at          timestamptz NOT NULL,
    deadline_at         timestamptz,
    digest              text        COLLATE "C",
    payload             text        NOT NULL,
    PRIMARY KEY (run_id, id),
    CHECK (state <> 'leased' OR (token IS NOT NULL AND lease_until IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX tasks_queue ON tasks (namespace, action, priority DESC, created_at)
    WHERE state = 'queued';
CREATE INDEX tasks_leases ON tasks (lease_until) WHERE state = 'leased';
CREATE INDEX tasks_unstarted_cancels ON tasks (run_id)
    WHERE state = 'queued' AND cancel_requested_at IS NOT NULL;

CREATE TABLE gates (
    run_id          text        COLLATE "C" NOT NULL,
    id              text        COLLATE "C" NOT NULL,
    namespace       text        COLLATE "C" NOT NULL,
    step_id         text        COLLATE "C" NOT NULL,
    name            text        COLLATE "C" NOT NULL,
    gate_type       text        COLLATE "C" NOT NULL,
    iteration       integer     NOT NULL DEFAULT 0,
    prompt          text,
    options         jsonb,
    approvers       integer     NOT NULL DEFAULT 1 CHECK (approvers > 0),
    exclude_starter boolean     NOT NULL DEFAULT false,
    on_timeout      text        COLLATE "C" NOT NULL DEFAULT 'fail',
    state           text        COLLATE "C" NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending','approved','rejected','timed_out','cancelled')),
    opened_at       timestamptz NOT NULL,
    deadline_at     timestamptz,
    resolved_at     timestamptz,
    resolved_by     text,
    on_behalf_of    text,
    feedback        text,
    selections      jsonb,
    PRIMARY KEY (run_id, id),
    CHECK ((state = 'pending') = (resolved_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX gates_pending ON gates (namespace, opened_at, id) WHERE state = 'pending';
CREATE INDEX gates_by_namespace ON gates (namespace, id);
CREATE TABLE gate_votes (
    run_id       text        COLLATE "C" NOT NULL,
    gate_id      text        COLLATE "C" NOT NULL,
    principal    text        COLLATE "C" NOT NULL,
    n            integer     NOT NULL,
    decision     text        COLLATE "C" NOT NULL CHECK (decision IN ('approve','reject')),
    feedback     text,
    selections   jsonb,
    on_behalf_of text,
    at           timestamptz NOT NULL,
    PRIMARY KEY (run_id, gate_id, principal)
);
CREATE TABLE timers (
    run_id  text        COLLATE "C" NOT NULL,
    id      text        COLLATE "C" NOT NULL,
    kind    text        COLLATE "C" NOT NULL
        CHECK (kind IN ('start','retry','deadline','grace','gate')),
    step_id text        COLLATE "C",
    attempt integer     NOT NULL DEFAULT 0,
    due_at  timestamptz NOT NULL,
    PRIMARY KEY (run_id, id)
);
"""


def upgrade() -> None:
    """Create everything."""
    for part in (WORKFLOWS, RUNS, GUARDS, STEPS, EVENTS, WORK):
        op.execute(part)

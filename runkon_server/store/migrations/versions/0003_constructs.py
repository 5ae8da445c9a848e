"""What children, items, scripts, polls and resumes need beside the rows there were."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

# Output schemas and snippets belong to a definition as much as its source does: its hash covers
# them, and runs of an inline source have no row in `workflows`.
DEFINITIONS = """
ALTER TABLE definitions
    ADD COLUMN output_schemas jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN snippets       jsonb NOT NULL DEFAULT '{}';
UPDATE definitions d SET output_schemas = w.output_schemas, snippets = w.snippets
FROM workflows w
WHERE w.namespace = d.namespace AND w.content_hash = d.content_hash
  AND (w.output_schemas <> '{}' OR w.snippets <> '{}');
"""

# `parent_notified` is false while a child's parent has not been told how the child stands now: it
# has ended, or it began or ceased to wait for a gate. `descendants` counts at the root only.
#
# The indexes are partial and no row qualifies yet, so building one is a single pass over a narrow
# table; CONCURRENTLY would wait for the replica that waits for the lock of this migration.
RUNS = """
ALTER TABLE workflow_runs
    ADD COLUMN parent_notified boolean NOT NULL DEFAULT true,
    ADD COLUMN descendants     integer NOT NULL DEFAULT 0;
CREATE INDEX workflow_runs_unnotified ON workflow_runs (id) WHERE NOT parent_notified;
CREATE INDEX workflow_runs_by_parent ON workflow_runs (parent_workflow_run_id, id)
    WHERE parent_workflow_run_id IS NOT NULL;

ALTER TABLE run_details
    ADD COLUMN root_run_id     text    COLLATE "C",
    ADD COLUMN depth           integer NOT NULL DEFAULT 0,
    ADD COLUMN parent_step_id  text    COLLATE "C",
    ADD COLUMN fan_out_item_id text    COLLATE "C",
    ADD COLUMN identity        text,
    ADD COLUMN grace_s         float8  NOT NULL DEFAULT 300;
"""

STEPS = """
ALTER TABLE workflow_run_steps
    ADD COLUMN child_epoch       integer,
    ADD COLUMN child_end         text COLLATE "C",
    ADD COLUMN child_results     jsonb,
    ADD COLUMN blocked_on        jsonb,
    ADD COLUMN fan_out_total     integer,
    ADD COLUMN fan_out_completed integer,
    ADD COLUMN fan_out_failed    integer,
    ADD COLUMN fan_out_skipped   integer;
"""

# The id of an item is its step's and its ordinal, so one key serves the pages of a step, the load
# of a run and the change of an item.
ITEMS = """
CREATE TABLE workflow_run_step_fan_out_items (
    workflow_run_id   text        COLLATE "C" NOT NULL,
    step_run_id       text        COLLATE "C" NOT NULL,
    ordinal           integer     NOT NULL CHECK (ordinal >= 0),
    id                text        COLLATE "C" NOT NULL,
    item_type         text        COLLATE "C" NOT NULL DEFAULT '',
    item_id           text        COLLATE "C" NOT NULL,
    item_ref          text        NOT NULL DEFAULT '',
    context           jsonb       NOT NULL DEFAULT '{}',
    blockers          integer[]   NOT NULL DEFAULT '{}',
    status            text        COLLATE "C" NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending','running','completed','failed','skipped')),
    child_run_id      text        COLLATE "C",
    child_epoch       integer,
    child_end         text        COLLATE "C",
    structured_output text,
    error             text,
    blocked_on        jsonb,
    dispatched_at     timestamptz,
    completed_at      timestamptz,
    PRIMARY KEY (workflow_run_id, step_run_id, ordinal)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX fan_out_items_one_child
    ON workflow_run_step_fan_out_items (workflow_run_id, step_run_id, child_run_id)
    WHERE child_run_id IS NOT NULL;
"""

# NOT VALID: rows of today meet the narrower checks of yesterday, so nothing needs to be read while
# the table is locked; step 0004 reads them without that lock.
WORK = """
ALTER TABLE tasks DROP CONSTRAINT tasks_kind_check,
    ADD CONSTRAINT tasks_kind_check
        CHECK (kind IN ('action','script','items','gate')) NOT VALID;
CREATE INDEX tasks_queue_scripts ON tasks (namespace, priority DESC, created_at)
    WHERE state = 'queued' AND kind = 'script';
CREATE INDEX tasks_queue_items ON tasks (action, priority DESC, created_at)
    WHERE state = 'queued' AND kind = 'items';

ALTER TABLE timers DROP CONSTRAINT timers_kind_check,
    ADD CONSTRAINT timers_kind_check
        CHECK (kind IN ('start','retry','deadline','grace','gate','poll')) NOT VALID;

ALTER TABLE gates
    ADD COLUMN min_approvals integer NOT NULL DEFAULT 1,
    ADD COLUMN approval_mode text COLLATE "C" NOT NULL DEFAULT 'min_approvals';
"""


def upgrade() -> None:
    """Add everything."""
    for part in (DEFINITIONS, RUNS, STEPS, ITEMS, WORK):
        op.execute(part)

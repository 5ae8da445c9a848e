"""What lists of runs walk along: status, workflow and labels, each in the order of creation."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None

# The status changes when a run begins, parks, wakes or ends, and such an update moves the row
# anyway: `owner_token` and `ready_at`, which change with it, are indexed.
STATUSES = """
CREATE INDEX workflow_runs_by_status ON workflow_runs (namespace, status, id);
CREATE INDEX workflow_runs_by_workflow ON workflow_runs (namespace, workflow_name, status, id);
"""

# A table with one row per label, not a GIN index on `run_details.labels`: see ADR-0016.
#
# A trigger fills it, so that replicas of the version before do so, too.
LABELS = """
CREATE TABLE run_labels (
    namespace text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    value     text COLLATE "C" NOT NULL,
    run_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, key, value, run_id)
);
CREATE FUNCTION runkon_add_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_labels (namespace, key, value, run_id)
    SELECT NEW.namespace, l.key, l.value, NEW.run_id FROM jsonb_each_text(NEW.labels) l;
    RETURN NULL;
END $$;
CREATE TRIGGER run_details_labels AFTER INSERT ON run_details FOR EACH ROW
    WHEN (NEW.labels <> '{}')
    EXECUTE FUNCTION runkon_add_labels();
INSERT INTO run_labels (namespace, key, value, run_id)
SELECT d.namespace, l.key, l.value, d.run_id
FROM run_details d, jsonb_each_text(d.labels) l
WHERE d.labels <> '{}';
"""


def upgrade() -> None:
    """Add both."""
    op.execute(STATUSES)
    op.execute(LABELS)

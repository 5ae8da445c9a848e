"""How long runs are kept, and what remains of those that are not."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None

# The row of namespace '' is for all namespaces without one of their own; without it the release's
# own default applies. A `keep_for` of NULL means for ever.
RETENTION = """
CREATE TABLE retention (
    namespace  text        COLLATE "C" PRIMARY KEY,
    keep_for   interval    CHECK (keep_for >= interval '0'),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

# Roots only: the runs below one go with it.
ENDED = """
CREATE INDEX workflow_runs_ended ON workflow_runs (namespace, ended_at, id)
    WHERE ended_at IS NOT NULL AND parent_workflow_run_id IS NULL;
"""

# `is_swept` is false as long as runs below this one are still to be removed.
TOMBSTONES = """
CREATE TABLE run_tombstones (
    run_id        text        COLLATE "C" PRIMARY KEY,
    namespace     text        COLLATE "C" NOT NULL,
    workflow_name text        COLLATE "C" NOT NULL,
    status        text        COLLATE "C" NOT NULL,
    epoch         integer     NOT NULL,
    last_seq      bigint      NOT NULL,
    ended_at      timestamptz NOT NULL,
    purged_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_swept      boolean     NOT NULL DEFAULT true
);
CREATE INDEX run_tombstones_by_age ON run_tombstones (purged_at);
CREATE INDEX run_tombstones_unswept ON run_tombstones (run_id) WHERE NOT is_swept;
"""


def upgrade() -> None:
    """Add the three."""
    for part in (RETENTION, ENDED, TOMBSTONES):
        op.execute(part)

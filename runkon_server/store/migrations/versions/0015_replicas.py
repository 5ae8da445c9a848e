"""Which replicas there are, and the names of workflows that were deleted."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision: str | None = "0014"
branch_labels: str | None = None
depends_on: str | None = None

# Like `workers`, worth nothing after a crash of the database: each replica writes its row anew.
REPLICAS = """
CREATE UNLOGGED TABLE replicas (
    token       text        COLLATE "C" PRIMARY KEY,
    owner_token text        COLLATE "C" NOT NULL,
    replica     text        NOT NULL,
    version     text        NOT NULL,
    is_draining boolean     NOT NULL,
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
"""

# Rows of `workflows` go when their name is deleted. What stays says why there are none, and where
# the versions go on should the name come back.
DELETED = """
CREATE TABLE deleted_workflows (
    namespace    text        COLLATE "C" NOT NULL,
    name         text        COLLATE "C" NOT NULL,
    last_version bigint      NOT NULL,
    deleted_by   text        NOT NULL,
    deleted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
);
"""


def upgrade() -> None:
    """Make both tables."""
    op.execute(REPLICAS)
    op.execute(DELETED)

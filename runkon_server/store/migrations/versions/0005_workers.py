"""Who is connected to which replica, for lists; tasks are handed out without a look at it."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

# Worth nothing after a crash of the database: every replica writes its rows anew. So they need no
# write-ahead log, and a refresh every few seconds costs no disk.
#
# The room in the pages keeps refreshes from touching the index.
WORKERS = """
CREATE UNLOGGED TABLE workers (
    namespace      text COLLATE "C" NOT NULL,
    worker_id      text COLLATE "C" NOT NULL,
    replica_token  text COLLATE "C" NOT NULL,
    replica        text             NOT NULL,
    client         text             NOT NULL,
    actions        text[]           NOT NULL,
    item_providers text[]           NOT NULL,
    gate_types     text[]           NOT NULL,
    scripts        boolean          NOT NULL,
    concurrency    integer          NOT NULL,
    polls          boolean          NOT NULL,
    connected_at   timestamptz      NOT NULL,
    seen_at        timestamptz      NOT NULL,
    expires_at     timestamptz      NOT NULL,
    PRIMARY KEY (namespace, worker_id, replica_token)
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(WORKERS)

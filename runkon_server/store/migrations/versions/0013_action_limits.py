"""How many tasks of an action may be out at once, and how many may be handed out in a second."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

# The row is also the lock under which tasks of the action are handed out, and the bucket: `tokens`
# is how many were left at `counted_at`.
LIMITS = """
CREATE TABLE action_limits (
    namespace   text             COLLATE "C" NOT NULL,
    action      text             COLLATE "C" NOT NULL,
    concurrency integer          CHECK (concurrency >= 0),
    per_s       double precision CHECK (per_s > 0),
    tokens      double precision NOT NULL DEFAULT 1,
    counted_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, action)
) WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(LIMITS)

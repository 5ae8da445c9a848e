"""The events of a namespace in the order of their commits."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

# The transaction only: what one batch writes shares it, equal keys are stored once, and new ones
# always go to the right end. The order within a transaction is sorted out by whoever reads.
FEED = """
CREATE INDEX run_events_feed ON run_events (xid);
CREATE TABLE feed_floors (
    namespace text COLLATE "C" PRIMARY KEY,
    xid       xid8 NOT NULL
);
"""


def upgrade() -> None:
    """Make the index and the table."""
    op.execute(FEED)

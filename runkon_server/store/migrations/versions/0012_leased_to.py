"""Which tasks a worker has: it is asked for whenever a worker connects."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None

LEASED_TO = "CREATE INDEX tasks_leased_to ON tasks (worker_id) WHERE state = 'leased'"


def upgrade() -> None:
    """Add the index."""
    op.execute(LEASED_TO)

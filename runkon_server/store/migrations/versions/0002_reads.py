"""What reads need beyond the rows themselves: the database's own settings, gates by age."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

# Values that every replica must agree on and nobody configures, such as the key that signs page
# tokens. Made by whoever asks first.
SETTINGS = """
CREATE TABLE settings (
    name       text        COLLATE "C" PRIMARY KEY,
    value      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

# ListGates gives closed gates oldest first; neither column ever changes.
GATES_BY_AGE = "CREATE INDEX gates_by_age ON gates (namespace, opened_at, id)"


def upgrade() -> None:
    """Create both."""
    op.execute(SETTINGS)
    op.execute(GATES_BY_AGE)

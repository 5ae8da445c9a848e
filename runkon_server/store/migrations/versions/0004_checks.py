"""Look whether rows meet the checks that step 0003 widened, while others go on writing."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Validate both checks."""
    op.execute("ALTER TABLE tasks VALIDATE CONSTRAINT tasks_kind_check")
    op.execute("ALTER TABLE timers VALIDATE CONSTRAINT timers_kind_check")

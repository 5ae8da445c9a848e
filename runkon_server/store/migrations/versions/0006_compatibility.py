"""From here on the database says which releases may work on its schema."""

from __future__ import annotations

from alembic import op

from runkon_server.store.migrations import compatible_from

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Say so."""
    op.execute(compatible_from("0005"))

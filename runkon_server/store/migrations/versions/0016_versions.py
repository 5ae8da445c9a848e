"""Versions of a workflow whose name was deleted go on, whoever stores it again."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision: str | None = "0015"
branch_labels: str | None = None
depends_on: str | None = None

# A replica of the release before knows nothing of `deleted_workflows` and would begin again at 1.
# The name is locked by whoever stores or deletes it, so what is read here stays.
VERSIONS = """
CREATE FUNCTION runkon_go_on_with_versions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := greatest(NEW.version, (
        SELECT d.last_version + 1 FROM deleted_workflows d
        WHERE d.namespace = NEW.namespace AND d.name = NEW.name));
    RETURN NEW;
END $$;
CREATE TRIGGER workflows_versions BEFORE INSERT ON workflows FOR EACH ROW
    EXECUTE FUNCTION runkon_go_on_with_versions();
"""


def upgrade() -> None:
    """Add who sees to it."""
    op.execute(VERSIONS)

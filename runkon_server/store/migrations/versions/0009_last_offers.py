"""When the last worker for something went, so that a run can say since when it has nobody."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

# Written when a worker's row goes, whoever removes it, in one order, so that two removals at once
# cannot wait for each other within a row. Without a write-ahead log, as `workers` itself.
LAST_OFFERS = """
CREATE UNLOGGED TABLE last_offers (
    namespace text        COLLATE "C" NOT NULL,
    kind      text        COLLATE "C" NOT NULL,
    name      text        COLLATE "C" NOT NULL,
    gone_at   timestamptz NOT NULL,
    PRIMARY KEY (namespace, kind, name)
);
CREATE FUNCTION runkon_note_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO last_offers (namespace, kind, name, gone_at)
    SELECT OLD.namespace, o.kind, o.name, least(OLD.expires_at, clock_timestamp())
    FROM (SELECT 'action' AS kind, unnest(OLD.actions) AS name
          UNION SELECT 'items', unnest(OLD.item_providers)
          UNION SELECT 'gate', unnest(OLD.gate_types)
          UNION SELECT 'script', '' WHERE OLD.scripts) o
    ORDER BY o.kind, o.name
    ON CONFLICT (namespace, kind, name)
        DO UPDATE SET gone_at = greatest(last_offers.gone_at, excluded.gone_at);
    RETURN NULL;
END $$;
CREATE TRIGGER workers_last_offers AFTER DELETE ON workers FOR EACH ROW
    EXECUTE FUNCTION runkon_note_offers();
"""


def upgrade() -> None:
    """Add the table and who writes it."""
    op.execute(LAST_OFFERS)

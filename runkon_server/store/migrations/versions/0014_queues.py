"""Queues: tasks that only workers of the same queue are given."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision: str | None = "0013"
branch_labels: str | None = None
depends_on: str | None = None

# The queue comes before the action: what waits in queues that a worker does not serve is not read
# by its claims, whether it names its actions or takes all. Claims of the release before find their
# rows by the namespace that both indexes begin with.
TASKS = """
ALTER TABLE tasks ADD COLUMN queue text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX tasks_waiting ON tasks (namespace, queue, action, priority DESC, created_at)
    WHERE state = 'queued';
CREATE INDEX tasks_waiting_scripts ON tasks (namespace, queue, priority DESC, created_at)
    WHERE state = 'queued' AND kind = 'script';
DROP INDEX tasks_queue;
DROP INDEX tasks_queue_scripts;
"""

WORKERS = """
ALTER TABLE workers ADD COLUMN queues text[] NOT NULL DEFAULT '{""}';
"""

# Since when a run has nobody depends on its queue, too. The function is all that writes the table.
LAST_OFFERS = """
ALTER TABLE last_offers ADD COLUMN queue text COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT last_offers_pkey, ADD PRIMARY KEY (namespace, kind, name, queue);
CREATE OR REPLACE FUNCTION runkon_note_offers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO last_offers (namespace, kind, name, queue, gone_at)
    SELECT OLD.namespace, o.kind, o.name, u.queue, least(OLD.expires_at, clock_timestamp())
    FROM (SELECT 'action' AS kind, unnest(OLD.actions) AS name
          UNION SELECT 'items', unnest(OLD.item_providers)
          UNION SELECT 'gate', unnest(OLD.gate_types)
          UNION SELECT 'script', '' WHERE OLD.scripts) o,
         unnest(OLD.queues) AS u(queue)
    ORDER BY o.kind, o.name, u.queue
    ON CONFLICT (namespace, kind, name, queue)
        DO UPDATE SET gone_at = greatest(last_offers.gone_at, excluded.gone_at);
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Add the column to all three tables, and index what waits by it."""
    for part in (TASKS, WORKERS, LAST_OFFERS):
        op.execute(part)

"""A table full of runs, written by a few statements: what a busy namespace looks like after weeks.

5 % wait at a gate, 1 % run, 3 % failed, 1 % were cancelled, the rest completed; one in 401 runs,
of whatever status, has the rare label. Nothing of it is owned, ready, or old enough to be removed,
so a server leaves it as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psycopg

WORKFLOWS: Final = 20
TEAMS: Final = 8
_CHARACTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SPAN: Final = "interval '28 days'"  # less than the retention of a new database

# A ULID: ten characters of time, then anything; hexadecimal digits are among its characters.
_TIME = " || ".join(
    f"substr('{_CHARACTERS}', 1 + ((ms >> {5 * place}) & 31)::int, 1)"
    for place in reversed(range(10))
)
_NUMBERED = f"""
CREATE TEMPORARY TABLE numbered AS
SELECT n, at, {_TIME} || upper(lpad(to_hex(n), 16, '0')) AS id,
       CASE WHEN n %% 100 < 5 THEN 'waiting' WHEN n %% 100 = 5 THEN 'running'
            WHEN n %% 100 < 9 THEN 'failed' WHEN n %% 100 = 9 THEN 'cancelled'
            ELSE 'completed' END AS status,
       'workflow-' || (n / 100) %% {WORKFLOWS} AS workflow,
       jsonb_build_object('team', 'team-' || (n / 7) %% {TEAMS}, 'region', 'r' || n %% 3)
           || CASE WHEN n %% 401 = 1 THEN '{{"rare": "yes"}}' ELSE '{{}}'::jsonb END AS labels
FROM (SELECT n, at, (extract(epoch FROM at) * 1000)::bigint AS ms
      FROM (SELECT n, now() - {_SPAN} * (1 - n::float8 / %(runs)s) AS at
            FROM generate_series(1, %(runs)s) n) a) b"""  # noqa: S608 - our own constants
_RUNS = """
INSERT INTO workflow_runs (id, namespace, workflow_name, status, phase, created_at, started_at,
    ended_at, body_outcome, blocked_on, generation, last_seq)
SELECT id, 'default', workflow, status, CASE WHEN ended THEN 'done' ELSE 'body' END, at, at,
    CASE WHEN ended THEN at + interval '1 minute' END, CASE WHEN ended THEN status END,
    CASE WHEN status = 'waiting' THEN jsonb_build_object('type', 'human_review') END, 1, 9
FROM (SELECT *, status IN ('completed', 'failed', 'cancelled') AS ended FROM numbered) x"""
_DETAILS = """
INSERT INTO run_details (run_id, namespace, content_hash, workflow_version, trigger, started_by,
    inputs, labels)
SELECT id, 'default', 'none', 1, 'bench', 'bench', '{"ticket": "T-1"}', labels FROM numbered"""
_LABELS = """
INSERT INTO run_labels (namespace, key, value, run_id)
SELECT 'default', l.key, l.value, id FROM numbered, jsonb_each_text(labels) l"""
_STEPS = """
INSERT INTO workflow_run_steps (workflow_run_id, id, at, step_name, status, started_at, ended_at)
SELECT id, id || '/b.0000/e1/0', 'b.0000', 'plan',
    CASE status WHEN 'waiting' THEN 'waiting' WHEN 'running' THEN 'running' ELSE 'completed' END,
    at, CASE WHEN status NOT IN ('waiting', 'running') THEN at END
FROM numbered WHERE status IN ('waiting', 'running')"""


def fill(conn: psycopg.Connection[object], runs: int) -> None:
    """Write so many runs, as if they had been started evenly over the last four weeks."""
    with conn.transaction():
        conn.execute(_NUMBERED, {"runs": runs})
        # One statement for all labels instead of one per run.
        conn.execute("ALTER TABLE run_details DISABLE TRIGGER run_details_labels")
        for statement in (_RUNS, _DETAILS, _LABELS, _STEPS):
            conn.execute(statement)
        conn.execute("ALTER TABLE run_details ENABLE TRIGGER run_details_labels")
        conn.execute("DROP TABLE numbered")
    conn.execute("VACUUM ANALYZE")

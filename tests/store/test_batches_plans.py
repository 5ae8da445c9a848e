"""The committer's statements go by a key, on empty tables and on full ones."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from runkon_server.store import locking, statements
from runkon_server.store.database import COMMITTER_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

ID: Final = "01M83JRVN0DTW1Q6YH3C1P269S"
STATEMENTS: Final = {
    "update runs": (statements.UPDATE_RUNS, "workflow_runs"),
    "update steps": (statements.UPDATE_STEPS, "workflow_run_steps"),
    "update items": (statements.UPDATE_ITEMS, "workflow_run_step_fan_out_items"),
    "update details": (statements.UPDATE_DETAILS, "run_details"),
    "end tasks": (statements.END_TASKS, "tasks"),
    "cancel tasks": (statements.CANCEL_TASKS, "tasks"),
    "end gates": (statements.END_GATES, "gates"),
    "delete facts": (statements.DELETE_FACTS, "facts"),
    "delete timers": (statements.DELETE_TIMERS, "timers"),
    "move keys": (statements.MOVE_KEYS, "run_keys"),
    "lock runs": (locking.LOCK_RUNS, "workflow_runs"),
    "lock tasks": (locking.LOCK_TASKS, "tasks"),
    "lock gates": (locking.LOCK_GATES, "gates"),
    "key holders": (locking.KEY_HOLDERS, "run_keys"),
    "timers": (locking.TIMERS, "timers"),
}
FILL: Final = """
INSERT INTO workflow_runs (id, namespace, workflow_name, created_at)
SELECT lpad(n::text, 26, '0'), 'default', 'w', now() FROM generate_series(1, 3000) n;
INSERT INTO run_details (run_id, namespace, content_hash)
SELECT id, namespace, 'h' FROM workflow_runs;
INSERT INTO run_keys SELECT namespace, id, id FROM workflow_runs;
INSERT INTO workflow_run_steps (workflow_run_id, id, at)
SELECT id, id || '/a', 'a' FROM workflow_runs;
INSERT INTO workflow_run_step_fan_out_items (workflow_run_id, step_run_id, ordinal, id, item_id)
SELECT id, id || '/a', 0, id || '/a/0', 'i' FROM workflow_runs;
INSERT INTO tasks (run_id, id, namespace, step_id, kind, action, state, payload, created_at)
SELECT id, id || '/a#0', namespace, id || '/a', 'action', 'a', 'queued', '', now()
FROM workflow_runs;
INSERT INTO gates (run_id, id, namespace, step_id, name, gate_type, opened_at)
SELECT id, id || '/g', namespace, id || '/g', 'g', 'human_review', now() FROM workflow_runs;
INSERT INTO timers (run_id, id, kind, due_at) SELECT id, id || ':t', 'retry', now()
FROM workflow_runs;
INSERT INTO facts SELECT id, 1, 'started', '{}', now() FROM workflow_runs"""


@pytest.fixture(params=["empty", "full", "full and analysed"])
def committer(database: str, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A session with the committer's settings."""
    options = " ".join(f"-c {name}={value}" for name, value in COMMITTER_SETTINGS.items())
    with psycopg.connect(database, autocommit=True, options=options) as conn:
        if request.param != "empty":
            conn.execute(FILL.encode())
        if request.param == "full and analysed":
            conn.execute("ANALYZE")
        yield conn


def plans_of(conn: psycopg.Connection, statement: str) -> list[dict[str, object]]:
    """All nodes of the statement's generic plan."""
    count = len(set(re.findall(r"\$\d+", statement)))
    conn.execute(f"PREPARE p AS {statement}".encode())
    nulls = ", ".join(["NULL"] * count)
    row = conn.execute(f"EXPLAIN (FORMAT JSON) EXECUTE p({nulls})".encode()).fetchone()
    conn.execute("DEALLOCATE p")
    assert row is not None
    found = row[0] if isinstance(row[0], list) else json.loads(row[0])
    nodes, todo = [], [found[0]["Plan"]]
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", [])
    return nodes


def test_every_statement_probes_by_a_key(committer: psycopg.Connection) -> None:
    """No sequential, no bitmap and no whole-index scan, no hash or merge join."""
    for name, (statement, table) in STATEMENTS.items():
        nodes = plans_of(committer, statement)
        scans = [
            n for n in nodes if n.get("Relation Name") == table and "Scan" in str(n["Node Type"])
        ]

        assert scans, name
        for scan in scans:
            assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}, (name, scan)
            assert "Index Cond" in scan, (name, scan)
        kinds = {node["Node Type"] for node in nodes}
        assert not kinds & {"Hash Join", "Merge Join", "Seq Scan", "Bitmap Heap Scan"}, name

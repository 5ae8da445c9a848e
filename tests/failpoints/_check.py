"""What must hold in a database after a case, by the numbers of the invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from support.engines import UNSOUND

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import LiteralString

    from runkon_client.values import RunStatus

QUERIES: Final[dict[str, LiteralString]] = {
    "S1 two owners in one generation, or S2 a falling one": """
        SELECT run_id FROM (SELECT run_id, generation, lag(generation) OVER
          (PARTITION BY run_id ORDER BY seq) AS before FROM run_events) AS e
        WHERE generation < before""",
    "S5 sequences are not 1…n": """
        SELECT r.id FROM workflow_runs r LEFT JOIN run_events e ON e.run_id = r.id
        GROUP BY r.id, r.last_seq
        HAVING array_agg(e.seq ORDER BY e.seq) <> ARRAY(SELECT generate_series(1, r.last_seq))""",
    "S9 not exactly one end per epoch, as its last event": """
        SELECT run_id, epoch FROM run_events GROUP BY run_id, epoch
        HAVING count(*) FILTER (WHERE kind = 'run_finished') <> 1
          OR max(seq) <> max(seq) FILTER (WHERE kind = 'run_finished')""",
    "S12 always blocks did not start once": """
        SELECT run_id, epoch FROM run_events WHERE kind = 'always_started'
        GROUP BY run_id, epoch HAVING count(*) <> 1""",
    "S13 a step completed twice": """
        SELECT run_id, payload::json -> 'step' ->> 'id' FROM run_events
        WHERE kind = 'step_completed' GROUP BY 1, 2 HAVING count(*) > 1""",
    "S18 a parent was not told of its child": """
        SELECT id FROM workflow_runs WHERE NOT parent_notified""",
    "tasks or timers of a run that is over": UNSOUND[2] + " UNION ALL " + UNSOUND[3],
    "facts left, or counted wrongly": UNSOUND[1] + " UNION ALL " + UNSOUND[4],
}
STATUSES: Final = "SELECT id, status FROM workflow_runs WHERE parent_workflow_run_id IS NULL"
DONE: Final = """
    SELECT t.payload::json ->> 'key', t.id FROM tasks t
    JOIN workflow_run_steps s ON s.workflow_run_id = t.run_id AND s.id = t.step_id
    WHERE t.kind = 'action' AND t.action <> 'echo' AND s.status = 'completed'
      AND t.state = 'done'"""


def problems(
    dsn: str, expected: Mapping[str, RunStatus], effects: Mapping[str, list[str]]
) -> list[str]:
    """What is wrong, in words; nothing if all is well.

    Args:
        dsn: the database.
        expected: how each run that was ever started there has to have ended.
        effects: idempotency key → tasks that workers executed under it.
    """
    found: list[str] = []
    with psycopg.connect(dsn) as conn:
        statuses: dict[str, str] = dict(conn.execute(STATUSES).fetchall())
        for run_id, status in expected.items():
            if statuses.get(run_id) != status:
                found.append(f"run {run_id} is {statuses.get(run_id)}, not {status}")
        if extra := statuses.keys() - expected.keys():
            found.append(f"S4 runs that nobody has: {sorted(extra)}")
        for problem, query in QUERIES.items():
            if rows := conn.execute(query).fetchall():
                found.append(f"{problem}: {rows[:3]}")
        found += [
            f"S15 task {task_id} is done and nobody did it"
            for key, task_id in conn.execute(DONE).fetchall()
            if task_id not in effects.get(key, ())
        ]
    return found

"""What must hold in a database after a case: the invariants, and that it came out as expected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import psycopg

from runkon_server.core.ids import idempotency_key
from runkon_server.verify.chaos.gathering import read_database
from runkon_server.verify.evidence import Effect, Limits
from runkon_server.verify.invariants import OF_HISTORIES, OF_RUNS, check
from runkon_server.verify.invariants_liveness import l1_runs_come_to_rest
from support.engines import UNSOUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_client.values import RunStatus
    from runkon_server.verify.evidence import Evidence

INVARIANTS: Final = (*OF_RUNS, *OF_HISTORIES, l1_runs_come_to_rest)
SERVERS_OWN: Final = "echo"
"""The action that no worker executes, so that nobody here has seen it."""


def problems(
    dsn: str, expected: Mapping[str, RunStatus], effects: Mapping[str, list[str]]
) -> list[str]:
    """What is wrong, in words; nothing if all is well.

    Args:
        dsn: the database.
        expected: how each run that was ever started there has to have ended.
        effects: idempotency key → tasks that workers executed under it.
    """
    evidence = read_database(dsn)
    watched = replace(
        evidence,
        effects=[*_effects(evidence, effects)],
        are_effects_complete=True,
        limits=Limits(lease_ttl_s=0.0),  # everything is over: nothing has any time left
        healed_at=evidence.taken_at,
    )
    found = [*_unexpected(evidence, expected), *_undone(evidence, effects)]
    found += [str(violation) for violation in check(watched, INVARIANTS)]
    with psycopg.connect(dsn) as conn:
        for query in UNSOUND:
            if rows := conn.execute(query).fetchall():
                found.append(f"{' '.join(query.split())}: {rows[:3]}")
    return found


def _unexpected(evidence: Evidence, expected: Mapping[str, RunStatus]) -> Iterator[str]:
    statuses = {
        run_id: run.row["status"]
        for run_id, run in evidence.runs.items()
        if run.row["parent_workflow_run_id"] is None
    }
    for run_id, status in expected.items():
        if statuses.get(run_id) != status:
            yield f"run {run_id} is {statuses.get(run_id)}, not {status}"
    if extra := statuses.keys() - expected.keys():
        yield f"S4 runs that nobody has: {sorted(extra)}"


def _undone(evidence: Evidence, effects: Mapping[str, list[str]]) -> Iterator[str]:
    """More than S15, which knows no tasks: each attempt that counts was executed as that task."""
    executed = {task_id for task_ids in effects.values() for task_id in task_ids}
    for run in evidence.runs.values():
        completed = {step["id"] for step in run.steps if step["status"] == "completed"}
        for task in run.tasks:
            is_done = task["kind"] == "action" and task["state"] == "done"
            is_ours = task["action"] != SERVERS_OWN and task["step_id"] in completed
            if is_done and is_ours and task["id"] not in executed:
                yield f"S15 task {task['id']} is done and nobody did it"


def _effects(evidence: Evidence, effects: Mapping[str, list[str]]) -> Iterator[Effect]:
    """What workers did, and what the server did itself."""
    key_of = {task_id: key for key, task_ids in effects.items() for task_id in task_ids}
    for run in evidence.runs.values():
        places = {step["id"]: step for step in run.steps}
        for task in run.tasks:
            step = places[task["step_id"]]
            key = key_of.get(task["id"])
            if key is None and task["action"] == SERVERS_OWN:
                key = idempotency_key(run.run_id, str(step["at"]))
            if key is not None:
                yield Effect(idem_key=key, run_id=run.run_id, step=str(step["at"]))

"""Everything `restore` needs of a set of runs, in five statements whatever their number."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from runkon_server.core import facts as core_facts
from runkon_server.core.records import RunRecord, RunRows, StepRecord, TimerRecord
from runkon_server.store.database import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact that was recorded and is not applied yet."""

    fact_seq: int
    fact: core_facts.Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What the runtime, not the core, needs to know of a run."""

    namespace: str
    workflow_name: str
    content_hash: str
    workflow_version: int | None
    trigger: str
    started_by: str
    priority: int
    owner_token: str | None
    generation: int
    fact_seq: int
    applied_fact_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTimer:
    """A timer with what is left of it by the database's clock (negative: overdue)."""

    timer_id: str
    kind: str
    due_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """One run's rows and what is still to be applied to them."""

    rows: RunRows
    info: RunInfo
    facts: tuple[StoredFact, ...]
    timers: tuple[OpenTimer, ...]
    started_at: dict[str, datetime]
    """Of the steps that have not ended."""


_RUNS = """
SELECT r.id, r.workflow_name, r.status, r.epoch, r.phase, r.dry_run, r.fail_fast, r.body_outcome,
       r.force, d.inputs, d.body_error, d.cancel_reason, d.resume_mode, d.metrics, r.namespace,
       d.content_hash, d.workflow_version, d.trigger, d.started_by, r.priority, r.owner_token,
       r.generation, r.fact_seq, r.applied_fact_seq
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id WHERE r.id = ANY(%(ids)s)"""

_STEP_FIELDS = tuple(f.name for f in fields(StepRecord))
_STEPS = f"""
SELECT s.workflow_run_id, s.started_at, {", ".join("s." + name for name in _STEP_FIELDS)}
FROM workflow_run_steps s WHERE s.workflow_run_id = ANY(%(ids)s)"""

_TIMERS = """
SELECT t.run_id, t.id, t.kind, t.step_id, t.attempt,
       extract(epoch FROM t.due_at - clock_timestamp())::float8
FROM timers t WHERE t.run_id = ANY(%(ids)s)"""

_FACTS = """
SELECT f.run_id, f.fact_seq, f.kind, f.payload FROM facts f JOIN workflow_runs r ON r.id = f.run_id
WHERE f.run_id = ANY(%(ids)s) AND f.fact_seq > r.applied_fact_seq ORDER BY f.run_id, f.fact_seq"""

_SNAPSHOT = "SELECT snapshot FROM definitions WHERE namespace = %(n)s AND content_hash = %(h)s"


async def load_runs(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, LoadedRun]:
    """Load runs that this replica owns; nobody else changes their steps meanwhile.

    Facts may land between the statements: they are read last, and a decision that missed one is
    refused by its fence.
    """
    ids = {"ids": list(run_ids)}
    runs = await fetch(conn, _RUNS, ids)
    steps: dict[str, list[StepRecord]] = {}
    started: dict[str, dict[str, datetime]] = {}
    for run_id, started_at, *values in await fetch(conn, _STEPS, ids):
        step = _step(values)
        steps.setdefault(run_id, []).append(step)
        if started_at is not None and step.status in {"running", "waiting"}:
            started.setdefault(run_id, {})[step.id] = started_at
    records: dict[str, list[TimerRecord]] = {}
    timers: dict[str, list[OpenTimer]] = {}
    for run_id, timer_id, kind, step_id, attempt, due_in_s in await fetch(conn, _TIMERS, ids):
        records.setdefault(run_id, []).append(
            TimerRecord(timer_id=timer_id, kind=kind, step_id=step_id, attempt=attempt)
        )
        timers.setdefault(run_id, []).append(
            OpenTimer(timer_id=timer_id, kind=kind, due_in_s=due_in_s)
        )
    facts = await load_facts(conn, run_ids)
    return {
        row[0]: LoadedRun(
            rows=RunRows(
                run=_run(row),
                steps=tuple(steps.get(row[0], ())),
                timers=tuple(records.get(row[0], ())),
            ),
            info=RunInfo(
                namespace=row[14],
                workflow_name=row[1],
                content_hash=row[15],
                workflow_version=row[16],
                trigger=row[17],
                started_by=row[18],
                priority=row[19],
                owner_token=row[20],
                generation=row[21],
                fact_seq=row[22],
                applied_fact_seq=row[23],
            ),
            facts=tuple(facts.get(row[0], ())),
            timers=tuple(timers.get(row[0], ())),
            started_at=started.get(row[0], {}),
        )
        for row in runs
    }


async def load_facts(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, list[StoredFact]]:
    """The facts of each run that are not applied yet, in order."""
    found: dict[str, list[StoredFact]] = {}
    rows = await fetch(conn, _FACTS, {"ids": list(run_ids)})
    for run_id, fact_seq, kind, payload in rows:
        fact = core_facts.load_fact(kind, payload)
        found.setdefault(run_id, []).append(StoredFact(fact_seq, fact))
    return found


async def load_snapshot(conn: AsyncConnection, namespace: str, content_hash: str) -> str | None:
    """The snapshot JSON of a pinned definition."""
    result = await conn.exec_driver_sql(_SNAPSHOT, {"n": namespace, "h": content_hash})
    return result.scalar_one_or_none()


def _run(row: Sequence[Any]) -> RunRecord:
    return RunRecord(
        run_id=row[0],
        workflow_name=row[1],
        status=row[2],
        epoch=row[3],
        phase=row[4],
        dry_run=row[5],
        fail_fast=row[6],
        body_outcome=row[7],
        force=row[8],
        inputs=row[9],
        body_error=row[10],
        cancel_reason=row[11],
        resume_mode=row[12],
        metrics=row[13],
    )


_AS_TUPLE = frozenset({"iterations", "markers_out", "gate_selections"})


def _step(values: Sequence[Any]) -> StepRecord:
    columns = dict(zip(_STEP_FIELDS, values, strict=True))
    for name in _AS_TUPLE:
        if columns[name] is not None:
            columns[name] = tuple(columns[name])
    options = columns["gate_options"]
    if options is not None:
        columns["gate_options"] = tuple((key, label) for key, label in options)
    return StepRecord(**columns)

"""Everything `restore` needs of a set of runs, in six statements whatever their number."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from runkon_server.core import facts as core_facts
from runkon_server.core.bubbling import load_results
from runkon_server.core.records import ItemRecord, RunRecord, RunRows, StepRecord, TimerRecord
from runkon_server.store.database import fetch
from runkon_server.store.timelines import TIMELINE

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
    labels: dict[str, str]
    identity: str | None
    """What tasks of the run are done as, unless a step names another; a child has its call's."""
    priority: int
    parent_workflow_run_id: str | None
    """The run that started this one; None: a caller did."""
    owner_token: str | None
    generation: int
    last_seq: int
    fact_seq: int
    applied_fact_seq: int
    infra_attempts: int = 0
    """Owners that fell silent since a step of the run ended last."""


@dataclass(frozen=True, slots=True)
class OpenTimer:
    """A timer with what is left of it by the database's clock (negative: overdue)."""

    timer_id: str
    kind: str
    step_id: str | None
    attempt: int
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
    timeline: int
    """Of the server that the rows are from."""


_HOT_FIELDS = frozenset(
    {
        "workflow_name", "status", "epoch", "phase", "dry_run", "fail_fast", "body_outcome",
        "force", "blocked_on",
    }
)  # fmt: skip
"""Fields of a `RunRecord` that are in the narrow table; the others are in the details."""
_RUN_FIELDS = tuple(f.name for f in fields(RunRecord) if f.name != "run_id")
_INFO_COLUMNS = {
    "namespace": "r",
    "workflow_name": "r",
    "content_hash": "d",
    "workflow_version": "d",
    "trigger": "d",
    "started_by": "d",
    "labels": "d",
    "identity": "d",
    "priority": "r",
    "parent_workflow_run_id": "r",
    "owner_token": "r",
    "generation": "r",
    "last_seq": "r",
    "fact_seq": "r",
    "applied_fact_seq": "r",
    "infra_attempts": "r",
}
"""Fields of a `RunInfo`, with the table of each."""
_RUN_COLUMNS = ", ".join(f"{'r' if name in _HOT_FIELDS else 'd'}.{name}" for name in _RUN_FIELDS)
_RUNS = f"""
SELECT r.id, {TIMELINE}, {_RUN_COLUMNS},
    {", ".join(f"{table}.{name}" for name, table in _INFO_COLUMNS.items())}
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id WHERE r.id = ANY(%(ids)s)"""

_STEP_FIELDS = tuple(f.name for f in fields(StepRecord))
_STEPS = f"""
SELECT s.workflow_run_id, s.started_at, {", ".join("s." + name for name in _STEP_FIELDS)}
FROM workflow_run_steps s WHERE s.workflow_run_id = ANY(%(ids)s)"""

_ITEM_FIELDS = tuple(f.name for f in fields(ItemRecord))
_ITEMS = f"""
SELECT i.workflow_run_id, {", ".join("i." + name for name in _ITEM_FIELDS)}
FROM workflow_run_step_fan_out_items i WHERE i.workflow_run_id = ANY(%(ids)s)"""

_TIMERS = """
SELECT t.run_id, t.id, t.kind, t.step_id, t.attempt,
       extract(epoch FROM t.due_at - clock_timestamp())::float8
FROM timers t WHERE t.run_id = ANY(%(ids)s)"""

_FACTS = """
SELECT f.run_id, f.fact_seq, f.kind, f.payload FROM facts f JOIN workflow_runs r ON r.id = f.run_id
WHERE f.run_id = ANY(%(ids)s) AND f.fact_seq > r.applied_fact_seq ORDER BY f.run_id, f.fact_seq"""

_DEFINITION = """
SELECT snapshot, output_schemas, snippets FROM definitions
WHERE namespace = %(n)s AND content_hash = %(h)s"""


async def load_runs(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, LoadedRun]:
    """Load runs that this replica owns; nobody else changes their steps meanwhile.

    Facts may land between the statements: they are read last, and a decision that missed one is
    refused by its fence.
    """
    ids = {"ids": list(run_ids)}
    runs = await fetch(conn, _RUNS, ids)
    steps: dict[str, list[StepRecord]] = {}
    started: dict[str, dict[str, datetime]] = {}
    has_items: set[str] = set()
    for run_id, started_at, *values in await fetch(conn, _STEPS, ids):
        step = step_record(values)
        steps.setdefault(run_id, []).append(step)
        if step.role == "foreach":
            has_items.add(run_id)
        if started_at is not None and step.status in {"running", "waiting"}:
            started.setdefault(run_id, {})[step.id] = started_at
    items = await _load_items(conn, sorted(has_items)) if has_items else {}
    timers = await _load_timers(conn, run_ids)
    facts = await load_facts(conn, run_ids)
    return {
        run_id: LoadedRun(
            rows=RunRows(
                run=RunRecord(run_id=run_id, **dict(zip(_RUN_FIELDS, values, strict=False))),
                steps=tuple(steps.get(run_id, ())),
                timers=tuple(_timer(each) for each in timers.get(run_id, ())),
                items=tuple(items.get(run_id, ())),
            ),
            info=RunInfo(**dict(zip(_INFO_COLUMNS, values[len(_RUN_FIELDS) :], strict=True))),
            facts=tuple(facts.get(run_id, ())),
            timers=tuple(timers.get(run_id, ())),
            started_at=started.get(run_id, {}),
            timeline=timeline,
        )
        for run_id, timeline, *values in runs
    }


async def _load_items(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, list[ItemRecord]]:
    found: dict[str, list[ItemRecord]] = {}
    for run_id, *values in await fetch(conn, _ITEMS, {"ids": list(run_ids)}):
        columns = dict(zip(_ITEM_FIELDS, values, strict=True))
        columns["blockers"] = tuple(columns["blockers"])
        found.setdefault(run_id, []).append(ItemRecord(**columns))
    return found


async def _load_timers(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, list[OpenTimer]]:
    found: dict[str, list[OpenTimer]] = {}
    for run_id, *values in await fetch(conn, _TIMERS, {"ids": list(run_ids)}):
        found.setdefault(run_id, []).append(OpenTimer(*values))
    return found


async def load_facts(conn: AsyncConnection, run_ids: Sequence[str]) -> dict[str, list[StoredFact]]:
    """The facts of each run that are not applied yet, in order."""
    found: dict[str, list[StoredFact]] = {}
    rows = await fetch(conn, _FACTS, {"ids": list(run_ids)})
    for run_id, fact_seq, kind, payload in rows:
        fact = core_facts.load_fact(kind, payload)
        found.setdefault(run_id, []).append(StoredFact(fact_seq, fact))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A pinned definition and what belongs to it."""

    snapshot: str
    output_schemas: dict[str, str]
    snippets: dict[str, str]


async def load_definition(
    conn: AsyncConnection, namespace: str, content_hash: str
) -> StoredDefinition | None:
    """A pinned definition; None if there is none of this hash."""
    result = await conn.exec_driver_sql(_DEFINITION, {"n": namespace, "h": content_hash})
    row = result.mappings().one_or_none()
    return None if row is None else StoredDefinition(**row)


_PINNED = """
SELECT d.workflow_version, d.content_hash FROM workflow_run_step_fan_out_items i
JOIN run_details d ON d.run_id = i.child_run_id
WHERE i.workflow_run_id = %(run)s AND i.step_run_id = %(step)s AND d.workflow_version IS NOT NULL
ORDER BY i.ordinal LIMIT 1"""


async def load_pinned(conn: AsyncConnection, run_id: str, step_id: str) -> tuple[int, str] | None:
    """Version and content hash that the children of a `foreach` run; None before the first."""
    rows = await fetch(conn, _PINNED, {"run": run_id, "step": step_id})
    return (rows[0][0], rows[0][1]) if rows else None


_AS_TUPLE = ("iterations", "markers_out", "gate_selections")


def step_record(values: Sequence[Any]) -> StepRecord:
    """A step from the values of its columns, in the order of the record's fields."""
    columns = dict(zip(_STEP_FIELDS, values, strict=True))
    for name in _AS_TUPLE:
        if columns[name] is not None:
            columns[name] = tuple(columns[name])
    options = columns["gate_options"]
    if options is not None:
        columns["gate_options"] = tuple((key, label) for key, label in options)
    if columns.get("child_results") is not None:
        columns["child_results"] = load_results(columns["child_results"])
    return StepRecord(**columns)


def _timer(timer: OpenTimer) -> TimerRecord:
    return TimerRecord(
        timer_id=timer.timer_id, kind=timer.kind, step_id=timer.step_id, attempt=timer.attempt
    )

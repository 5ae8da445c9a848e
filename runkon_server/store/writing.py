"""The second half of a batch: every row of every entry, one statement per table, then COMMIT.

Also one round trip. Rows travel as one JSON document per table: a missing key is NULL, so wide
sparse rows cost what they hold (measured: equal to binary arrays on narrow rows, less on wide ones,
ADR-0006). Times are the batch's instant, stamped by the rules of `core.decision`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from runkon_server.failpoints import failpoint_async, is_armed
from runkon_server.store.locking import run_of
from runkon_server.store.statements import (
    CANCEL_TASKS,
    DELETE_FACTS,
    DELETE_TIMERS,
    END_GATES,
    END_TASKS,
    INSERT_DEFINITIONS,
    INSERT_DETAILS,
    INSERT_EVENTS,
    INSERT_FACTS,
    INSERT_GATES,
    INSERT_ITEMS,
    INSERT_RUNS,
    INSERT_STEPS,
    INSERT_TASKS,
    INSERT_TIMERS,
    INSERT_VOTES,
    MOVE_KEYS,
    RELEASE_REQUESTS,
    STORE_RESPONSES,
    UPDATE_DETAILS,
    UPDATE_ITEMS,
    UPDATE_RUNS,
    UPDATE_STEPS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from runkon_server.core.decision import ItemWrite, StepWrite
    from runkon_server.store.locking import LockedRun
    from runkon_server.store.pipeline import Parameter, Pipeline, Statement


ITEMS_PER_STATEMENT: Final = 1_000
POINT_AFTER: Final = {
    INSERT_DETAILS: "write.runs",
    UPDATE_STEPS: "write.steps",
    INSERT_STEPS: "write.steps",
    INSERT_ITEMS: "write.items",
    UPDATE_ITEMS: "write.items",
    INSERT_EVENTS: "write.events",
    INSERT_FACTS: "write.facts",
    DELETE_FACTS: "write.facts",
    INSERT_TASKS: "write.tasks",
    END_TASKS: "write.tasks",
    DELETE_TIMERS: "write.timers",
    INSERT_TIMERS: "write.timers",
    INSERT_GATES: "write.gates",
    END_GATES: "write.gates",
    UPDATE_RUNS: "write.counters",
    MOVE_KEYS: "write.answers",
    STORE_RESPONSES: "write.answers",
    RELEASE_REQUESTS: "write.answers",
}
"""The failpoint behind a statement."""
POINTS_WITHIN: Final = frozenset({"batch.written", *POINT_AFTER.values()})


def to_json(value: object) -> str:
    """JSON text of plain values; tuples become arrays, NaN and infinity null."""
    return orjson.dumps(value).decode()


@dataclass(slots=True)
class NewRun:
    """A run to insert, with its details; the counters come from the entry's `LockedRun`."""

    run: dict[str, Any]
    details: dict[str, Any]


@dataclass(slots=True)
class Writes:
    """Rows collected from the entries of a batch. Later writes to a step fold into earlier ones."""

    new_runs: list[NewRun] = field(default_factory=list)
    definitions: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    step_inserts: dict[str, dict[str, Any]] = field(default_factory=dict)
    step_updates: dict[str, dict[str, Any]] = field(default_factory=dict)
    item_inserts: dict[str, dict[str, Any]] = field(default_factory=dict)
    item_updates: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Each a JSON object already, see `add_event`."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    applied_facts: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    task_ends: list[dict[str, Any]] = field(default_factory=list)
    task_cancels: list[dict[str, Any]] = field(default_factory=list)
    timers: list[dict[str, Any]] = field(default_factory=list)
    cleared_timers: list[str] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    gate_ends: list[dict[str, Any]] = field(default_factory=list)
    votes: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    released_requests: list[tuple[str, str]] = field(default_factory=list)

    def add_event(
        self, run_id: str, *, seq: int, epoch: int, kind: str, generation: int, payload: str
    ) -> None:
        """Add one event; `payload` is JSON text, ids and kinds need no escaping."""
        self.events.append(
            f'{{"r":"{run_id}","s":{seq},"e":{epoch},"k":"{kind}","g":{generation},"p":{payload}}}'
        )

    def add_step(self, write: StepWrite) -> None:
        """Add one step row or change; a change to a row inserted by this batch joins it."""
        target = self.step_inserts.get(write.step_id)
        if target is None:
            rows = self.step_inserts if write.insert else self.step_updates
            target = rows.setdefault(
                write.step_id, {"workflow_run_id": run_of(write.step_id), "id": write.step_id}
            )
        target.update(write.columns)

    def add_item(self, write: ItemWrite) -> None:
        """Add one item or change, by the rules of `add_step`."""
        target = self.item_inserts.get(write.id)
        if target is None:
            rows = self.item_inserts if write.insert else self.item_updates
            run_id, ordinal = run_of(write.id), int(write.id.rpartition("/")[2])
            key = {"r": run_id, "s": write.step_run_id, "ordinal": ordinal, "id": write.id}
            target = rows.setdefault(write.id, key)
        target.update(write.columns)

    def add_definition(
        self,
        namespace: str,
        content_hash: str,
        *,
        snapshot: str,
        output_schemas: Mapping[str, str],
        snippets: Mapping[str, str],
    ) -> None:
        """Add a definition, unless it is stored already."""
        self.definitions[(namespace, content_hash)] = {
            "n": namespace,
            "h": content_hash,
            "s": snapshot,
            "o": dict(output_schemas),
            "t": dict(snippets),
        }


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every statement of a batch shares."""

    now: datetime
    lease_ttl_s: float
    task_lease_s: float
    owner_token: str


def run_update(run: LockedRun) -> dict[str, Any]:
    """The row that `UPDATE_RUNS` takes for a run that was touched."""
    return {
        "id": run.id,
        "status": run.status,
        "generation": run.generation,
        "last_seq": run.last_seq,
        "fact_seq": run.fact_seq,
        "applied_fact_seq": run.applied_fact_seq,
        **run.changes,
    }


async def write(
    pipeline: Pipeline,
    writes: Writes,
    touched: Iterable[LockedRun],
    stamp: Stamp,
    *,
    committed: Callable[[], None],
    behind: Statement | None = None,
) -> None:
    """Send everything and COMMIT, in one round trip.

    Args:
        committed: called at once when the answer to COMMIT is there. Must not raise.
        behind: executed after the commit; nobody waits for it.

    Raises:
        psycopg.Error: nothing was committed, unless the connection broke: then the outcome is
            unknown and `Locked.xid` tells.
    """
    now, lease, work = stamp.now, stamp.lease_ttl_s, stamp.task_lease_s
    updates = [run_update(run) for run in touched if run.changes]
    new, steps, moved = writes.new_runs, writes.step_inserts, writes.step_updates
    definitions, timers = writes.definitions, writes.cleared_timers
    found, changed = writes.item_inserts, writes.item_updates
    # Inserts come before updates of the same table: one batch may open and end the same row.
    statements: list[tuple[str, object, tuple[Parameter, ...]]] = [
        (INSERT_DEFINITIONS, definitions, (to_json(list(definitions.values())),)),
        (INSERT_RUNS, new, (now, lease, to_json([n.run for n in new]))),
        (INSERT_DETAILS, new, (now, to_json([n.details for n in new]))),
        (INSERT_STEPS, steps, (now, to_json(list(steps.values())))),
        (UPDATE_STEPS, moved, (now, to_json(list(moved.values())))),
        *((INSERT_ITEMS, part, (now, to_json(part))) for part in _parts(list(found.values()))),
        (UPDATE_ITEMS, changed, (now, to_json(list(changed.values())))),
        (INSERT_EVENTS, writes.events, (now, f"[{','.join(writes.events)}]")),
        (INSERT_FACTS, writes.facts, (now, to_json(writes.facts))),
        (DELETE_FACTS, writes.applied_facts, (to_json(writes.applied_facts),)),
        (INSERT_TASKS, writes.tasks, (now, work, to_json(writes.tasks))),
        (CANCEL_TASKS, writes.task_cancels, (now, to_json(writes.task_cancels))),
        (END_TASKS, writes.task_ends, (to_json(writes.task_ends),)),
        (DELETE_TIMERS, timers, ([run_of(i) for i in timers], timers)),
        (INSERT_TIMERS, writes.timers, (now, to_json(writes.timers))),
        (INSERT_GATES, writes.gates, (now, to_json(writes.gates))),
        (INSERT_VOTES, writes.votes, (now, to_json(writes.votes))),
        (END_GATES, writes.gate_ends, (now, to_json(writes.gate_ends))),
        (UPDATE_DETAILS, writes.details, (to_json(writes.details),)),
        (UPDATE_RUNS, updates, (now, lease, stamp.owner_token, to_json(updates))),
        (MOVE_KEYS, writes.keys, (to_json(writes.keys),)),
        (STORE_RESPONSES, writes.responses, (to_json(writes.responses),)),
        (RELEASE_REQUESTS, writes.released_requests, _released(writes.released_requests)),
    ]
    chosen = [(statement, parameters) for statement, rows, parameters in statements if rows]
    if is_armed(POINTS_WITHIN):
        await _write_in_steps(pipeline, chosen)
        chosen = []
    await pipeline.run([*chosen, ("COMMIT", ())], executed=committed, behind=behind)
    await failpoint_async("batch.committed")


async def _write_in_steps(pipeline: Pipeline, statements: list[Statement]) -> None:
    """A round trip for each statement, so that a test can stop between them."""
    for statement in statements:
        await pipeline.run([statement])
        if (point := POINT_AFTER.get(statement[0])) is not None:
            await failpoint_async(point)
    await failpoint_async("batch.written")


def _parts(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in portions: a statement that takes all items of a large `foreach` lasts 0.1 s."""
    for start in range(0, len(rows), ITEMS_PER_STATEMENT):
        yield rows[start : start + ITEMS_PER_STATEMENT]


def _released(requests: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [n for n, _ in requests], [r for _, r in requests]

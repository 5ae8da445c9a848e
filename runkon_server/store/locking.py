"""The first half of a batch: lock everything it touches, in one order, and say what is there.

One round trip. The order is the same everywhere: requests, run keys, runs (by id), then tasks,
gates and timers of those runs (by id). Whoever keeps it cannot deadlock with anybody else.
Everything decided after this is decided on rows that nobody can change before the commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from runkon_server.store.timelines import TIMELINE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from runkon_server.store.pipeline import Pipeline, Statement

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
RUN_ID_LENGTH: Final = 26


def run_of(row_id: str) -> str:
    """The run a step, task, gate or timer belongs to: every such id begins with it."""
    return row_id[:RUN_ID_LENGTH]


@dataclass(slots=True)
class LockedRun:
    """The counters and the lease of a run under its row lock.

    Mutable: the entries of a batch change it one after the other, and the result is written once.
    """

    id: str
    namespace: str
    status: str
    owner_token: str | None
    generation: int
    last_seq: int
    fact_seq: int
    applied_fact_seq: int
    epoch: int
    started_by: str
    parent_notified: bool = True
    """False: the run's parent has to be told how it stands."""
    descendants: int = 0
    """Of a root: runs below it."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Columns for `statements.UPDATE_RUNS` beyond the counters; not empty when touched."""

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended in its present epoch."""
        return self.status in TERMINAL

    def next_seq(self) -> int:
        """Take the next event number."""
        self.last_seq += 1
        return self.last_seq

    def next_fact_seq(self) -> int:
        """Take the next fact number."""
        self.fact_seq += 1
        return self.fact_seq


@dataclass(slots=True)
class LockedTask:
    """A task's delivery state."""

    id: str
    state: str
    token: str | None
    digest: str | None
    delivery: int
    kind: str


@dataclass(slots=True)
class LockedGate:
    """A gate with the votes cast so far, in order."""

    id: str
    step_id: str
    name: str
    gate_type: str
    prompt: str | None
    options: list[list[str]] | None
    approvers: int
    exclude_starter: bool
    state: str
    iteration: int
    resolved_by: str | None
    feedback: str | None
    selections: list[str] | None
    min_approvals: int
    approval_mode: str
    is_due: bool
    votes: list[LockedVote] = field(default_factory=list)


@dataclass(slots=True)
class LockedVote:
    """One principal's vote."""

    principal: str
    decision: str
    feedback: str | None
    selections: list[str] | None


@dataclass(slots=True)
class StoredRequest:
    """What an earlier call with the same request id was answered."""

    digest: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request id to be claimed, with the answer it gets if the call succeeds."""

    namespace: str
    request_id: str
    method: str
    digest: str
    response: dict[str, Any]
    alias: str = ""
    """The digest that the same request has when it comes as a call of a SQL function."""

    @property
    def key(self) -> tuple[str, str]:
        """What must be unique."""
        return (self.namespace, self.request_id)

    def is_repeat_of(self, stored: StoredRequest) -> bool:
        """Whether an earlier request with this id said the same."""
        return stored.digest == self.digest or (bool(self.alias) and stored.digest == self.alias)


@dataclass(slots=True)
class Wants:
    """What the entries of a batch need to see under lock."""

    requests: dict[tuple[str, str], NewRequest] = field(default_factory=dict)
    run_keys: dict[tuple[str, str], str] = field(default_factory=dict)
    """(namespace, key) → the new run's id."""
    runs: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    gates: set[str] = field(default_factory=set)
    timers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Locked:
    """What is there. Rows that do not exist are missing from the maps."""

    now: datetime
    """One instant for everything this batch writes, read after the locks were taken."""
    xid: str
    """The transaction, for `pg_xact_status` should the commit's answer be lost."""
    timeline: int
    """Of the server; with a run's generation it is the fence of a decision."""
    claimed: set[tuple[str, str]]
    """Request ids that were free and are ours now."""
    requests: dict[tuple[str, str], StoredRequest]
    keys: dict[tuple[str, str], tuple[str, str | None]]
    """(namespace, key) → (run id holding it, that run's status; None: our own new run)."""
    runs: dict[str, LockedRun]
    tasks: dict[str, LockedTask]
    gates: dict[str, LockedGate]
    timers: dict[str, bool]
    """Timer → whether it is due by the database's clock."""


# Inserting first waits for a concurrent call with the same id and sees its outcome; a plain SELECT
# would see nothing and answer twice.
CLAIM_REQUESTS = """
INSERT INTO requests (namespace, request_id, method, digest, response)
SELECT u.* FROM json_to_recordset($1::json)
    AS u(namespace text, request_id text, method text, digest text, response jsonb)
ORDER BY 1, 2 ON CONFLICT DO NOTHING RETURNING namespace, request_id"""

STORED_REQUESTS = """
SELECT q.namespace, q.request_id, q.digest, q.response
FROM unnest($1::text[], $2::text[]) AS u(n, r)
JOIN requests q ON q.namespace = u.n AND q.request_id = u.r"""

CLAIM_KEYS = """
INSERT INTO run_keys AS k (namespace, key, run_id)
SELECT u.n, u.k, u.r FROM unnest($1::text[], $2::text[], $3::text[]) AS u(n, k, r) ORDER BY 1, 2
ON CONFLICT (namespace, key) DO UPDATE SET run_id = k.run_id"""

# A statement of its own: the claim may have waited for a call that made the holder, and its own
# snapshot is older than that.
KEY_HOLDERS = """
SELECT k.namespace, k.key, k.run_id, r.status
FROM unnest($1::text[], $2::text[]) AS u(n, k)
JOIN run_keys k ON k.namespace = u.n AND k.key = u.k
LEFT JOIN workflow_runs r ON r.id = k.run_id"""

LOCK_RUNS = """
SELECT r.id, r.namespace, r.status, r.owner_token, r.generation, r.last_seq, r.fact_seq,
       r.applied_fact_seq, r.epoch, d.started_by, r.parent_notified, r.descendants
FROM workflow_runs r JOIN run_details d ON d.run_id = r.id
WHERE r.id = ANY($1::text[]) ORDER BY r.id FOR NO KEY UPDATE OF r"""

LOCK_TASKS = """
SELECT t.id, t.state, t.token, t.digest, t.delivery, t.kind
FROM unnest($1::text[], $2::text[]) AS u(r, i) JOIN tasks t ON t.run_id = u.r AND t.id = u.i
ORDER BY t.run_id, t.id FOR NO KEY UPDATE OF t"""

LOCK_GATES = """
SELECT g.id, g.step_id, g.name, g.gate_type, g.prompt, g.options, g.approvers, g.exclude_starter,
       g.state, g.iteration, g.resolved_by, g.feedback, g.selections, g.min_approvals,
       g.approval_mode,
       coalesce(g.deadline_at <= clock_timestamp(), false)
FROM unnest($1::text[], $2::text[]) AS u(r, i) JOIN gates g ON g.run_id = u.r AND g.id = u.i
ORDER BY g.run_id, g.id FOR NO KEY UPDATE OF g"""

VOTES = """
SELECT v.gate_id, v.principal, v.decision, v.feedback, v.selections
FROM unnest($1::text[], $2::text[]) AS u(r, i)
JOIN gate_votes v ON v.run_id = u.r AND v.gate_id = u.i
ORDER BY v.run_id, v.gate_id, v.n"""

TIMERS = """
SELECT t.id, t.due_at <= clock_timestamp()
FROM unnest($1::text[], $2::text[]) AS u(r, i) JOIN timers t ON t.run_id = u.r AND t.id = u.i"""

# Who holds a row is not asked: whoever it is, the row cannot be had now.
FIND_LOCKED = """
SELECT r.id FROM workflow_runs r WHERE r.id = ANY($1::text[]) AND r.id NOT IN (
    SELECT f.id FROM workflow_runs f WHERE f.id = ANY($1::text[]) FOR NO KEY UPDATE SKIP LOCKED)"""

# A standby gives out no transaction ids.
INSTANT = f"""
SELECT clock_timestamp() AS now,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id()::text END AS xid,
       {TIMELINE} AS timeline"""


async def find_locked(pipeline: Pipeline, run_ids: Iterable[str]) -> set[str]:
    """Those of these runs that somebody keeps locked."""
    (rows,) = await pipeline.run([(FIND_LOCKED, (sorted(run_ids),))])
    return {run_id for (run_id,) in rows}


async def lock(pipeline: Pipeline, wants: Wants) -> Locked:
    """Begin a transaction and lock what `wants` names; the caller commits or rolls back.

    Raises:
        psycopg.Error: of the statements; `ReadOnlySqlTransaction` also from a standby that was
            asked for no row.
    """
    asked = _statements(wants)
    opening = pipeline.opening
    answers = await pipeline.run([*opening, *asked.values(), (INSTANT, ())])
    rows = dict(zip(asked, answers[len(opening) :], strict=False))
    ((now, xid, timeline),) = answers[-1]
    if xid is None:
        raise psycopg.errors.ReadOnlySqlTransaction("the server is a standby")
    return Locked(
        now=now,
        xid=xid,
        timeline=timeline,
        claimed={(n, r) for n, r in rows.get("claimed", ())},
        requests={(n, r): StoredRequest(d, v) for n, r, d, v in rows.get("requests", ())},
        keys={(n, k): (run, status) for n, k, run, status in rows.get("keys", ())},
        runs={row[0]: LockedRun(*row) for row in rows.get("runs", ())},
        tasks={row[0]: LockedTask(*row) for row in rows.get("tasks", ())},
        gates=_gates(rows.get("gates", ()), rows.get("votes", ())),
        timers=dict(rows.get("timers", ())),
    )


def _statements(wants: Wants) -> dict[str, Statement]:
    """What is asked, by the name of its answer, in the order in which locks are taken."""
    asked: dict[str, Statement] = {}
    if wants.requests:
        asked["claimed"] = (CLAIM_REQUESTS, (_request_rows(wants),))
        asked["requests"] = (STORED_REQUESTS, _columns(wants.requests))
    if wants.run_keys:
        triples = [(n, k, r) for (n, k), r in wants.run_keys.items()]
        asked["claimed_keys"] = (CLAIM_KEYS, _columns(triples))
        asked["keys"] = (KEY_HOLDERS, _columns(wants.run_keys))
    if wants.runs:
        asked["runs"] = (LOCK_RUNS, (sorted(wants.runs),))
    if wants.tasks:
        asked["tasks"] = (LOCK_TASKS, _with_runs(wants.tasks))
    if wants.gates:
        asked["gates"] = (LOCK_GATES, _with_runs(wants.gates))
        asked["votes"] = (VOTES, _with_runs(wants.gates))
    if wants.timers:
        asked["timers"] = (TIMERS, _with_runs(wants.timers))
    return asked


def _request_rows(wants: Wants) -> str:
    from runkon_server.store.writing import to_json  # noqa: PLC0415 - the two halves meet here

    return to_json(
        [
            {
                "namespace": request.namespace,
                "request_id": request.request_id,
                "method": request.method,
                "digest": request.digest,
                "response": request.response,
            }
            for request in wants.requests.values()
        ]
    )


def _gates(
    rows: Iterable[tuple[Any, ...]], votes: Iterable[tuple[Any, ...]]
) -> dict[str, LockedGate]:
    gates = {row[0]: LockedGate(*row) for row in rows}
    for gate_id, *vote in votes:
        gates[gate_id].votes.append(LockedVote(*vote))
    return gates


def _with_runs(ids: set[str]) -> tuple[list[str], list[str]]:
    ordered = sorted(ids)
    return [run_of(row_id) for row_id in ordered], ordered


def _columns(rows: Iterable[tuple[str, ...]]) -> tuple[list[str], ...]:
    return tuple(list(column) for column in zip(*sorted(rows), strict=True))

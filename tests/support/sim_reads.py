"""What the other statements mean: locks, reads, and the single statements that take and renew."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.records import ItemRecord, StepRecord
from runkon_server.runtime import scanner
from runkon_server.store import (
    action_limits,
    arrivals,
    claiming,
    claims,
    loading,
    locking,
    notices,
)
from runkon_server.store.reads import workflows
from support.sim_tables import TIMELINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from support.sim_tables import Lock, Row, Tables, Transaction

Rows = list[tuple[Any, ...]]
UNNOTIFIED_S: Final = 1.0
_REQUEUED_MAX: Final = 200


# -- the first round trip of a batch ---------------------------------------------------------------


def locks_of(sql: str, parameters: tuple[Any, ...]) -> list[Lock]:
    """The rows that a statement locks."""
    match sql:
        case locking.CLAIM_REQUESTS:
            return [
                ("request", each["namespace"], each["request_id"])
                for each in json.loads(parameters[0])
            ]
        case locking.CLAIM_KEYS:
            return [("key", n, k) for n, k, _ in zip(*parameters, strict=True)]
        case locking.LOCK_RUNS:
            return [("run", run_id) for run_id in parameters[0]]
        case locking.LOCK_TASKS:
            return [("task", task_id) for task_id in parameters[1]]
        case locking.LOCK_GATES:
            return [("gate", gate_id) for gate_id in parameters[1]]
        case _:
            return []


def _claim_requests(tables: Tables, tx: Transaction, text: str) -> Rows:
    for each in json.loads(text):
        key = (each["namespace"], each["request_id"])
        if key not in tables.requests:
            tx.claimed[key] = each
            tx.writes.append((tables.insert, (tables.requests, key, each)))
    return list(tx.claimed)


def _stored_requests(
    tables: Tables, tx: Transaction, namespaces: list[str], requests: list[str]
) -> Rows:
    known = {**tables.requests, **tx.claimed}
    keys = [key for key in zip(namespaces, requests, strict=True) if key in known]
    return [(*key, known[key]["digest"], known[key]["response"]) for key in keys]


def _claim_keys(tables: Tables, tx: Transaction, *columns: list[str]) -> Rows:
    for namespace, key, run_id in zip(*columns, strict=True):
        if (namespace, key) not in tables.run_keys:
            tx.keys[namespace, key] = run_id
            tx.writes.append((tables.insert, (tables.run_keys, (namespace, key), run_id)))
    return []


def _key_holders(tables: Tables, tx: Transaction, *columns: list[str]) -> Rows:
    rows: Rows = []
    for namespace, key, _ in zip(*columns, strict=True):
        holder = {**tables.run_keys, **tx.keys}[namespace, key]
        rows.append((namespace, key, holder, tables.runs.get(holder, {}).get("status")))
    return rows


def _lock_runs(tables: Tables, _: Transaction, run_ids: list[str]) -> Rows:
    names = (
        "id", "namespace", "status", "owner_token", "generation", "last_seq", "fact_seq",
        "applied_fact_seq", "epoch", "started_by", "parent_notified", "descendants",
    )  # fmt: skip
    found = [
        {**tables.details[run_id], **tables.runs[run_id]}
        for run_id in run_ids
        if run_id in tables.runs
    ]
    return [tuple(row[name] for name in names) for row in found]


def _lock_tasks(tables: Tables, _: Transaction, __: list[str], ids: list[str]) -> Rows:
    names = ("id", "state", "token", "digest", "delivery", "kind")
    return _columns((tables.tasks[each] for each in ids if each in tables.tasks), names)


def _lock_gates(tables: Tables, _: Transaction, __: list[str], ids: list[str]) -> Rows:
    names = (
        "id", "step_id", "name", "gate_type", "prompt", "options", "approvers", "exclude_starter",
        "state", "iteration", "resolved_by", "feedback", "selections", "min_approvals",
        "approval_mode",
    )  # fmt: skip
    gates = [tables.gates[each] for each in ids if each in tables.gates]
    rows = _columns(gates, names)
    return [
        (*row, gate["deadline_at"] <= tables.now) for row, gate in zip(rows, gates, strict=True)
    ]


def _votes(tables: Tables, _: Transaction, __: list[str], ids: list[str]) -> Rows:
    found = sorted(
        (vote for vote in tables.votes.values() if vote["gate_id"] in ids),
        key=lambda vote: (vote["gate_id"], vote["n"]),
    )
    return _columns(found, ("gate_id", "principal", "decision", "feedback", "selections"))


def _timers_due(tables: Tables, _: Transaction, __: list[str], ids: list[str]) -> Rows:
    timers = [tables.timers[each] for each in ids if each in tables.timers]
    return [(timer["id"], timer["due_at"] <= tables.now) for timer in timers]


def _instant(tables: Tables, tx: Transaction) -> Rows:
    return [(tables.now, tx.xid, TIMELINE)]


LOCKS: Final[dict[str, Callable[..., Rows]]] = {
    locking.CLAIM_REQUESTS: _claim_requests,
    locking.STORED_REQUESTS: _stored_requests,
    locking.CLAIM_KEYS: _claim_keys,
    locking.KEY_HOLDERS: _key_holders,
    locking.LOCK_RUNS: _lock_runs,
    locking.LOCK_TASKS: _lock_tasks,
    locking.LOCK_GATES: _lock_gates,
    locking.VOTES: _votes,
    locking.TIMERS: _timers_due,
    locking.INSTANT: _instant,
}
"""Statement → its rows; what it claims is written with the transaction."""


# -- runs that are taken, renewed, given up --------------------------------------------------------


def _acquire(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    now, limit = tables.now, asked["limit"]
    free: list[Row] = []
    held: list[tuple[Row, str]] = []
    for run in tables.runs.values():
        if not tables.is_free([("run", run["id"])]):
            continue  # SKIP LOCKED
        if run["owner_token"] is None:
            if run["ready_at"] is not None and run["ready_at"] <= now:
                free.append(run)
        elif run["owner_token"] in asked["gone"]:
            held.append((run, "orphaned"))
        elif run["lease_until"] < now:
            held.append((run, "stolen"))
    free.sort(key=lambda run: run["ready_at"])
    rows: Rows = []
    for run, how in [*((run, "free") for run in free[:limit]), *held[:limit]]:
        taken = {
            **run,
            "owner_token": asked["token"],
            "generation": run["generation"] + 1,
            "lease_until": now + timedelta(seconds=asked["ttl"]),
            "infra_attempts": run["infra_attempts"] + (how == "stolen"),
        }
        tables.put(tables.runs, run["id"], taken)
        tables.took(taken, how)
        rows.append((run["id"], how))
    return rows


def renew(tables: Tables, token: str, ttl_s: float, run_ids: Iterable[str]) -> set[str]:
    """Extend leases, as `claims.renew` does; gives the runs that are still held."""
    kept = {each for each in run_ids if tables.runs[each]["owner_token"] == token}
    for run_id in kept:
        until = tables.now + timedelta(seconds=ttl_s)
        tables.put(tables.runs, run_id, {**tables.runs[run_id], "lease_until": until})
    return kept


def _hand_over(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    held = [run for run in tables.runs.values() if run["owner_token"] == asked["token"]]
    for run in held:
        freed = {**run, "owner_token": None, "lease_until": None, "ready_at": tables.now}
        tables.put(tables.runs, run["id"], freed, run["id"])
    return [()] * len(held)


def _next_due(tables: Tables, _: Mapping[str, Any]) -> Rows:
    due = [
        (run["ready_at"] - tables.now).total_seconds()
        for run in tables.runs.values()
        if run["ready_at"] is not None and run["owner_token"] is None
    ]
    return [(min(due, default=None),)]


def _set_aside(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    run = tables.runs[asked["run"]]
    if run["owner_token"] == asked["token"]:
        later = tables.now + timedelta(seconds=asked["pause"])
        freed = {**run, "owner_token": None, "lease_until": None, "ready_at": later}
        tables.put(tables.runs, run["id"], freed, run["id"])
    return []


def _behind(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (run["id"],)
        for run in tables.runs.values()
        if run["owner_token"] == asked["token"] and run["applied_fact_seq"] < run["fact_seq"]
    ]


# -- tasks -----------------------------------------------------------------------------------------


def _take(tables: Tables, kind: str, asked: Mapping[str, Any]) -> Rows:
    queued = [
        task
        for task in tables.tasks.values()
        if task["state"] == "queued"
        and task["kind"] == kind
        and task["cancel_requested_at"] is None
        and _serves(task, kind, asked)
        and tables.is_free([("task", task["id"])])
    ]
    queued.sort(key=lambda task: (-task["priority"], task["created_at"]))
    rows: Rows = []
    for task in queued[: asked["limit"]]:
        token = f"queue-{task['id']}-{task['delivery']}-{len(tables.outcomes)}"
        lease = {
            "state": "leased",
            "token": token,
            "worker_id": asked["worker"],
            "lease_until": tables.now + timedelta(seconds=asked["ttl"]),
        }
        tables.put(tables.tasks, task["id"], taken := {**task, **lease}, task["run_id"])
        names = (
            "run_id", "id", "namespace", "step_id", "kind", "action", "token", "delivery",
            "deadline_at", "payload",
        )  # fmt: skip
        generation = tables.runs[task["run_id"]]["generation"]
        rows.append((*(taken[name] for name in names), generation, TIMELINE))
    return rows


def _serves(task: Row, kind: str, asked: Mapping[str, Any]) -> bool:
    queue, action = task["queue"], task["action"]
    if task["namespace"] != asked["namespace"] or not {queue, "*"} & set(asked["queues"]):
        return False
    if kind == "script" or action in asked["names"]:
        return True
    if kind != "action" or not asked["fallback"]:
        return False
    named = set(zip(asked["named_queues"], asked["named_there"], strict=True))
    return action not in asked["named"] and (queue, action) not in named


def _leased(tables: Tables, text: str) -> list[Row]:
    """The tasks that are leased under the tokens given."""
    return [
        task
        for each in json.loads(text)
        if (task := tables.tasks.get(each["id"])) is not None
        and task["token"] == each["token"]
        and task["state"] == "leased"
    ]


_EXTENDED: Final = ("id", "token", "namespace", "cancel_reason")


def _extend(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    found = _leased(tables, asked["rows"])
    for task in found:
        until = tables.now + timedelta(seconds=asked["ttl"])
        tables.put(tables.tasks, task["id"], {**task, "lease_until": until})
    # Simulated workers send no progress, so nobody asks for the names of their steps.
    assert not asked["told"]
    return [(*row, None, None) for row in _columns(found, _EXTENDED)]


def _give_back(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    for task in _leased(tables, asked["rows"]):
        tables.put(tables.tasks, task["id"], {**task, **_first_again(task)})
    return []


_QUEUED: Final[dict[str, Any]] = {
    "state": "queued", "token": None, "worker_id": None, "lease_until": None,
}  # fmt: skip


def _next_deadline(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    left = [(task["lease_until"] - tables.now).total_seconds() for task in _all_leased(tables)]
    return [(each,) for each in sorted(left) if 0 < each <= asked["within"]][:1]


def _requeue(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    lost = [
        task
        for task in _silent(tables)
        if task["cancel_requested_at"] is None
        and task["delivery"] + 1 < asked["deliveries"]
        and tables.is_free([("task", task["id"])])
    ][:_REQUEUED_MAX]
    for task in lost:
        tables.put(tables.tasks, task["id"], {**task, **_again(task)}, task["run_id"])
    return [_asked_for(task) for task in lost]


def _first_again(task: Row) -> dict[str, Any]:
    """What changes in a task that is queued again: it goes before its equals."""
    return {**_QUEUED, "created_at": task["created_at"] - timedelta(microseconds=1)}


def _again(task: Row) -> dict[str, Any]:
    """What changes in a task that was lost."""
    return {**_first_again(task), "delivery": task["delivery"] + 1}


def _asked_for(task: Row) -> tuple[str, str, str, str]:
    return task["namespace"], task["queue"], task["kind"], task["action"]


def _take_back(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    """From workers that arrived, by namespace and name; from replicas that are gone, by name.

    What is locked is left alone: the statement waits for it, but not for long.
    """
    if isinstance(asked["workers"], str):
        named = {(each["namespace"], each["worker_id"]) for each in json.loads(asked["workers"])}
        found = [task for task in _all_leased(tables) if _holder(task) in named]
    else:
        found = [task for task in _all_leased(tables) if task["worker_id"] in asked["workers"]]
    in_hand = set(json.loads(asked["in_hand"]))
    fates: Rows = []
    for task in found:
        if not tables.is_free([("task", task["id"])]):
            continue
        if task["token"] in in_hand:
            fate = "kept"
            change = {"lease_until": tables.now + timedelta(seconds=asked["ttl"])}
        elif task["cancel_requested_at"] is not None or task["delivery"] + 1 >= asked["deliveries"]:
            fate, change = "over", {"lease_until": tables.now}
        else:
            fate, change = "again", _again(task)
        tables.put(tables.tasks, task["id"], {**task, **change}, task["run_id"])
        fates.append((fate, *_asked_for(task)))
    return fates


def _all_leased(tables: Tables) -> list[Row]:
    return [task for task in tables.tasks.values() if task["state"] == "leased"]


def _holder(task: Row) -> tuple[str, str]:
    return task["namespace"], task["worker_id"]


def _silent(tables: Tables) -> list[Row]:
    return [
        task
        for task in tables.tasks.values()
        if task["state"] == "leased" and task["lease_until"] < tables.now
    ]


def _lost(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    rows: Rows = []
    for task in _silent(tables):
        was_cancelled = task["cancel_requested_at"] is not None
        if was_cancelled or task["delivery"] + 1 >= asked["deliveries"]:
            rows.append((task["id"], task["namespace"], task["kind"], task["token"], was_cancelled))
    for task in tables.tasks.values():
        if task["state"] == "queued" and task["cancel_requested_at"] is not None:
            rows.append((task["id"], task["namespace"], task["kind"], None, True))
    return rows


# -- rows of runs ----------------------------------------------------------------------------------

_STEP_FIELDS: Final = tuple(each.name for each in fields(StepRecord))
_ITEM_FIELDS: Final = tuple(each.name for each in fields(ItemRecord))
_JSON_IN_TEXT: Final = frozenset({"child_results"})


def _load_runs(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    names = (*loading._RUN_FIELDS, *loading._INFO_COLUMNS)
    rows = ({**tables.details[each], **tables.runs[each]} for each in _known(tables, asked))
    return [(row["id"], TIMELINE, *(row.get(name) for name in names)) for row in rows]


def _known(tables: Tables, asked: Mapping[str, Any]) -> list[str]:
    return [each for each in asked["ids"] if each in tables.runs]


def _load_steps(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (row["workflow_run_id"], row["started_at"], *(row.get(name) for name in _STEP_FIELDS))
        for row in tables.steps.values()
        if row["workflow_run_id"] in asked["ids"]
    ]


def _load_items(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (row["workflow_run_id"], *(row.get(name) for name in _ITEM_FIELDS))
        for row in tables.items.values()
        if row["workflow_run_id"] in asked["ids"]
    ]


def _load_timers(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (
            row["run_id"], row["id"], row["kind"], row["step_id"], row["attempt"],
            (row["due_at"] - tables.now).total_seconds(),
        )
        for row in tables.timers.values()
        if row["run_id"] in asked["ids"]
    ]  # fmt: skip


def _load_facts(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (run_id, seq, row["kind"], row["payload"])
        for (run_id, seq), row in sorted(tables.facts.items())
        if run_id in asked["ids"] and seq > tables.runs[run_id]["applied_fact_seq"]
    ]


def _definition(tables: Tables, asked: Mapping[str, Any]) -> list[Row]:
    found = tables.definitions.get((asked["n"], asked["h"]))
    return [] if found is None else [found]


def _pinned(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    items = sorted(
        (each for each in tables.items.values() if each["step_run_id"] == asked["step"]),
        key=lambda each: each["ordinal"],
    )
    children = (tables.details.get(each["child_run_id"] or "") for each in items)
    return [
        (child["workflow_version"], child["content_hash"])
        for child in children
        if child is not None and child["workflow_version"] is not None
    ][:1]


def _unnotified(tables: Tables, _: Mapping[str, Any]) -> Rows:
    soon = tables.now - timedelta(seconds=UNNOTIFIED_S)
    return [
        (run["id"],)
        for run in tables.runs.values()
        if not run["parent_notified"] and (run["ended_at"] is None or run["ended_at"] < soon)
    ]


def _children(tables: Tables, asked: Mapping[str, Any]) -> list[Row]:
    found: list[Row] = []
    for run_id in _known(tables, asked):
        run, details = tables.runs[run_id], tables.details[run_id]
        if run["parent_notified"] or run["parent_workflow_run_id"] is None:
            continue
        child = {name: run[name] for name in ("id", "status", "epoch", "last_seq", "blocked_on")}
        child["parent_run_id"] = run["parent_workflow_run_id"]
        found.append({**child, "error": details["error"], "metrics": details["metrics"]})
    return found


def _children_steps(tables: Tables, asked: Mapping[str, Any]) -> Rows:
    return [
        (
            row["workflow_run_id"],
            *(None if name == "result_text" else row.get(name) for name in _STEP_FIELDS),
        )
        for row in tables.steps.values()
        if row["workflow_run_id"] in asked["ids"]
        and row["status"] == "completed"
        and row.get("superseded_epoch") is None
    ]


def newest(tables: Tables, asked: Mapping[str, Any]) -> list[Row]:
    """What the one statement that is no text gives: `workflows._NEWEST_HASHES`."""
    wanted = zip(asked["namespaces"], asked["names"], strict=True)
    return [
        dict(zip(("namespace", "name", "version", "content_hash"), (*key, *found), strict=True))
        for key in wanted
        if (found := tables.workflows.get(key)) is not None
    ]


def _columns(rows: Iterable[Row], names: tuple[str, ...]) -> Rows:
    return [tuple(row[name] for name in names) for row in rows]


def _no_limits(_tables: Tables, _asked: Mapping[str, Any]) -> Rows:
    """Nobody limits an action in a simulation."""
    return []


def _unheard(_tables: Tables, _asked: Mapping[str, Any]) -> Rows:
    """A hint that is lost, as every hint may be: what it tells of is found by the next look."""
    return []


READS: Final[dict[Any, Callable[..., Any]]] = {
    action_limits._READ: _no_limits,
    claims._ACQUIRE: _acquire,
    claims._HAND_OVER: _hand_over,
    claims._SET_ASIDE: _set_aside,
    claims._NEXT_DUE: _next_due,
    claims._BEHIND: _behind,
    claims._EXTEND: _extend,
    claims._GIVE_BACK: _give_back,
    claims._NEXT_DEADLINE: _next_deadline,
    claims._REQUEUE: _requeue,
    claims._LOST: _lost,
    arrivals._FROM_ARRIVED: _take_back,
    arrivals._FROM_GONE: _take_back,
    loading._RUNS: _load_runs,
    loading._STEPS: _load_steps,
    loading._ITEMS: _load_items,
    loading._TIMERS: _load_timers,
    loading._FACTS: _load_facts,
    loading._DEFINITION: _definition,
    loading._PINNED: _pinned,
    notices._UNNOTIFIED: _unnotified,
    notices._CHILDREN: _children,
    notices._STEPS: _children_steps,
    scanner._TELL_OF_TASKS: _unheard,
    workflows._NEWEST_HASHES: newest,
}
"""Statement → its rows, or dictionaries where they are read by name."""


def _claim(tables: Tables, kind: str, names: Iterable[str], values: tuple[Any, ...]) -> Rows:
    with tables.not_waiting_for_the_disk():
        return _take(tables, kind, dict(zip(names, values, strict=True)))


def _claims() -> dict[str, Callable[..., Rows]]:
    found: dict[str, Callable[..., Rows]] = {}
    for (kind, _), sql in claiming._CLAIMS.items():
        statement, names = claiming.in_numbers(sql)
        if kind != "limited":
            found[statement] = lambda tables, *values, kind=kind, names=names: _claim(
                tables, kind, names, values
            )
    return found


CLAIMS: Final = _claims()
"""Statement → its rows. What a crash of the database takes back, if nothing waited for the disk."""

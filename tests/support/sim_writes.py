"""What the committer's writing statements mean, by their texts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.rows import ENDED
from runkon_server.store import statements
from runkon_server.store.locking import TERMINAL
from runkon_server.verify.evidence import LoggedEvent

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from support.sim_tables import Row, Tables

_STEP_DEFAULTS: Final[dict[str, Any]] = {
    "path": "", "position": 0, "iteration": 0, "iterations": [], "epoch": 1, "retry_count": 0,
}  # fmt: skip
_ITEM_DEFAULTS: Final[dict[str, Any]] = {
    "item_type": "", "item_ref": "", "context": {}, "blockers": [], "status": "pending",
    "child_run_id": None,
}  # fmt: skip
_RUN_DEFAULTS: Final[dict[str, Any]] = {
    "epoch": 1, "phase": "body", "force": False, "iteration": 0, "parent_notified": True,
    "descendants": 0, "infra_attempts": 0, "blocked_on": None, "body_outcome": None,
    "parent_workflow_run_id": None,
}  # fmt: skip
_DETAIL_DEFAULTS: Final[dict[str, Any]] = {
    "metrics": {}, "root_run_id": None, "depth": 0, "grace_s": 300.0, "cancel_reason": None,
    "body_error": None, "error": None, "result_summary": None, "resume_mode": None,
    "workflow_version": None, "identity": None,
}  # fmt: skip
_OF_AN_EPOCH: Final = ("cancel_reason", "body_error", "error", "result_summary")


def _seconds(value: float | None) -> timedelta:
    return timedelta(seconds=value or 0.0)


def _given(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def _insert_definitions(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        row = {"snapshot": each["s"], "output_schemas": each["o"], "snippets": each["t"]}
        tables.definitions.setdefault((each["n"], each["h"]), row)


def _insert_runs(tables: Tables, now: datetime, ttl_s: float, text: str) -> None:
    for each in json.loads(text):
        row = {**_RUN_DEFAULTS, "owner_token": None, **_given(each)}
        ready_in_s = row.pop("ready_in_s", None)
        is_owned = row["owner_token"] is not None
        row |= {
            "created_at": now,
            "started_at": None if row["status"] == "pending" else now,
            "ended_at": now if row["status"] in TERMINAL else None,
            "lease_until": now + _seconds(ttl_s) if is_owned else None,
            "ready_at": None if ready_in_s is None else now + _seconds(ready_in_s),
        }
        tables.insert(tables.runs, row["id"], row, row["id"])
        if is_owned:
            tables.took(row, "started")


def _insert_details(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        tables.insert(tables.details, each["run_id"], {**_DETAIL_DEFAULTS, **_given(each)})


def _insert_steps(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        row = {**_STEP_DEFAULTS, **_given(each)}
        row["started_at"] = None if row["status"] in {"pending", "skipped"} else now
        row["ended_at"] = now if row["status"] in ENDED else None
        tables.insert(tables.steps, row["id"], row, row["workflow_run_id"])


def _update_steps(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        old = tables.steps[each["id"]]
        row = {**old, **_given(each)}
        if each.get("status") in {"running", "waiting"}:
            row["started_at"] = old["started_at"] or now
        elif each.get("status") in ENDED:
            row["ended_at"] = old["ended_at"] or now
        tables.put(tables.steps, row["id"], row, row["workflow_run_id"])


def _insert_items(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        row = {**_ITEM_DEFAULTS, **_given(each)}
        row["workflow_run_id"], row["step_run_id"] = row.pop("r"), row.pop("s")
        tables.insert(tables.items, row["id"], row, row["workflow_run_id"])


def _update_items(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        changes = {name: value for name, value in _given(each).items() if name not in {"r", "s"}}
        tables.put(tables.items, each["id"], {**tables.items[each["id"]], **changes}, each["r"])


def _insert_events(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        event = LoggedEvent(
            seq=each["s"],
            epoch=each["e"],
            kind=each["k"],
            generation=each["g"],
            at=now.timestamp(),
            payload=each["p"],
        )
        tables.insert(tables.events, (each["r"], each["s"]), event, each["r"])


def _insert_facts(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        tables.insert(tables.facts, (each["run_id"], each["fact_seq"]), each, each["run_id"])


def _delete_facts(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        for key in list(tables.facts):
            if key[0] == each["run_id"] and key[1] <= each["upto"]:
                tables.remove(tables.facts, key)


def _insert_tasks(tables: Tables, now: datetime, lease_s: float, text: str) -> None:
    for each in json.loads(text):
        token, timeout_s = each.get("token"), each.pop("timeout_s", None)
        row = {
            "worker_id": None,
            "digest": None,
            "delivery": 0,
            "cancel_requested_at": None,
            "cancel_reason": None,
            "queue": "",
            **each,
            "token": token,
            "state": "queued" if token is None else "leased",
            "lease_until": None if token is None else now + _seconds(lease_s),
            "created_at": now,
            "deadline_at": None if timeout_s is None else now + _seconds(timeout_s),
        }
        tables.insert(tables.tasks, row["id"], row, row["run_id"])


def _cancel_tasks(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        task = tables.tasks[each["id"]]
        asked = {
            "cancel_requested_at": task["cancel_requested_at"] or now,
            "cancel_reason": task["cancel_reason"] or each["reason"],
        }
        tables.put(tables.tasks, task["id"], {**task, **asked}, task["run_id"])


def _end_tasks(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        row = {**tables.tasks[each["id"]], **_given(each), "lease_until": None}
        tables.put(tables.tasks, row["id"], row, row["run_id"])


def _delete_timers(tables: Tables, run_ids: list[str], timers: list[str]) -> None:
    for timer in timers:
        tables.remove(tables.timers, timer)
    tables.changed.update(run_ids)


def _insert_timers(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        row = {"step_id": None, **each, "due_at": now + _seconds(each["delay_s"])}
        tables.insert(tables.timers, row["id"], row, row["run_id"])


def _insert_gates(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        row = {
            **each,
            "state": "pending",
            "resolved_by": None,
            "feedback": None,
            "selections": None,
            "opened_at": now,
            "deadline_at": now + _seconds(each["timeout_s"]),
        }
        tables.insert(tables.gates, row["id"], row, row["run_id"])


def _insert_votes(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        tables.insert(tables.votes, (each["gate_id"], each["principal"]), each, each["run_id"])


def _end_gates(tables: Tables, now: datetime, text: str) -> None:
    for each in json.loads(text):
        ended = {name: each.get(name) for name in ("resolved_by", "feedback", "selections")}
        row = {**tables.gates[each["id"]], **ended, "state": each["state"], "resolved_at": now}
        tables.put(tables.gates, row["id"], row, row["run_id"])


def _update_details(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        old = tables.details[each["run_id"]]
        if each.pop("reopens", False):
            old = {**old, **dict.fromkeys(_OF_AN_EPOCH)}
        tables.put(tables.details, each["run_id"], {**old, **_given(each)})


def _update_runs(tables: Tables, now: datetime, ttl_s: float, token: str, text: str) -> None:
    for each in json.loads(text):
        old = tables.runs[each["id"]]
        row = {**old}
        if each.get("reopens"):
            row |= {"phase": "body", "body_outcome": None, "force": False}
        for name in (
            "status", "epoch", "phase", "body_outcome", "force", "iteration", "parent_notified",
            "descendants", "generation", "last_seq", "fact_seq", "applied_fact_seq",
        ):  # fmt: skip
            if each.get(name) is not None:
                row[name] = each[name]
        if each.get("set_blocked"):
            row["blocked_on"] = each.get("blocked_on")
        if row["status"] in TERMINAL:
            row["ended_at"] = now if each.get("reopens") else old["ended_at"] or now
        else:
            row["ended_at"] = None
        if each.get("lease") == "take":
            row |= {"owner_token": token, "lease_until": now + _seconds(ttl_s)}
        elif each.get("lease") == "drop":
            row |= {"owner_token": None, "lease_until": None}
        match each.get("ready"):
            case "now":
                row["ready_at"] = min(old["ready_at"] or now, now)
            case "timers":
                own = (t["due_at"] for t in tables.timers.values() if t["run_id"] == row["id"])
                row["ready_at"] = min(own, default=None)
            case "never":
                row["ready_at"] = None
            case _:
                pass
        if each.get("progress"):
            row["infra_attempts"] = 0
        tables.put(tables.runs, row["id"], row, row["id"])
        if each.get("lease") == "take":
            tables.took(row, "resumed" if each.get("reopens") else "with a fact")


def _move_keys(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        tables.put(tables.run_keys, (each["namespace"], each["key"]), each["run_id"])


def _store_responses(tables: Tables, text: str) -> None:
    for each in json.loads(text):
        key = (each["namespace"], each["request_id"])
        tables.put(tables.requests, key, {**tables.requests[key], "response": each["response"]})


def _release_requests(tables: Tables, namespaces: list[str], requests: list[str]) -> None:
    for key in zip(namespaces, requests, strict=True):
        tables.remove(tables.requests, key)


WRITES: Final[dict[str, Callable[..., None]]] = {
    statements.INSERT_DEFINITIONS: _insert_definitions,
    statements.INSERT_RUNS: _insert_runs,
    statements.INSERT_DETAILS: _insert_details,
    statements.INSERT_STEPS: _insert_steps,
    statements.UPDATE_STEPS: _update_steps,
    statements.INSERT_ITEMS: _insert_items,
    statements.UPDATE_ITEMS: _update_items,
    statements.INSERT_EVENTS: _insert_events,
    statements.INSERT_FACTS: _insert_facts,
    statements.DELETE_FACTS: _delete_facts,
    statements.INSERT_TASKS: _insert_tasks,
    statements.CANCEL_TASKS: _cancel_tasks,
    statements.END_TASKS: _end_tasks,
    statements.DELETE_TIMERS: _delete_timers,
    statements.INSERT_TIMERS: _insert_timers,
    statements.INSERT_GATES: _insert_gates,
    statements.INSERT_VOTES: _insert_votes,
    statements.END_GATES: _end_gates,
    statements.UPDATE_DETAILS: _update_details,
    statements.UPDATE_RUNS: _update_runs,
    statements.MOVE_KEYS: _move_keys,
    statements.STORE_RESPONSES: _store_responses,
    statements.RELEASE_REQUESTS: _release_requests,
}
"""Statement → what it does to the tables."""

"""Evidence out of a database and the files of a rig's processes."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row

from runkon_server.verify.evidence import (
    Delivery,
    Effect,
    Evidence,
    LoggedEvent,
    Operation,
    RunEvidence,
    Subscription,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

Rows = list[dict[str, Any]]

_TABLES: Final[dict[str, LiteralString]] = {
    "rows": "SELECT r.*, d.* FROM workflow_runs r JOIN run_details d ON d.run_id = r.id",
    "events": "SELECT run_id, seq, epoch, kind, generation, at, payload FROM run_events"
    " ORDER BY run_id, seq",
    "steps": "SELECT workflow_run_id AS of_run, * FROM workflow_run_steps ORDER BY at",
    "items": "SELECT workflow_run_id AS of_run, * FROM workflow_run_step_fan_out_items"
    " ORDER BY step_run_id, ordinal",
    "gates": "SELECT run_id AS of_run, * FROM gates ORDER BY id",
    "votes": "SELECT run_id AS of_run, * FROM gate_votes ORDER BY gate_id, n",
    "tasks": "SELECT run_id AS of_run, * FROM tasks ORDER BY id",
    "timers": "SELECT run_id AS of_run, * FROM timers ORDER BY id",
    "facts": "SELECT f.run_id AS of_run, f.* FROM facts f JOIN workflow_runs r ON r.id = f.run_id"
    " WHERE f.fact_seq > r.applied_fact_seq ORDER BY f.run_id, f.fact_seq",
}


def read_database(url: str) -> Evidence:
    """Everything about all runs, read at one instant."""
    with psycopg.connect(url, row_factory=dict_row) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables: dict[str, Rows] = {
            name: [_plain(row) for row in conn.execute(query)] for name, query in _TABLES.items()
        }
        definitions = conn.execute("SELECT content_hash, snapshot FROM definitions").fetchall()
        taken = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8 t").fetchone()
    assert taken is not None
    by_run = {name: _by_run(rows) for name, rows in tables.items() if name not in _OWN}
    events: dict[str, list[LoggedEvent]] = defaultdict(list)
    for row in tables["events"]:
        run_id = row.pop("run_id")
        payload = row["payload"]
        row["payload"] = _with_seconds(json.loads(payload))
        events[run_id].append(LoggedEvent(**row))
    runs = {
        row["id"]: RunEvidence(
            run_id=row["id"],
            row=row,
            events=events[row["id"]],
            **{name: rows[row["id"]] for name, rows in by_run.items()},
        )
        for row in tables["rows"]
    }
    snapshots = {row["content_hash"]: row["snapshot"] for row in definitions}
    return Evidence(runs=runs, definitions=snapshots, taken_at=taken["t"])


_OWN: Final = frozenset({"rows", "events"})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row in the types of JSON; instants are seconds."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.timestamp()
    return float(value) if isinstance(value, Decimal) else value


def _with_seconds(value: object) -> object:
    """An event's payload with its instants as seconds."""
    if isinstance(value, list):
        return [_with_seconds(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: datetime.fromisoformat(each).timestamp()
        if key.endswith("_at") and isinstance(each, str)
        else _with_seconds(each)
        for key, each in value.items()
    }


def _by_run(rows: Rows) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(list)
    for row in rows:
        found[row.pop("of_run")].append(row)
    return found


def read_lines(folder: Path, ending: str) -> Rows:
    """The records of all files of this ending, in the order of their time.

    A line that was cut off by a kill is left out.
    """
    found: Rows = []
    for path in sorted(folder.glob(f"*.{ending}.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    found.sort(key=lambda record: float(record["t_mono"]))
    return found


SEEN: Final = frozenset({"Event", "StreamEnded", "StreamFailed", "Broken"})
"""Records of what was seen; all others are of calls."""


def operations_of(records: Iterable[dict[str, Any]]) -> list[Operation]:
    """The calls among the records of histories."""
    return [
        Operation(
            mono_s=record["t_mono"],
            proc=record["proc"],
            op_id=record["op_id"],
            kind=record["kind"],
            op=record["op"],
            args=record["args"],
            result=record["result"] or {},
        )
        for record in records
        if record["op"] not in SEEN
    ]


def subscriptions_of(records: Iterable[dict[str, Any]]) -> list[Subscription]:
    """What every subscriber received."""
    received: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    ended: set[tuple[str, str]] = set()
    for record in records:
        if record["op"] not in SEEN:
            continue
        if record["op"] == "Broken":
            continue
        key = (record["args"]["subscriber"], record["args"]["run_id"])
        seen = record["result"]
        if record["op"] == "Event":
            received[key].append(Delivery(seq=seen["seq"], kind=seen["kind"], epoch=seen["epoch"]))
        elif record["op"] == "StreamEnded":
            ended.add(key)
    return [
        Subscription(subscriber=key[0], run_id=key[1], deliveries=deliveries, is_ended=key in ended)
        for key, deliveries in received.items()
    ]


def effects_of(records: Iterable[dict[str, Any]], evidence: Evidence) -> Iterator[Effect]:
    """The effects that workers logged, at the places of their steps."""
    places = {step["id"]: str(step["at"]) for run in evidence.runs.values() for step in run.steps}
    for record in records:
        yield Effect(
            idem_key=record["idem_key"],
            run_id=record["run"],
            step=places.get(record["step_id"], record["step_id"]),
            iterations=tuple(record["iterations"]),
            item=record["item"] or None,
            attempt=record["attempt"],
            fence=f"{record['fence']}.{record['delivery']}",
            queues=record.get("queues"),
            payload={
                "workflow": record["workflow"],
                "action": record["step"],
                "outcome": record["payload"],
            },
        )


def checksums_differ(records: Iterable[dict[str, Any]]) -> Sequence[tuple[str, int]]:
    """Events (run, sequence number) that two subscribers did not get alike, byte for byte."""
    known: dict[tuple[str, int], str] = {}
    differing = []
    for record in records:
        if record["op"] == "Event":
            key = (record["args"]["run_id"], record["result"]["seq"])
            crc = record["result"]["crc"]
            if known.setdefault(key, crc) != crc:
                differing.append(key)
    return differing

"""Evidence of a run that was only played, as a store would have kept it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server.dsl import snapshot
from runkon_server.verify.evidence import Evidence, LoggedEvent, RunEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.histories import World

HASH: Final = "hash"
SPACING_S: Final = 1e7
"""Between events: nothing can be too early."""


def evidence_of(world: World, **more: Any) -> Evidence:
    """The evidence of one run; further arguments are fields of `Evidence`."""
    run = run_evidence(world)
    definitions = {HASH: snapshot.dump(world.definition)}
    return Evidence(runs={run.run_id: run}, definitions=definitions, **more)


def run_evidence(world: World) -> RunEvidence:
    """The rows and events of a world."""
    run_id = world.run["run_id"]
    row = {
        "content_hash": HASH,
        "generation": 1,
        "last_seq": len(world.events),
        "epoch": 1,
        "parent_workflow_run_id": None,
        "labels": {},
        **world.run,
    }
    done = {order.task_id for order in world.dispatched} - world.tasks.keys()
    return RunEvidence(
        run_id=run_id,
        row=row,
        events=_events(world),
        steps=[{**row, "workflow_run_id": run_id} for row in world.steps.values()],
        items=[{"blockers": (), "item_ref": "", **row} for row in world.items.values()],
        gates=[_gate(run_id, *each) for each in world.gate_states.items()],
        tasks=[
            {
                "id": order.task_id,
                "step_id": order.step_id,
                "kind": order.kind,
                "state": "done" if order.task_id in done else "leased",
                "token": "token",
                "digest": "digest",
                "delivery": 0,
            }
            for order in world.dispatched
        ],
        timers=[{"id": timer} for timer in world.timers],
    )


def _events(world: World) -> list[LoggedEvent]:
    found: list[LoggedEvent] = []
    epoch = 1
    for seq, event in enumerate(world.events, 1):
        epoch += event.kind == "run_resumed"
        found.append(
            LoggedEvent(
                seq=seq,
                epoch=epoch,
                kind=event.kind,
                generation=1,
                at=seq * SPACING_S,
                payload=event.payload,
            )
        )
    return found


def _gate(run_id: str, gate_id: str, state: str) -> dict[str, Any]:
    return {"run_id": run_id, "id": gate_id, "state": state, "resolved_by": None}


def edited(evidence: Evidence, **changes: Any) -> Evidence:
    """The evidence with other contents of its only run."""
    ((run_id, run),) = evidence.runs.items()
    return replace(evidence, runs={run_id: replace(run, **changes)})


def altered(evidence: Evidence, table: str, **columns: Any) -> Evidence:
    """The evidence with other columns of the last row of a table."""
    rows = list(getattr(only(evidence), table))
    rows[-1] = {**rows[-1], **columns}
    return edited(evidence, **{table: rows})


def healed(evidence: Evidence, **more: Any) -> Evidence:
    """The evidence, all faults of which ended with the last event, a long time ago."""
    end = only(evidence).events[-1].at
    return replace(evidence, healed_at=end, healed_mono_s=1.0, taken_at=end + 1e6, **more)


def with_row(evidence: Evidence, **columns: Any) -> Evidence:
    """The evidence with other columns of its only run's row."""
    ((_, run),) = evidence.runs.items()
    return edited(evidence, row={**run.row, **columns})


def with_event(evidence: Evidence, of: str, nth: int = 0, **changes: Any) -> Evidence:
    """The evidence with another nth event of a kind."""
    ((_, run),) = evidence.runs.items()
    found = [number for number, event in enumerate(run.events) if event.kind == of][nth]
    events = list(run.events)
    events[found] = replace(events[found], **changes)
    return edited(evidence, events=events)


def with_more(evidence: Evidence, kind: str, payload: Mapping[str, Any], **more: Any) -> Evidence:
    """The evidence with one more event at the end of the log."""
    ((_, run),) = evidence.runs.items()
    last = run.events[-1]
    event = replace(last, seq=last.seq + 1, kind=kind, payload=payload, **more)
    with_it = edited(evidence, events=[*run.events, event])
    return with_row(with_it, last_seq=event.seq)


def only(evidence: Evidence) -> RunEvidence:
    (run,) = evidence.runs.values()
    return run


def without(evidence: Evidence, *kinds: str, nth: int = 0) -> Evidence:
    """The evidence without the first event of each kind, the others numbered densely.

    Without a kind: without the nth step that started.
    """
    events = list(only(evidence).events)
    for kind in kinds or ("step_started",):
        found = [event for event in events if event.kind == kind]
        events.remove(found[nth])
    events = [replace(event, seq=seq) for seq, event in enumerate(events, 1)]
    return with_row(edited(evidence, events=events), last_seq=len(events))


def copy_of(evidence: Evidence, kind: str, nth: int = 0) -> dict[str, Any]:
    """Kind and payload of an event."""
    event = [event for event in only(evidence).events if event.kind == kind][nth]
    return {"kind": kind, "payload": event.payload}


def twice(evidence: Evidence) -> Evidence:
    """Two runs of one name."""
    run = only(with_row(evidence, labels={"name": "n"}))
    return replace(evidence, runs={run.run_id: run, "01OTHER": replace(run, run_id="01OTHER")})


def redefined(evidence: Evidence, setting: str) -> Evidence:
    """The evidence with a definition in which a setting that was 1 is 0."""
    ((content_hash, snapshot),) = evidence.definitions.items()
    changed = snapshot.replace(f'"{setting}":1', f'"{setting}":0')
    changed = changed.replace(f'"{setting}": 1', f'"{setting}": 0')
    assert changed != snapshot
    return replace(evidence, definitions={content_hash: changed})


def same_child(evidence: Evidence) -> Evidence:
    return edited(evidence, items=[{**each, "child_run_id": "c"} for each in only(evidence).items])


def with_child(evidence: Evidence) -> Evidence:
    run = only(evidence)
    row = {**run.row, "parent_workflow_run_id": run.run_id, "root_run_id": run.run_id}
    return replace(
        evidence, runs={run.run_id: run, "01CHILD": replace(run, run_id="01CHILD", row=row)}
    )


def soon(evidence: Evidence, kind: str, nth: int, after_s: float) -> Evidence:
    """The nth event of a kind, and what follows, comes so long after what is before it."""
    events = list(only(evidence).events)
    found = [number for number, event in enumerate(events) if event.kind == kind][nth]
    before = max(
        number
        for number, event in enumerate(events[:found])
        if event.kind in {"step_started", "step_retrying", "gate_waiting"}
    )
    events[found] = replace(events[found], at=events[before].at + after_s)
    return edited(evidence, events=events)

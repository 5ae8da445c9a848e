"""Invariants of a run's event log and of its owners: S1, S2, S5, S8, S9, S11, S12, S20, S21."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from runkon_server.core.ids import ALWAYS, is_in_always
from runkon_server.core.rows import ENDED
from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.verify.evidence import Evidence, LoggedEvent, Ownership, RunEvidence
    from runkon_server.verify.plans import Plans

TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})
STARTS: Final = frozenset(
    {"step_started", "fan_out_item_started", "child_run_started", "gate_waiting"}
)
"""Events by which a run begins some work."""
_CLOCK_GRAIN_S: Final = 1e-5
"""What seconds as a floating point number lose of the database's microseconds."""


def s1_one_owner_per_generation(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Each (run, generation) has one owner ever, and a change of hands raises it by one.

    A run that was opened and parked in one transaction shows its generation only in its events.
    """
    by_run: dict[str, list[Ownership]] = {}
    for each in evidence.ownership:
        by_run.setdefault(each.run_id, []).append(each)
    for run_id, takings in by_run.items():
        for before, after in pairwise(takings):
            step = after.generation - before.generation
            if step == 0 and before.token == after.token:
                continue
            unseen = set(range(before.generation + 1, after.generation))
            if unseen and run_id in evidence.runs:
                unseen -= {event.generation for event in evidence.runs[run_id].events}
            if step <= 0 or (unseen and evidence.is_ownership_complete):
                what = (
                    f"generation {before.generation} of {before.token} was followed by"
                    f" {after.generation} of {after.token}"
                )
                yield Violation(invariant="S1", run_id=run_id, what=what)
        run = evidence.runs.get(run_id)
        if run is not None and run.row["generation"] < takings[-1].generation:
            what = f"the row says {run.row['generation']}, {takings[-1].generation} was taken"
            yield Violation(invariant="S1", run_id=run_id, what=what)


def s2_generation_never_falls(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Nothing is recorded by an owner that has been fenced out."""
    for run in evidence.runs.values():
        for before, after in pairwise(run.events):
            if after.generation < before.generation:
                what = f"generation {after.generation} behind {before.generation}"
                yield Violation(invariant="S2", run_id=run.run_id, seq=after.seq, what=what)
        if run.events and run.events[-1].generation > run.row["generation"]:
            what = f"generation {run.events[-1].generation}, the row has {run.row['generation']}"
            yield Violation(invariant="S2", run_id=run.run_id, seq=run.events[-1].seq, what=what)


def s5_sequence_is_dense(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """The events of a run are numbered 1…n, and the row says n."""
    for run in evidence.runs.values():
        for number, event in enumerate(run.events, 1):
            if event.seq != number:
                what = f"event {event.seq} where {number} is due"
                yield Violation(invariant="S5", run_id=run.run_id, seq=event.seq, what=what)
                break
        if run.row["last_seq"] != len(run.events):
            what = f"{len(run.events)} events, the row counts {run.row['last_seq']}"
            yield Violation(invariant="S5", run_id=run.run_id, what=what)


def s8_transitions_are_legal(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Runs and steps only move as they may; what has ended stays so, but for an explicit resume."""
    for run in evidence.runs.values():
        yield from _run_transitions(run)
        yield from _step_transitions(run)


def _run_transitions(run: RunEvidence) -> Iterator[Violation]:
    status, epoch = "pending", 1
    for event in run.events:
        resumes = event.kind == "run_resumed"
        epoch += resumes
        wrong = None if event.epoch == epoch else f"epoch {event.epoch} instead of {epoch}"
        match event.kind:
            case "run_resumed" if status not in {"failed", "completed"}:
                wrong = f"resumed while {status}"
            case "run_resumed":
                status = "running"
            case _ if status in TERMINAL:
                wrong = f"{event.kind} after the run {status}"
            case "run_started" if status not in {"pending", "cancelling"}:
                wrong = f"started while {status}"
            case "run_started" if status == "pending":
                status = "running"
            case "run_cancel_requested":
                status = "cancelling"
            case "run_waiting" if status not in {"running", "waiting"}:  # or for another gate
                wrong = f"waits while {status}"
            case "run_waiting":
                status = "waiting"
            case "run_unblocked" if status != "waiting":
                wrong = f"unblocked while {status}"
            case "run_unblocked":
                status = "running"
            case "run_finished":
                if status == "cancelling" and event.payload["status"] == "completed":
                    wrong = "completed although it was cancelled"
                status = event.payload["status"]
            case _ if status == "pending":
                wrong = f"{event.kind} before the run started"
            case _:
                pass
        if wrong is not None:
            yield Violation(invariant="S8", run_id=run.run_id, seq=event.seq, what=wrong)
            return


def _step_transitions(run: RunEvidence) -> Iterator[Violation]:
    ended: dict[str, str] = {}
    for event in run.events:
        step = event.payload.get("step")
        if step is None or event.kind in {"step_retrying", "gate_resolved"}:
            continue
        if step["id"] in ended:
            what = f"{event.kind} of {step['id']}, which had {ended[step['id']]}"
            yield Violation(invariant="S8", run_id=run.run_id, seq=event.seq, what=what)
        elif step["status"] in ENDED:
            ended[step["id"]] = step["status"]


def s9_one_end_per_epoch(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Each epoch ends once, with its last event; a run that is over has told so."""
    for run in evidence.runs.values():
        for epoch, events in by_epoch(run).items():
            ends = [event for event in events if event.kind == "run_finished"]
            is_last = epoch == run.row["epoch"]
            is_due = not is_last or run.row["status"] in TERMINAL
            if len(ends) != is_due:
                what = f"epoch {epoch} has {len(ends)} ends"
                yield Violation(invariant="S9", run_id=run.run_id, what=what)
            elif ends and ends[0] is not events[-1]:
                what = f"{events[-1].kind} behind the end of epoch {epoch}"
                yield Violation(invariant="S9", run_id=run.run_id, seq=events[-1].seq, what=what)
            elif ends and is_last and ends[0].payload["status"] != run.row["status"]:
                what = f"ended {ends[0].payload['status']}, the row is {run.row['status']}"
                yield Violation(invariant="S9", run_id=run.run_id, seq=ends[0].seq, what=what)


def s11_nothing_starts_after_cancel(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """After a cancel was asked for, only steps of the always section start."""
    for run in evidence.runs.values():
        asked: int | None = None
        for event in run.events:
            if event.kind == "run_resumed":
                asked = None
            elif event.kind == "run_cancel_requested":
                asked = asked or event.seq
            elif asked is not None and event.kind in STARTS and not _is_always(event):
                what = f"{event.kind} behind the cancel at #{asked}"
                yield Violation(invariant="S11", run_id=run.run_id, seq=event.seq, what=what)


def _is_always(event: LoggedEvent) -> bool:
    payload = event.payload
    if "step" in payload:
        return str(payload["step"]["at"]).startswith(ALWAYS)
    owner = payload["item"]["step_run_id"] if "item" in payload else payload["step_id"]
    return is_in_always(str(owner))


def s12_always_once_per_epoch(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """The always section begins exactly once in an epoch that ended, before its end.

    Unless the run was forced to end in its body, by a caller or by a limit.
    """
    for run in evidence.runs.values():
        plan = plans.of(run)
        for epoch, events in by_epoch(run).items():
            begun = [event for event in events if event.kind == "always_started"]
            if len(begun) > 1:
                what = f"epoch {epoch} began its always section {len(begun)} times"
                yield Violation(invariant="S12", run_id=run.run_id, seq=begun[1].seq, what=what)
            if plan is None or begun or not plan.always.children or _is_forced(events):
                continue
            if events[-1].kind == "run_finished":
                what = f"epoch {epoch} ended without its always section"
                yield Violation(invariant="S12", run_id=run.run_id, seq=events[-1].seq, what=what)


def _is_forced(events: list[LoggedEvent]) -> bool:
    is_limit = str(events[-1].payload.get("error", "")).startswith(("BUDGET_EXCEEDED", "INFRA_"))
    return is_limit or any(
        event.kind == "run_cancel_requested" and event.payload["force"] for event in events
    )


def s20_bounds_hold(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """Loops stay below their `max_iterations`, and a tree's budget counts all its runs."""
    below = Counter(str(run.row["root_run_id"]) for run in evidence.runs.values() if _is_child(run))
    for run in evidence.runs.values():
        counted = run.row.get("descendants")
        if not _is_child(run) and counted is not None and counted < below[run.run_id]:
            what = f"{below[run.run_id]} runs below, {counted} counted"
            yield Violation(invariant="S20", run_id=run.run_id, what=what)
        if plans.of(run) is None:
            continue
        for event in run.events:
            step = event.payload.get("step")
            if event.kind != "step_started" or step is None:
                continue
            bounds = plans.loops_above(run, step["path"])
            for number, bound in zip(step.get("iterations", ()), bounds, strict=False):
                if number >= max(bound, 1):
                    what = f"pass {number} of a loop of at most {bound}"
                    yield Violation(invariant="S20", run_id=run.run_id, seq=event.seq, what=what)


def _is_child(run: RunEvidence) -> bool:
    return run.row.get("parent_workflow_run_id") is not None


def s21_nothing_fires_early(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """No retry, step deadline or gate deadline comes before its time by the database's clock."""
    for run in evidence.runs.values():
        due: dict[tuple[str, int], float] = {}
        deadlines: dict[str, float] = {}
        for event in run.events:
            step = event.payload.get("step", event.payload.get("gate"))
            if step is None:
                continue
            for at in _due_of(event, step, due, deadlines):
                if event.at + _CLOCK_GRAIN_S < at:
                    what = f"{event.kind} {at - event.at:.6f} s before its time"
                    yield Violation(invariant="S21", run_id=run.run_id, seq=event.seq, what=what)
            if event.kind == "step_started":
                timeout_s = plans.timeout_of(run, step["path"])
                if timeout_s is not None:
                    deadlines[step["id"]] = event.at + timeout_s
            elif event.kind == "gate_waiting":
                deadlines[step["id"]] = event.at + event.payload["gate"]["timeout_s"]
            elif event.kind == "step_retrying":
                due[step["at"], event.payload["attempt"]] = event.at + event.payload["delay_s"]


def _due_of(
    event: LoggedEvent,
    step: Mapping[str, object],
    due: dict[tuple[str, int], float],
    deadlines: dict[str, float],
) -> Iterator[float]:
    """The instants before which this event may not be."""
    match event.kind:
        case "step_started":
            at = due.pop((str(step["at"]), int(str(step["retry_count"]))), None)
        case "step_timed_out":
            at = deadlines.get(str(step["id"]))
        case "gate_resolved" if event.payload["gate"]["state"] == "timed_out":
            at = deadlines.get(str(event.payload["gate"]["step_id"]))
        case _:
            at = None
    if at is not None:
        yield at


def by_epoch(run: RunEvidence) -> dict[int, list[LoggedEvent]]:
    """The events of each epoch; one that has none is missing."""
    found: dict[int, list[LoggedEvent]] = {}
    for event in run.events:
        found.setdefault(event.epoch, []).append(event)
    return found

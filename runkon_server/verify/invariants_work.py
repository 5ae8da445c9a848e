"""Invariants of what runs did: S7, S13 to S19, S26."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.folding import RunFold, visible_item, visible_step
from runkon_server.core.ids import ALWAYS, idempotency_key
from runkon_server.core.rows import cut
from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.verify.evidence import Evidence, RunEvidence
    from runkon_server.verify.plans import Plans

_ENDED_ITEMS: Final = frozenset({"completed", "failed", "skipped"})
_UNTOLD: Final = frozenset(
    {"workflow_run_id", "started_at", "ended_at", "gate_approved_at", "dispatched_at",
     "completed_at"}
)  # fmt: skip
"""Columns that the store adds to what the core writes."""
_DEFAULT: Final = "default"
"""Queue of a run without such a label."""


def s7_events_give_the_rows(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Folding the events of a run gives its row, and those of its steps, items and gates."""
    for run in evidence.runs.values():
        fold = RunFold()
        try:
            for event in run.events:
                fold.follow(event.kind, event.payload)
        except KeyError as missing:
            what = f"the events name {missing}, which they never told of"
            yield Violation(invariant="S7", run_id=run.run_id, what=what)
            continue
        for what in _differences(run, fold):
            yield Violation(invariant="S7", run_id=run.run_id, what=what)


def _differences(run: RunEvidence, fold: RunFold) -> Iterator[str]:
    row = run.row
    told: dict[str, Any] = {"status": fold.status, "epoch": fold.epoch}
    if fold.status != "cancelling":  # the row may wait for the decision that follows the event
        told["blocked_on"] = fold.blocked_on
    if fold.phase == "done":
        told |= {"error": fold.error, "result_summary": fold.result_summary}
    for name, value in told.items():
        actual = row.get(name)
        actual = cut(actual) if isinstance(actual, str) else actual
        if actual != value and not (name == "blocked_on" and _is_longer(actual, value)):
            yield f"{name} is {actual!r}, the events say {value!r}"
    steps = {step["id"]: step for step in run.steps}
    if steps.keys() != fold.steps.keys():
        yield f"steps {sorted(steps.keys() ^ fold.steps.keys())} are in rows or events only"
    for step_id, step in fold.steps.items():
        yield from _row_differs(step_id, visible_step(steps.get(step_id, {})), step)
    items = {item["id"]: item for item in run.items}
    for item_id, item in fold.items.items():
        yield from _row_differs(item_id, visible_item(items.get(item_id, {})), item, partly=True)
    gates = {gate["id"]: gate for gate in run.gates}
    if gates.keys() != fold.gates.keys():
        yield f"gates {sorted(gates.keys() ^ fold.gates.keys())} are in rows or events only"
    for gate_id, gate in fold.gates.items():
        actual = gates.get(gate_id, {}).get("state")
        if actual != gate["state"]:
            yield f"gate {gate_id} is {actual}, the events say {gate['state']}"


def _is_longer(actual: object, told: object) -> bool:
    """Whether a wait is told with its prompt cut."""
    if not (isinstance(actual, dict) and isinstance(told, dict) and actual.get("prompt")):
        return False
    return {**actual, "prompt": cut(actual["prompt"])} == told


def _row_differs(
    row_id: str, row: Mapping[str, Any], told: Mapping[str, Any], *, partly: bool = False
) -> Iterator[str]:
    """Where a row and its events differ; columns that are empty need not be told.

    Args:
        row_id: for people.
        row: as events would show it.
        told: by the events.
        partly: the events tell only what changed.
    """
    for name, value in told.items():
        if name in _UNTOLD:
            continue  # the store knows it exactly, the event repeats it
        if name not in row or _differs(row[name], value):
            yield f"{row_id}: {name} is {row.get(name)!r}, the events say {value!r}"
    for name in () if partly else row.keys() - told.keys() - _UNTOLD:
        if row[name] not in (None, "", False, [], {}, 0):
            yield f"{row_id}: {name} is {row[name]!r}, of which the events tell nothing"


def _differs(actual: object, told: object) -> bool:
    return actual != told and not (actual in (None, [], "") and told in (None, [], ""))


def s13_one_completion_per_attempt(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """At most one report per task is accepted, that of the token it was handed out with.

    The task is then done, or abandoned: by a cancel that was recorded before the report.
    """
    accepted: dict[str, set[tuple[str, str]]] = {}
    for each in evidence.operations:
        if each.op == "ReportTask" and each.result.get("status") == "accepted":
            key = (str(each.args["token"]), str(each.args["digest"]))
            accepted.setdefault(str(each.args["task_id"]), set()).add(key)
    tasks = {str(task["id"]): task for run in evidence.runs.values() for task in run.tasks}
    for task_id, reports in accepted.items():
        task = tasks.get(task_id)
        if len(reports) > 1:
            yield Violation(invariant="S13", what=f"{task_id}: {len(reports)} reports accepted")
        elif task is None:
            continue
        elif task["state"] not in {"done", "abandoned"} or (
            (task["token"], task["digest"]) not in reports
        ):
            what = f"{task_id} is {task['state']} by {task['token']}, accepted was {reports}"
            yield Violation(invariant="S13", run_id=task_id[:26], what=what)
    for run in evidence.runs.values():
        ends = Counter(
            (event.payload["step"]["id"], event.payload["step"]["retry_count"])
            for event in run.events
            if event.kind in {"step_completed", "step_failed", "step_skipped", "step_timed_out"}
        )
        for (step_id, attempt), times in ends.items():
            if times > 1:
                what = f"attempt {attempt} of {step_id} ended {times} times"
                yield Violation(invariant="S13", run_id=run.run_id, what=what)


def s14_attempts_are_bounded(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """Attempts of a step count 0, 1, … up to its retries; deliveries of a task have their own cap.

    A crash neither resets an attempt nor uses one up. A child that could not be resumed is replaced
    by a new one in the same attempt.
    """
    cap = evidence.limits.deliveries_max
    for run in evidence.runs.values():
        attempts: dict[tuple[int, str], tuple[int, str | None]] = {}
        for event in run.events:
            step = event.payload.get("step")
            if event.kind != "step_started" or step is None:
                continue
            key = (event.epoch, step["at"])
            attempt, child = step["retry_count"], step.get("child_run_id")
            last, last_child = attempts.get(key, (-1, None))
            is_replaced = last_child not in (None, child) and event.epoch > 1
            due = attempt if is_replaced and attempt == last else last + 1
            attempts[key] = (attempt, child)
            retries = plans.retries_of(run, step["path"])
            if attempt != due or (retries is not None and attempt > retries):
                what = f"attempt {attempt} of {step['id']}, due is {due} of {retries} retries"
                yield Violation(invariant="S14", run_id=run.run_id, seq=event.seq, what=what)
        for task in run.tasks:
            if cap is not None and task["delivery"] >= cap:
                what = f"{task['id']} was handed out {task['delivery'] + 1} times, at most {cap}"
                yield Violation(invariant="S14", run_id=run.run_id, what=what)


def s15_completed_steps_have_effects(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """A step that a worker completed left its effect before it reported."""
    if not evidence.are_effects_complete:
        return
    seen = {effect.idem_key for effect in evidence.effects}
    for run in evidence.runs.values():
        done = {
            task["step_id"]
            for task in run.tasks
            if task["kind"] == "action" and task["state"] == "done"
        }
        for step in run.steps:
            key = idempotency_key(run.run_id, str(step["at"]))
            if step["status"] == "completed" and step["id"] in done and key not in seen:
                what = f"{step['id']} completed without any effect"
                yield Violation(invariant="S15", run_id=run.run_id, what=what)


def s16_one_key_per_effect(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """All effects of one (run, step, iteration, item) carry one key, and no other effect does."""
    keys: dict[tuple[Any, ...], str] = {}
    places: dict[str, tuple[Any, ...]] = {}
    for effect in evidence.effects:
        place = (effect.run_id, effect.step, effect.iterations, effect.item)
        known = keys.setdefault(place, effect.idem_key)
        if known != effect.idem_key:
            what = f"{effect.step} acted as {known} and as {effect.idem_key}"
            yield Violation(invariant="S16", run_id=effect.run_id, what=what)
        other = places.setdefault(effect.idem_key, place)
        if other != place:
            what = f"{effect.idem_key} stands for {other} and for {place}"
            yield Violation(invariant="S16", run_id=effect.run_id, what=what)


def s17_fan_outs_add_up(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """Counters are rows at every event; items stay as collected, have one child, run in bounds."""
    for run in evidence.runs.values():
        yield from _fan_out_events(run, plans)
        states: dict[str, Counter[str]] = {}
        for item in run.items:
            states.setdefault(str(item["step_run_id"]), Counter())[str(item["status"])] += 1
        for step in run.steps:
            if step.get("fan_out_total") is None:
                continue
            counts = states.get(str(step["id"]), Counter())
            told = [step[f"fan_out_{name}"] for name in ("completed", "failed", "skipped")]
            rows = [counts[name] for name in ("completed", "failed", "skipped")]
            if told != rows or step["fan_out_total"] != counts.total():
                what = f"{step['id']} counts {told} of {step['fan_out_total']}, the rows are {rows}"
                yield Violation(invariant="S17", run_id=run.run_id, what=what)
        children = Counter(
            (item["step_run_id"], item["child_run_id"])
            for item in run.items
            if item.get("child_run_id")
        )
        for (step_id, child), times in children.items():
            if times > 1:
                what = f"{child} is the child of {times} items of {step_id}"
                yield Violation(invariant="S17", run_id=run.run_id, what=what)


def _fan_out_events(run: RunEvidence, plans: Plans) -> Iterator[Violation]:
    totals: dict[str, int] = {}
    counted: dict[str, dict[str, int]] = {}
    running: dict[str, set[str]] = {}
    paths: dict[str, str] = {}
    for event in run.events:
        payload = event.payload
        what = None
        if event.kind == "fan_out_items_collected":
            step = payload["step"]
            paths[step["id"]] = step["path"]
            what = f"{step['id']} collected twice" if step["id"] in totals else None
            totals[step["id"]] = payload["count"]
            counted[step["id"]] = {
                name: step[f"fan_out_{name}"] for name in ("completed", "failed", "skipped")
            }
        elif event.kind == "fan_out_item_started":
            item = payload["item"]
            step_id = item["step_run_id"]
            active = running.setdefault(step_id, set())
            active.add(item["id"])
            most = plans.parallel_of(run, paths.get(step_id, ""))
            if most is not None and len(active) > most:
                what = f"{len(active)} items of {step_id} run, at most {most} may"
        elif event.kind == "fan_out_item_completed":
            item, counts = payload["item"], payload["counts"]
            step_id = item["step_run_id"]
            running.setdefault(step_id, set()).discard(item["id"])
            due = counted.setdefault(step_id, {"completed": 0, "failed": 0, "skipped": 0})
            due[item["status"]] += 1
            if {name: counts[name] for name in due} != due or counts["total"] != totals[step_id]:
                what = f"{step_id} tells {counts}, due is {due} of {totals[step_id]}"
        if what is not None:
            yield Violation(invariant="S17", run_id=run.run_id, seq=event.seq, what=what)


def s18_children_end_once(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """A parent consumes each end of a child once; no item starts before those it waits for."""
    for run in evidence.runs.values():
        awaited: set[str] = set()
        ended = _carried_over(run)
        blockers = {
            item["id"]: [f"{item['step_run_id']}/{each}" for each in item["blockers"]]
            for item in run.items
        }
        for event in run.events:
            payload = event.payload
            what = None
            if event.kind == "child_run_started":
                awaited.add(payload["child_run_id"])
            elif event.kind == "child_run_finished":
                child = payload["child_run_id"]
                what = None if child in awaited else f"{child} ended without having been started"
                awaited.discard(child)
            elif event.kind == "fan_out_item_completed":
                ended.add(payload["item"]["id"])
            elif event.kind == "fan_out_item_started":
                item_id = payload["item"]["id"]
                early = [each for each in blockers.get(item_id, ()) if each not in ended]
                what = f"{item_id} started before {early}" if early else None
            if what is not None:
                yield Violation(invariant="S18", run_id=run.run_id, seq=event.seq, what=what)


def _carried_over(run: RunEvidence) -> set[str]:
    """Items that were done before their row was made."""
    told = {
        event.payload["item"]["id"]
        for event in run.events
        if event.kind in {"fan_out_item_started", "fan_out_item_completed"}
    }
    return {
        str(item["id"])
        for item in run.items
        if item["status"] in _ENDED_ITEMS and item["id"] not in told
    }


def s19_definition_stays_pinned(evidence: Evidence, plans: Plans) -> Iterator[Violation]:
    """Every step that ran stands in the definition that the run was started with."""
    for run in evidence.runs.values():
        if plans.of(run) is None:
            continue
        for step in run.steps:
            section = "always" if str(step["at"]).startswith(ALWAYS) else "body"
            path = str(step["path"])
            if plans.node(run, path) is None or not path.startswith(section):
                what = f"{step['id']} is at {path}, where the definition has nothing"
                yield Violation(invariant="S19", run_id=run.run_id, what=what)


def s26_queues_are_kept(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """No worker is given a task of a queue that it does not serve; tasks are in their run's."""
    for run in evidence.runs.values():
        queue = _queue_of(run)
        for task in run.tasks:
            actual = task.get("queue") or _DEFAULT
            if actual != queue:
                what = f"{task['id']} is in the queue {actual}, its run in {queue}"
                yield Violation(invariant="S26", run_id=run.run_id, what=what)
    for effect in evidence.effects:
        doer = evidence.runs.get(effect.run_id)
        if effect.queues is None or doer is None:
            continue
        queue = _queue_of(doer)
        served = {each or _DEFAULT for each in effect.queues} or {_DEFAULT}
        if not served & {queue, "*"}:
            what = f"{effect.step} in the queue {queue} was done by who serves {sorted(served)}"
            yield Violation(invariant="S26", run_id=effect.run_id, what=what)


def _queue_of(run: RunEvidence) -> str:
    return (run.row.get("labels") or {}).get("queue") or _DEFAULT

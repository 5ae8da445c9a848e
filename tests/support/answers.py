"""Whatever the world may say next to a run: workers, child runs, and people at gates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runkon_server.core.bubbling import ChildResults
from runkon_server.core.facts import (
    ChildBlocked,
    ChildEnded,
    Dependency,
    GateDecided,
    GateDecision,
    GatePolled,
    Item,
    ItemsCollected,
    Outcome,
    Reported,
)

if TYPE_CHECKING:
    from runkon_server.core.decision import Dispatch, OpenGate
    from runkon_server.core.facts import Fact

MARKER_SETS = ((), ("m",), ("m", "n"))
OUTPUT = json.dumps(
    {"options": {"p": "P", "q": "Q"}, "found": "it", "dry_run": "true", "confidence": 70}
)
CHILD_RESULTS = (
    ChildResults(context="child done", markers=("m",), markers_by_step={"a": ("n",), "b": ()}),
    ChildResults(
        contexts='{"step":"a"}',
        exports={"found": "below", "dry_run": "true"},
        prior_output=OUTPUT,
        prior_output_file="below.txt",
        markers_by_step={"b": ("m", "n"), "child": ("n",)},
        outputs_by_step={"b": OUTPUT},
    ),
)
RAW_OUTPUT = f'<<<FLOW_OUTPUT>>>{{"markers": ["n"], "x": {OUTPUT}}}<<<END_FLOW_OUTPUT>>>'


def answers_to(task: Dispatch) -> list[Fact]:
    """What a worker may report."""
    if task.kind == "gate":
        return _looks(task.task_id)
    if task.kind == "items":
        return [*_collections(task.task_id), *_reports(task.task_id)[-3:]]
    return _reports(task.task_id)


def _collections(task: str) -> list[Fact]:
    """Nothing, a few, a chain, a circle, some that are unknown and some that come twice."""
    a, b, c = (Item("t", name, context={"k": name}) for name in "abc")
    chain = (Dependency("a", "b"), Dependency("b", "c"))
    found: list[tuple[tuple[Item, ...], tuple[Dependency, ...]]] = [
        ((), ()),
        ((a, b, a), ()),
        ((c, b, a), chain),
        ((a, b, c), (*chain, Dependency("b", "a"), Dependency("x", "c"))),
        ((a, b, c), (Dependency("a", "b"), Dependency("a", "c"))),
    ]
    return [
        ItemsCollected(task_id=task, items=items, dependencies=dependencies)
        for items, dependencies in found
    ]


def _reports(task: str) -> list[Fact]:
    good = [
        Reported(
            task_id=task,
            outcome=Outcome.COMPLETED,
            context=f"done {task}",
            markers=markers,
            structured_output=OUTPUT if len(markers) == 1 else None,
            output_file="out.txt" if len(markers) == 2 else None,
            metadata={"cost_usd": "0.1", "num_turns": "2"} if markers else {},
        )
        for markers in MARKER_SETS
    ]
    good.append(Reported(task_id=task, outcome=Outcome.COMPLETED, raw_output=RAW_OUTPUT))
    bad = [
        Reported(task_id=task, outcome=Outcome.FAILED, error="broken", jitter=0.25),
        Reported(task_id=task, outcome=Outcome.FAILED, error="never", retryable=False),
        Reported(task_id=task, outcome=Outcome.CANCELLED),
    ]
    return [*good, *bad]


def news_of(child_run_id: str, child_epoch: int) -> list[Fact]:
    """What a child run may come to."""
    about: dict[str, Any] = {
        "child_run_id": child_run_id,
        "child_epoch": child_epoch,
    }
    gate = {"type": "human_review", "gate_id": "g", "gate_name": "g", "run_id": child_run_id}
    return [
        *(ChildEnded(**about, status="completed", results=results) for results in CHILD_RESULTS),
        ChildEnded(**about, status="completed", metrics={"num_turns": 3}),
        ChildEnded(**about, status="failed", error="broken", jitter=0.25),
        ChildEnded(**about, status="failed", error="no", error_code="GONE", retryable=False),
        ChildEnded(**about, status="failed", error="too many", error_code="BUDGET_EXCEEDED"),
        ChildEnded(**about, status="failed", error="no", error_code="RESUME_REFUSED"),
        ChildEnded(**about, status="cancelled"),
        ChildBlocked(**about, blocked_on=gate),
        ChildBlocked(**about, blocked_on={**gate, "prompt": "well?"}),
        ChildBlocked(**about, blocked_on=None),
    ]


def _looks(task: str) -> list[Fact]:
    return [
        GatePolled(task_id=task),
        GatePolled(task_id=task, delay_s=5, note="not yet"),
        Reported(task_id=task, outcome=Outcome.FAILED, error="no answer"),
        Reported(task_id=task, outcome=Outcome.CANCELLED),
        Reported(task_id=task, outcome=Outcome.FAILED, error="no gate", retryable=False),
    ]


def decisions_of(gate: OpenGate, tasks: dict[str, Dispatch]) -> list[Fact]:
    """How a gate may be decided."""
    name = gate.gate_id
    looks: list[Fact] = [
        GateDecided(gate_id=name, decision=GateDecision.APPROVED, decided_by="bot", poll_id=task)
        for task, order in tasks.items()
        if order.step_id == name
    ]
    chosen = tuple(key for key, _ in (gate.options or ())[:1])
    return [
        *looks,
        GateDecided(gate_id=name, decision=GateDecision.APPROVED, decided_by="ann"),
        GateDecided(
            gate_id=name, decision=GateDecision.APPROVED, feedback="more", selections=chosen
        ),
        GateDecided(gate_id=name, decision=GateDecision.REJECTED, feedback="no", decided_by="bob"),
        GateDecided(gate_id=name, decision=GateDecision.TIMED_OUT),
    ]

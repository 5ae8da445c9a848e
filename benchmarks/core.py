"""What deciding costs: microseconds per fact at the start and the end of long runs, and per row.

Medians of processor time, so that a busy machine shows less.
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from runkon_server.core.engine import Plan, RunState, advance, compile_plan, open_tasks, restore
from runkon_server.core.facts import Outcome, Reported, Started
from runkon_server.core.records import RunRecord, RunRows, StepRecord
from runkon_server.dsl.ast import (
    AgentKind,
    AgentRef,
    Call,
    Definition,
    DoWhile,
    If,
    Node,
    Parallel,
    ParallelCall,
    Policy,
    StepMarker,
)

RUN = RunRecord(run_id="01J0000000000000000000000A", workflow_name="w", status="pending", inputs={})
MARKERS = ("m",)


@dataclass(slots=True)
class Played:
    """One finished run: the cost of each fact, and its rows half way."""

    facts_us: list[float] = field(default_factory=list)
    rows: list[StepRecord] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)


def call(name: str) -> Call:
    """A plain call."""
    return Call(agent=AgentRef(kind=AgentKind.NAME, value=name))


def play(plan: Plan, steps: int) -> Played:
    """Run a plan to its end; keep the rows as they are one fact before it."""
    played = Played()
    rows: dict[str, dict[str, Any]] = {}
    state: RunState = restore(plan, RunRows(run=RUN))
    fact: Started | Reported = Started()
    gc.disable()
    while True:
        began = time.thread_time()
        decision = advance(state, fact)
        played.facts_us.append((time.thread_time() - began) * 1e6)
        state = decision.state
        if state.is_terminal:
            break
        played.run |= decision.run
        for write in decision.steps:
            rows.setdefault(write.step_id, {}).update(write.columns)
        fact = Reported(
            task_id=open_tasks(state)[-1], outcome=Outcome.COMPLETED, context="x", markers=MARKERS
        )
    gc.enable()
    played.rows = [StepRecord(**row) for row in rows.values()]
    assert len(rows) == steps
    return played


def restore_us(plan: Plan, played: Played) -> float:
    """Microseconds per row, the best of five."""
    columns = {name: value for name, value in played.run.items() if name in RunRecord.__slots__}
    run = RunRecord(run_id=RUN.run_id, workflow_name="w", inputs={}, **columns)
    rows = RunRows(run=run, steps=tuple(played.rows))
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        restore(plan, rows)
        best = min(best, time.thread_time() - began)
    return best * 1e6 / len(rows.steps)


def measure(name: str, body: tuple[Node, ...], steps: int) -> None:
    """Print one line about one program."""
    plan = compile_plan(Definition(name="w", body=body))
    play(plan, steps)
    played = play(plan, steps)
    tenth = max(1, len(played.facts_us) // 10)
    first, last = played.facts_us[1 : tenth + 1], played.facts_us[-tenth - 1 : -1]
    print(
        f"{name:42} {statistics.median(first):7.1f} {statistics.median(last):7.1f}"
        f" {restore_us(plan, played):9.1f}"
    )


def calls(count: int, keys: int) -> tuple[Node, ...]:
    """Calls in a row under so many names."""
    return tuple(call(f"s{number % keys}") for number in range(count))


def loop(passes: int, body: tuple[Node, ...]) -> DoWhile:
    """A loop that ends at its limit."""
    condition = StepMarker(step="a", marker="m")
    return DoWhile(
        condition=condition, max_iterations=passes, on_max_iter=Policy.CONTINUE, body=body
    )


def watched(number: int) -> tuple[Node, ...]:
    """A call and a condition on its markers."""
    name = f"s{number}"
    return (call(name), If(condition=StepMarker(step=name, marker="other"), body=()))


def main() -> None:
    """Measure everything."""
    branches = tuple(ParallelCall(agent=call(f"s{n}").agent) for n in range(200))
    print(f"{'us':42} {'first':>7} {'last':>7} {'per row':>9}")
    measure("9,900 calls, 10 keys", calls(9_900, 10), 9_900)
    measure("9,900 calls, 9,900 keys", calls(9_900, 9_900), 9_900)
    measure("1,000 passes of 2 calls", (loop(1_000, (call("a"), call("b"))),), 2_000)
    measure("2,000 calls, each watched", tuple(n for k in range(2_000) for n in watched(k)), 2_000)
    measure("200 branches", (Parallel(calls=branches),), 200)


if __name__ == "__main__":
    main()

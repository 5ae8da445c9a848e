"""Random programs for the engine: few names, so that conditions collide with what really runs.

They come from a seeded generator. Drawn node by node by hypothesis they were so small and so much
alike that retries, pauses and loops hardly ever happened; what is left to shrink is the size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.ast import (
    AgentKind,
    AgentRef,
    Always,
    BoolInput,
    Call,
    CallWorkflow,
    ContinueOnFail,
    Definition,
    Do,
    DoWhile,
    ForEach,
    Gate,
    If,
    Input,
    OnChildFail,
    OnCycle,
    Parallel,
    ParallelCall,
    Policy,
    QualityGate,
    Script,
    StepField,
    StepMarker,
    Unless,
    While,
)
from runkon_server.dsl.durations import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from runkon_server.dsl.ast import Node

AGENTS: Final = ("a", "b", "c")
BLOCK: Final = "block"
"""The name that parallel blocks may have."""
CHILD: Final = "child"
"""The workflow that programs call."""
FLAG: Final = "flag"
PAUSE: Final = Duration(text="5s", ms=5_000)
MINUTE: Final = Duration(text="1m", ms=60_000)
DEPTH_MAX: Final = 3


def agent(name: str) -> AgentRef:
    """An agent by name."""
    return AgentRef(kind=AgentKind.NAME, value=name)


class Programs:
    """Makes one program; `size` is the number of nodes of the body."""

    def __init__(self, chance: Random, size: int) -> None:
        self._chance = chance
        self._size = size

    def make(self) -> Definition:
        """One half is anything, the other is all about one construct."""
        pick = self._chance.choice
        if pick([True, False]):
            body = [self._node(DEPTH_MAX) for _ in range(self._size)]
        else:
            focused: list[Callable[[], Node]] = [
                *[self._wide_block] * 2,
                *[self._stubborn_call] * 2,
                self._pausing_block,
                self._brittle_block,
                self._for_each,
                self._halting_for_each,
                self._nested_loops,
                self._child,
            ]
            body = [pick(focused)()]
        always = tuple(self._node(1) for _ in range(pick([0, 1, 1, 2])))
        first = Call(agent=agent("a"))  # whose markers the conditions look at most often
        inputs = tuple(Input(name=name, required=False) for name in (FLAG, "unset"))
        return Definition(name="w", inputs=inputs, body=(first, *body), always=always)

    def _node(self, depth: int) -> Node:
        pick = self._chance.choice
        kind = pick(["leaf", "leaf", "leaf", "loop", "loop", "if", "unless", "do", "always"])
        if depth == 0 or kind == "leaf":
            leaves: list[Callable[[], Node]] = [self._call] * 3
            rarer: list[Callable[[], Node]] = [
                self._parallel, self._gate, self._script, self._quality_gate, self._child,
                self._for_each,
            ]  # fmt: skip
            return pick([*leaves, *leaves, *rarer])()
        body = tuple(self._node(depth - 1) for _ in range(pick([1, 1, 2])))
        match kind:
            case "loop":
                return self._loop(body)
            case "if":
                return If(condition=self._condition(), body=body)
            case "unless":
                return Unless(condition=self._condition(), body=body)
            case "do":
                return Do(body=body)
            case _:
                return Always(body=body)

    def _call(self) -> Call:
        pick = self._chance.choice
        on_fails = [None, None, ContinueOnFail(), agent(pick(AGENTS))]
        return Call(
            agent=agent(pick(AGENTS)),
            retries=pick([0, 1, 2]),
            retry_delay=pick([None, PAUSE]),
            on_fail=pick(on_fails),
            timeout=pick([None, None, MINUTE]),
        )

    def _for_each(self) -> ForEach:
        pick = self._chance.choice
        return ForEach(
            name="f",
            over="things",
            ordered=pick([True, True, False]),
            on_cycle=pick(list(OnCycle)),
            max_parallel=pick([1, 2]),
            workflow="child",
            inputs=pick([(), (("what", "{{item.id}} {{prior_context}}"),)]),
            on_child_fail=pick(list(OnChildFail)),
        )

    def _script(self) -> Script:
        pick = self._chance.choice
        return Script(
            name=pick(AGENTS),
            run=pick(["true", "true", "echo {{flag}} '{{prior_context}}'", "echo {{found}}"]),
            retries=pick([0, 1, 2]),
            retry_delay=pick([None, PAUSE]),
            on_fail=pick([None, None, ContinueOnFail(), agent(pick(AGENTS))]),
            timeout_s=pick([None, None, 60]),
        )

    def _child(self) -> CallWorkflow:
        pick = self._chance.choice
        return CallWorkflow(
            workflow=CHILD,
            inputs=pick([(), (("given", "{{flag}} {{prior_context}} {{unknown}}"),)]),
            retries=pick([0, 1, 2]),
            retry_delay=pick([None, PAUSE]),
            on_fail=pick([None, None, ContinueOnFail(), agent(pick(AGENTS))]),
        )

    def _stubborn_call(self) -> Call:
        pick = self._chance.choice
        on_fail = pick([None, ContinueOnFail(), agent("b")])
        return Call(agent=agent("a"), retries=pick([1, 2, 3]), retry_delay=PAUSE, on_fail=on_fail)

    def _parallel(self, size: int | None = None) -> Parallel:
        pick = self._chance.choice
        size = size or pick([1, 2, 3])
        return Parallel(
            calls=tuple(self._branch() for _ in range(size)),
            fail_fast=pick([True, False]),
            min_success=pick([None, self._chance.randint(1, size)]),
            name=pick([None, BLOCK]),
        )

    def _branch(self) -> ParallelCall:
        pick = self._chance.choice
        return ParallelCall(
            agent=agent(pick(AGENTS)),
            retries=pick([None, 1, 2, 2]),
            retry_delay=pick([None, PAUSE, PAUSE]),
            condition=pick([None, None, self._marker()]),
        )

    def _wide_block(self) -> Parallel:
        return self._parallel(self._chance.choice([3, 4, 5]))

    def _pausing_block(self) -> Parallel:
        """One branch fails again and again, with pauses, beside one that takes its time."""
        stubborn = ParallelCall(agent=agent("a"), retries=3, retry_delay=PAUSE)
        return Parallel(calls=(stubborn, self._branch()), fail_fast=False)

    def _brittle_block(self) -> Parallel:
        """A few failures doom it while other branches still run."""
        calls = tuple(ParallelCall(agent=agent(name)) for name in (*AGENTS, "a", "b"))
        return Parallel(calls=calls, min_success=self._chance.choice([None, 4]))

    def _halting_for_each(self) -> ForEach:
        """Its first failure fails it, so that a resume has children to go on with."""
        return replace(self._for_each(), on_child_fail=OnChildFail.HALT)

    def _gate(self) -> Gate:
        pick = self._chance.choice
        field = StepField(step="a", field="options")
        return Gate(
            name="ok",
            gate_type=pick(["human_review", "human_approval", "custom", "pr_approval"]),
            prompt=pick([None, "well?"]),
            on_timeout=pick(list(Policy)),
            options=pick([None, (("x", "X"), ("y", "Y")), field]),
        )

    def _quality_gate(self) -> QualityGate:
        pick = self._chance.choice
        return QualityGate(
            name="good",
            source=pick(["a", "a", "a", "b"]),
            threshold=pick([0, 0, 50]),
            on_fail=pick([Policy.CONTINUE, Policy.CONTINUE, Policy.FAIL]),
        )

    def _loop(self, body: tuple[Node, ...]) -> Node:
        pick = self._chance.choice
        condition, limit = self._marker(), pick([4, 3, 2, 1])
        stuck_after = pick([None, None, None, 3, 2, 1])
        on_max_iter = pick([Policy.CONTINUE, Policy.CONTINUE, Policy.FAIL])
        kinds: list[type[While | DoWhile]] = [While, DoWhile, DoWhile]
        return pick(kinds)(
            condition=condition,
            max_iterations=limit,
            stuck_after=stuck_after,
            on_max_iter=on_max_iter,
            body=body,
        )

    def _nested_loops(self) -> Node:
        nothing = If(condition=BoolInput(name="unset"), body=(self._call(),))
        inner = self._chance.choice([(self._call(), self._node(0)), (nothing,)])
        return self._loop((self._call(), self._loop(inner)))

    def _marker(self) -> StepMarker:
        pick = self._chance.choice
        step = pick(["a", "a", "b", "c", BLOCK, CHILD])
        return StepMarker(step=step, marker=pick(["m", "m", "n"]))

    def _condition(self) -> StepMarker | BoolInput:
        conditions: list[StepMarker | BoolInput] = [self._marker(), self._marker()]
        return self._chance.choice([*conditions, BoolInput(name=FLAG)])

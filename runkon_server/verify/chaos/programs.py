"""Programs out of a seed, with what each must come to: which effects, how often, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any, Final

from runkon_server.verify.chaos.forms import (
    Branch,
    Call,
    Child,
    ForEach,
    Fork,
    Form,
    Gate,
    Group,
    Loop,
    Program,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.verify.chaos.forms import Outcome

LEAVES: Final = 3
TOPS: Final = 10
DEPTH_MAX: Final = 2
PASSES: Final = (1, 2, 3)
QUEUES: Final = ("", "north", "south")
"""Of runs, in turn."""
SERVED: Final = (("*",), ("default", "north"), ("south",))
"""By workers, in turn, so that three of them serve each queue twice."""


@dataclass(frozen=True, slots=True)
class Start:
    """A program with inputs, and what comes of it."""

    id: str
    workflow: str
    inputs: dict[str, str]
    queue: str
    """Of its runs; empty: the default one."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Book:
    """What a rig's callers store and start."""

    programs: tuple[Program, ...]
    """In the order in which they can be stored."""
    starts: tuple[Start, ...]

    def for_callers(self) -> dict[str, Any]:
        """What callers are told: not what they are to see."""
        return {
            "workflows": [{"name": each.name, "source": each.source} for each in self.programs],
            "starts": [
                {
                    "id": each.id,
                    "workflow": each.workflow,
                    "inputs": each.inputs,
                    "queue": each.queue,
                }
                for each in self.starts
            ],
        }


def make_book(seed: int) -> Book:
    """Programs of all constructs; the same seed makes the same ones."""
    maker = _Maker(Random(seed))
    leaves = [maker.leaf(number) for number in range(LEAVES)]
    tops = [maker.top(number) for number in range(TOPS)]
    programs = (*leaves, *tops)
    library = {each.name: each for each in programs}
    starts = [
        Start(
            f"{each.name}/{'true' if flag else 'false'}",
            each.name,
            {"flag": "true" if flag else "false"},
            QUEUES[number % len(QUEUES)],
            each.play(item="", flag=flag, library=library),
        )
        for number, (each, flag) in enumerate(product(tops, (True, False)))
    ]
    return Book(programs, tuple(starts))


class _Maker:
    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._pick = chance.choice
        self._count = 0

    def leaf(self, number: int) -> Program:
        """A program without children; the first one fails for the item i1."""
        first = Call(self._name("_b1" if number == 0 else ""))
        body = (first, *(self._leaf_form() for _ in range(self._pick([1, 2]))))
        return Program(f"verify-leaf-{number}", body, self._always())

    def top(self, number: int) -> Program:
        """Its first form goes through all constructs from one program to the next."""
        kinds: list[Callable[[int], Form]] = [
            self._for_each, self._loop, self._fork, self._gate, self._child, self._branch,
            self._retried, self._nested_loops, self._for_each, self._late_gate,
        ]  # fmt: skip
        focus = kinds[number % len(kinds)](DEPTH_MAX)
        rest = [self._form(DEPTH_MAX) for _ in range(self._pick([1, 2, 3]))]
        ends = [self._failing()] if self._chance.random() < 1 / 5 else []
        body = (Call(self._name("_y")), focus, *rest, *ends)
        return Program(f"verify-{number}", body, self._always())

    def _form(self, depth: int) -> Form:
        if depth == 0:
            return self._leaf_form()
        return self._pick([
            self._call, self._call, self._retried, self._loop, self._fork, self._branch,
            self._gate, self._group, self._child, self._for_each,
        ])(depth)  # fmt: skip

    def _leaf_form(self) -> Form:
        return self._pick([self._call, self._call, self._retried, self._fork])(0)

    def _name(self, flags: str = "") -> str:
        self._count += 1
        return f"a{self._count}{flags}"

    def _call(self, _: int) -> Form:
        return Call(self._name())

    def _retried(self, _: int) -> Form:
        fails = self._pick([1, 2])
        return Call(
            self._name(f"_f{fails}"), retries=fails + 1, pause=self._pick([None, "100ms", "300ms"])
        )

    def _failing(self) -> Form:
        handler = self._pick(["continue", None, self._name()])
        return Call(self._name("_x"), retries=self._pick([0, 1]), on_fail=handler)

    def _body(self, depth: int) -> tuple[Form, ...]:
        return tuple(self._form(depth - 1) for _ in range(self._pick([1, 1, 2])))

    def _branch(self, depth: int) -> Form:
        said = Call(self._name(self._pick(["_y", ""])))
        step = self._pick([said.action, None])
        branch = Branch(self._body(depth), step, negated=self._pick([True, False]))
        return Group((said, branch))

    def _group(self, depth: int) -> Form:
        return Group(self._body(depth))

    def _loop(self, depth: int) -> Form:
        return self._loop_around(self._body(min(depth, 1)))

    def _nested_loops(self, _: int) -> Form:
        return self._loop_around((self._loop_around((self._call(0),)),))

    def _loop_around(self, body: tuple[Form, ...]) -> Form:
        passes = self._pick(PASSES)
        step = Call(self._name(f"_m{passes}"))
        loop = Loop(step.action, self._pick([True, False]), (*body, step), limit=passes + 1)
        return Group((step, loop)) if loop.tests_first else loop

    def _fork(self, _: int) -> Form:
        said = Call(self._name(self._pick(["_y", ""])))
        calls = [
            Call(self._name(self._pick(["", "", "_f1"])), retries=1)
            for _ in range(self._pick([2, 3, 4]))
        ]
        branches = [(call, self._pick([None, None, said.action])) for call in calls]
        if self._pick([True, False]):
            hopeless = Call(self._name("_x"))
            return Group((said, Fork((*branches, (hopeless, None)), min_success=len(branches))))
        return Group((said, Fork(tuple(branches))))

    def _gate(self, _: int) -> Form:
        return Gate(self._name_gate(self._pick(["ok", "ok", "ok", "race"])))

    def _late_gate(self, _: int) -> Form:
        return Gate(self._name_gate(self._pick(["late", "race"])))

    def _name_gate(self, word: str) -> str:
        self._count += 1
        return f"{word}_{self._count}"

    def _child(self, _: int) -> Form:
        workflow = f"verify-leaf-{self._pick(range(LEAVES))}"
        item = self._pick(["i0", "i1"])
        return Child(workflow, item, on_fail="continue")

    def _for_each(self, _: int) -> Form:
        self._count += 1
        return ForEach(
            f"each{self._count}",
            f"verify-leaf-{self._pick(range(LEAVES))}",
            count=self._pick([2, 3, 4]),
            is_ordered=self._pick([True, False]),
            max_parallel=self._pick([1, 2, 3]),
        )

    def _always(self) -> tuple[Form, ...]:
        return tuple(self._call(0) for _ in range(self._pick([0, 1, 2])))

"""The constructs that generated programs are made of, how they are written and what they come to.

Each form has `lines`, its text, and `play`, which says what its effects are without running it: the
expected multiset of a program is found by walking it once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from runkon_server.verify.chaos.roles import act

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROVIDER: Final = "verify-things"
GATE_S: Final = 1
"""After so long a gate that nobody answers is over."""

Label: TypeAlias = tuple[str, str, tuple[int, ...], str, int, str]
"""Workflow, action, passes of the loops, item, attempt, outcome."""


class BodyFailedError(Exception):
    """The body of a run ends here."""


@dataclass(slots=True)
class Play:
    """One run on paper.

    Args:
        workflow: its name.
        item: the input `item`, flag: the input `flag`.
        library: the programs that can be called.
    """

    workflow: str
    item: str
    flag: bool
    library: Mapping[str, Program]
    effects: Counter[Label] = field(default_factory=Counter)
    markers: dict[str, frozenset[str]] = field(default_factory=dict)
    """Of each step's newest result."""
    passes: tuple[int, ...] = ()

    def attempt(self, action: str, retries: int) -> bool:
        """All attempts of a call; whether one succeeded."""
        iteration = self.passes[-1] if self.passes else 0
        for attempt in range(retries + 1):
            done = act(action, attempt=attempt, iteration=iteration, item=self.item)
            label = (self.workflow, action, self.passes, self.item, attempt, done.outcome)
            self.effects[label] += 1
            if not done.fails:
                self.markers[action] = done.markers
                return True
            if done.is_final:
                break
        self.markers.pop(action, None)
        return False

    def holds(self, step: str, marker: str) -> bool:
        """A condition."""
        return marker in self.markers.get(step, frozenset())

    def descend(self, workflow: str, item: str) -> bool:
        """A child run; whether it completed."""
        outcome = self.library[workflow].play(item=item, flag=False, library=self.library)
        self.effects.update(outcome.effects)
        return outcome.status == "completed"


class Form(Protocol):
    """A node of a program."""

    def lines(self) -> Iterator[str]:
        """Its text."""

    def play(self, run: Play) -> None:
        """Add what it does to the run.

        Raises:
            BodyFailedError: it fails the run.
        """


Body: TypeAlias = tuple[Form, ...]


def block(head: str, options: list[str], body: Body = (), tail: str = "}") -> Iterator[str]:
    """Lines of a construct with braces."""
    yield f"{head} {{"
    yield from (f"  {option}" for option in options)
    yield from (f"  {line}" for form in body for line in form.lines())
    yield tail


def play_all(body: Body, run: Play) -> None:
    """One after the other."""
    for form in body:
        form.play(run)


@dataclass(frozen=True, slots=True)
class Call:
    """An action; `on_fail` is another action, or `continue`."""

    action: str
    retries: int = 0
    pause: str | None = None
    on_fail: str | None = None

    def lines(self) -> Iterator[str]:
        options = [f"retries = {self.retries}"] if self.retries else []
        if self.retries and self.pause:
            options.append(f'retry_delay = "{self.pause}"')
        if self.on_fail:
            options.append(f"on_fail = {self.on_fail}")
        yield f"call {self.action}" + (f" {{ {' '.join(options)} }}" if options else "")

    def play(self, run: Play) -> None:
        if run.attempt(self.action, self.retries) or self.on_fail == "continue":
            return
        if self.on_fail:
            run.attempt(self.on_fail, 0)
        raise BodyFailedError


@dataclass(frozen=True, slots=True)
class Branch:
    """`if` or `unless`; without a step the condition is the input `flag`."""

    body: Body
    step: str | None = None
    negated: bool = False

    def lines(self) -> Iterator[str]:
        condition = f"{self.step}.yes" if self.step else "flag"
        yield from block(f"{'unless' if self.negated else 'if'} {condition}", [], self.body)

    def play(self, run: Play) -> None:
        holds = run.holds(self.step, "yes") if self.step else run.flag
        if holds is not self.negated:
            play_all(self.body, run)


@dataclass(frozen=True, slots=True)
class Loop:
    """`while` (tests first) or `do … while`, as long as the step says `more`."""

    step: str
    tests_first: bool
    body: Body
    limit: int

    def lines(self) -> Iterator[str]:
        options = [f"max_iterations = {self.limit}"]
        condition = f"while {self.step}.more"
        if self.tests_first:
            yield from block(condition, options, self.body)
        else:
            yield from block("do", options, self.body, tail=f"}} {condition}")

    def play(self, run: Play) -> None:
        outside = run.passes
        number = 0
        while run.holds(self.step, "more") if number or self.tests_first else True:
            run.passes = (*outside, number)
            play_all(self.body, run)
            number += 1
        run.passes = outside


@dataclass(frozen=True, slots=True)
class Group:
    """A plain `do`."""

    body: Body

    def lines(self) -> Iterator[str]:
        yield from block("do", [], self.body)

    def play(self, run: Play) -> None:
        play_all(self.body, run)


@dataclass(frozen=True, slots=True)
class Fork:
    """`parallel`, every branch to its end; `min_success` None means all.

    Branches are calls with the step whose `yes` they need, or None.
    """

    branches: tuple[tuple[Call, str | None], ...]
    min_success: int | None = None

    def lines(self) -> Iterator[str]:
        options = ["fail_fast = false"]
        if self.min_success is not None:
            options.append(f"min_success = {self.min_success}")
        for call, step in self.branches:
            inside = [f"retries = {call.retries}"] if call.retries else []
            inside += [f"if = {step}.yes"] if step else []
            options.append(f"call {call.action}" + (f" {{ {' '.join(inside)} }}" if inside else ""))
        yield from block("parallel", options)

    def play(self, run: Play) -> None:
        wanted = [call for call, step in self.branches if not step or run.holds(step, "yes")]
        succeeded = len(self.branches) - len(wanted)
        succeeded += sum(run.attempt(call.action, call.retries) for call in wanted)
        need = len(self.branches) if self.min_success is None else self.min_success
        if succeeded < need:
            raise BodyFailedError


@dataclass(frozen=True, slots=True)
class Gate:
    """The first word of its name says what becomes of it.

    `ok`: approved. `no`: rejected. `race`: approved just when its time is over, either way it goes
    on. `late`: nobody answers.
    """

    name: str
    goes_on: bool = True
    """What follows when its time is over."""

    def lines(self) -> Iterator[str]:
        word = self.name.partition("_")[0]
        timeout = f"{GATE_S}s" if word in {"race", "late"} else "1h"
        yield "gate human_approval {"
        yield f"  name = {self.name}"
        yield f'  timeout = "{timeout}"'
        yield f"  on_timeout = {'continue' if self.goes_on else 'fail'}"
        yield "}"

    def play(self, run: Play) -> None:
        word = self.name.partition("_")[0]
        if word == "no" or (word == "late" and not self.goes_on):
            raise BodyFailedError


@dataclass(frozen=True, slots=True)
class Child:
    """`call workflow`."""

    workflow: str
    item: str
    on_fail: str | None = None

    def lines(self) -> Iterator[str]:
        options = [f'inputs {{ item = "{self.item}" }}']
        if self.on_fail:
            options.append(f"on_fail = {self.on_fail}")
        yield from block(f"call workflow {self.workflow}", options)

    def play(self, run: Play) -> None:
        if not run.descend(self.workflow, self.item) and self.on_fail != "continue":
            raise BodyFailedError


@dataclass(frozen=True, slots=True)
class ForEach:
    """`foreach` over so many things; in order means that each needs the one before."""

    name: str
    workflow: str
    count: int
    is_ordered: bool
    max_parallel: int

    def lines(self) -> Iterator[str]:
        options = [
            f"over = {PROVIDER}",
            f'filter = {{ count = "{self.count}" }}',
            f"max_parallel = {self.max_parallel}",
            f"workflow = {self.workflow}",
            'inputs = { item = "{{item.id}}" }',
        ]
        if self.is_ordered:
            options += ["ordered = true", "on_child_fail = skip_dependents"]
        yield from block(f"foreach {self.name}", options)

    def play(self, run: Play) -> None:
        completed = 0
        for number in range(self.count):
            if run.descend(self.workflow, f"i{number}"):
                completed += 1
            elif self.is_ordered:
                raise BodyFailedError  # those after it are skipped, and one failure is enough
        if completed == 0:
            raise BodyFailedError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run comes to if nobody cancels it."""

    status: str
    effects: Counter[Label]


@dataclass(frozen=True, slots=True)
class Program:
    """A whole workflow."""

    name: str
    body: Body
    always: Body = ()

    @property
    def source(self) -> str:
        """Its text."""
        inputs = ["inputs {", '  item default = ""', "  flag boolean", "}"]
        always = ["always {", *(f"  {s}" for f in self.always for s in f.lines()), "}"]
        return (
            "\n".join(
                block(
                    f"workflow {self.name}",
                    [*inputs, *(line for form in self.body for line in form.lines())]
                    + (always if self.always else []),
                )
            )
            + "\n"
        )

    def play(self, *, item: str, flag: bool, library: Mapping[str, Program]) -> Outcome:
        """What it comes to with these inputs."""
        run = Play(self.name, item, flag, library)
        status = "completed"
        try:
            play_all(self.body, run)
        except BodyFailedError:
            status = "failed"
        run.passes = ()
        play_all(self.always, run)
        return Outcome(status, run.effects)

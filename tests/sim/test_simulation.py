"""The runtime in a world where everything goes wrong, deterministically.

Real replicas (`runkon_server.runtime`, wired as in the engine) on loops that turn when the history
says so, against a model of the database whose commits are answered, lost before or after they took
effect, or decided late, and which crashes itself. Replicas crash, freeze inside of a transaction,
are terminated; workers are late, repeat themselves, contradict themselves or lie; gates are raced
by their deadlines; hints are dropped. After every move all safety invariants hold, by the functions
that check real histories too. At the end the faults stop, and every run has to come to rest.

A history is nothing but its moves and seeds: what hypothesis prints for a failure replays it, and
belongs into `test_stories.py` under a name that says what it was about.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from runkon_server.verify.invariants import check
from runkon_server.verify.sometimes import Sometimes
from support.sim_connections import Fate
from support.sim_moves import NEMESES, REPORTS, SECONDS, calm, decide, move
from support.sim_world import ALL, SKEWS_S, SimWorld

if TYPE_CHECKING:
    from support.sim_replicas import Replica

EXAMPLES: Final = 300
STEPS: Final = 60
FLOORS: Final = dict.fromkeys(
    (
        "crash", "freeze", "thaw", "terminate", "hint dropped", "ended idle in a transaction",
        "taken: started", "taken: free", "taken: stolen", "taken: orphaned",
        "taken: with a fact", "taken: resumed",
        "zombie write rejected", "fact landed in between", "taken inside `always`",
        "commit lost before", "commit lost after", "commit late", "commit late abort",
        "commit forgotten", "commit conflict", "outcome unknown",
        "claim lost", "late report rejected", "report repeated", "report refused",
        "task handed out again",
        "gate raced timeout", "gate raced another vote", "gate approved", "gate rejected",
        "gate timed_out", "gate cancelled", "cancel raced completion", "request replayed",
        "request id reused", "resumed", "resume refused", "fan-out at max_parallel",
        "child completed", "child failed", "child cancelled",
    ),
    1,
)  # fmt: skip
SEEDS: Final = st.integers(0, 2**24 - 1)
"""No wider: from a range of more bits hypothesis mostly draws small numbers, the same few again."""
REPLICAS: Final = st.integers(0, 2)


class Simulation(RuleBasedStateMachine):
    """One history. Most of its moves come from seeds; the others are what shrinking ends at."""

    sometimes = Sometimes(FLOORS)

    @initialize(seed=SEEDS, is_skewed=st.booleans(), program=st.integers(0, 2))
    def begin(self, *, seed: int, is_skewed: bool, program: int) -> None:
        self.seed, self.moves = seed, 0
        self.world = SimWorld(seed, self.sometimes, SKEWS_S if is_skewed else (0.0, 0.0, 0.0))
        self.world.start(self.world.replicas[0], program, 0)
        self.world.turn_all()

    def _chance(self, seed: int) -> random.Random:
        """A generator of this move's own: hypothesis likes to give the same seed to many moves."""
        self.moves += 1
        return random.Random(f"{self.seed} {self.moves} {seed}")

    def _replica(self, number: int) -> Replica:
        return self.world.replicas[number]

    @rule(seed=SEEDS)
    def something(self, seed: int) -> None:
        move(self.world, self._chance(seed))

    @rule(seed=SEEDS)
    def something_else(self, seed: int) -> None:
        move(self.world, self._chance(seed))

    @rule(seed=SEEDS)
    def people(self, seed: int) -> None:
        decide(self.world, self._chance(seed))

    @rule(seed=SEEDS)
    def nothing_goes_wrong(self, seed: int) -> None:
        calm(self.world, self._chance(seed))

    @rule(number=REPLICAS, turns=st.integers(1, 12))
    def turn_one(self, number: int, turns: int) -> None:
        self._replica(number).turn(turns)

    @rule(number=REPLICAS, how=st.sampled_from(NEMESES))
    def nemesis(self, number: int, how: str) -> None:
        self.world.nemesis(number, how)

    @rule()
    def crash_of_the_database(self) -> None:
        self.world.crash_database()

    @rule(fate=st.sampled_from(Fate))
    def next_commit(self, fate: Fate) -> None:
        self.world.faults.fates.append(fate)

    @rule(seconds=st.sampled_from(SECONDS))
    def tick(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.world.turn_all(6)

    @rule(number=st.integers(0, 1), how=st.sampled_from(REPORTS))
    def report(self, number: int, how: str) -> None:
        self.world.report(self.world.workers[number], how)
        self.world.turn_all(3)

    @invariant()
    def is_safe(self) -> None:
        if hasattr(self, "world"):
            assert self.world.violations() == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            evidence = self.world.heal()
            assert check(evidence, ALL) == []
            assert self.world.failures() == []
            self.world.close_books()


@pytest.mark.timeout(900)
def test_no_history_breaks_a_promise() -> None:
    """And over all of them everything occurs that is to occur."""
    run_state_machine_as_test(
        Simulation,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )

    assert Simulation.sometimes.missing() == {}

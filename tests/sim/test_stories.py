"""Histories that once went wrong, by what they were about, and clocks that are far off."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from runkon_server.verify.invariants import check
from runkon_server.verify.sometimes import Sometimes
from support.sim_moves import move
from support.sim_world import ALL, SKEWS_S, SimWorld

if TYPE_CHECKING:
    from runkon_server.verify.evidence import Evidence

MOVES: Final = 60
SEEDS: Final = 60
STORIES: Final = {
    "a cancel was recorded behind a report, and a step started all the same": 40,
    "a cancel was recorded behind the start of a child": 10,
    "the deadline of a gate came between a cancel and its application": 109,
    "a run completed that had been cancelled before": 66,
}
"""What happened → the seed that shows it, of the moves as they were then."""


class Anything(Sometimes):
    """Counts nothing: a single history owes no rare event."""

    def __init__(self) -> None:
        super().__init__({})

    def occurred(self, what: str, times: int = 1) -> None:
        """It may."""


def play(
    seed: int,
    skews_s: tuple[float, ...] = (0.0, 0.0, 0.0),
    rates: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> tuple[SimWorld, Evidence]:
    """A history of seeded moves, all of them safe, healed at its end."""
    chance = random.Random(seed)
    world = SimWorld(seed, Anything(), skews_s, rates)
    world.start(world.replicas[0], 0, 0)
    world.turn_all()
    for _ in range(MOVES):
        move(world, chance)
        assert world.violations() == []
    return world, world.heal()


@pytest.mark.parametrize("story", STORIES)
def test_story_ends_well(story: str) -> None:
    world, evidence = play(STORIES[story])

    assert check(evidence, ALL) == []
    world.close_books()


def test_s22_clocks_of_replicas_decide_nothing() -> None:
    """Replicas whose clocks are an hour off write the same log, and hand runs over as often."""
    for seed in range(5):
        plain, evidence = play(seed)
        skewed, other = play(seed, SKEWS_S)

        assert other.ownership == evidence.ownership
        assert other.runs == evidence.runs
        plain.close_books()
        skewed.close_books()


def test_seeded_histories_break_no_promise() -> None:
    """A few, for those who cannot wait: the mutants. Some with clocks that run too fast or slow."""
    for seed in range(100, 100 + SEEDS):
        world, evidence = play(seed, rates=(1.0, 3.0, 0.5) if seed % 2 else (1.0, 1.0, 1.0))

        assert check(evidence, ALL) == [], seed
        world.close_books()


def test_history_is_decided_by_its_seed() -> None:
    """Twice the same, to the last row."""
    first, evidence = play(3)
    second, again = play(3)

    assert again == evidence
    first.close_books()
    second.close_books()

"""Histories that once went wrong, by what they were about, and clocks that are far off."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from runkon_server.core.engine import ResumeMode
from runkon_server.core.facts import Outcome, Reported
from runkon_server.runtime.gates import GateTimeoutEntry
from runkon_server.verify.invariants import check
from runkon_server.verify.sometimes import Sometimes
from support.sim_moves import move
from support.sim_world import ALL, SKEWS_S, SimWorld

if TYPE_CHECKING:
    from runkon_server.verify.evidence import Evidence

MOVES: Final = 60
SEEDS: Final = 60
STORIES: Final = {
    "a cancel was recorded behind a report, and a step started all the same": 23,
    "a cancel was recorded behind the start of a child": 160,
    "the deadline of a gate came between a cancel and its application": 109,
    "a run completed that had been cancelled before": 37,
}
"""What happened → the seed that shows it, of the moves as they were then."""


class Anything(Sometimes):
    """A single history owes no rare event."""

    def __init__(self) -> None:
        super().__init__({})
        self.seen: set[str] = set()

    def occurred(self, what: str, times: int = 1) -> None:
        """It may."""
        self.seen.add(what)


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


def begun(text: str, **more: Any) -> tuple[SimWorld, Anything, str]:
    """A world with one run of a workflow, owned by the first replica."""
    seen = Anything()
    world = SimWorld(1, seen, text=text, **more)
    world.start(world.replicas[0], 0, 0)
    world.turn_all()
    (run_id,) = (
        run["id"] for run in world.tables.runs.values() if run["parent_workflow_run_id"] is None
    )
    return world, seen, run_id


def test_s2_a_run_that_was_away_and_came_back_is_not_written_by_what_was_decided_before() -> None:
    """Its token is ours again, its generation is not: what we know of it may be wrong."""
    world, seen, run_id = begun("call a call b")
    (worker,) = (each for each in world.workers if each.open)
    worker.report(worker.open[0], worker.answer(worker.open[0], well=True))
    world.replicas[0].turn(2)
    run = world.tables.runs[run_id]
    world.tables.put(world.tables.runs, run_id, {**run, "generation": run["generation"] + 2})
    world.turn_all()

    assert "zombie write rejected" in seen.seen
    world.close_books()


def test_s10_a_deadline_comes_too_late_for_a_gate_that_is_decided_and_not_yet_applied() -> None:
    """The owner has not heard of the vote; the deadline passes, and another replica sees to it."""
    world, _, run_id = begun('gate human_review { timeout = "4s" on_timeout = continue } call a')
    (gate,) = world.tables.gates
    world.vote(world.replicas[1], gate, "ann", approve=True)
    while world.tables.gates[gate]["state"] == "pending":
        world.replicas[1].turn()
    world.tables.elapsed_s += 5.0
    late = GateTimeoutEntry(run_id, f"{gate}:gate", lambda _: None, lambda _: None)
    world.replicas[2].engine._registry.submit(late)
    world.replicas[2].turn(20)

    assert world.tables.gates[gate]["state"] == "approved"
    assert world.violations() == []
    world.close_books()


def test_s10_a_deadline_comes_too_late_for_a_gate_that_a_recorded_cancel_closes() -> None:
    """The owner has not heard of it; the deadline passes, and another replica sees to that."""
    world, _, run_id = begun('gate human_review { timeout = "4s" on_timeout = continue } call a')
    (gate,) = world.tables.gates
    world.cancel(world.replicas[1], run_id, force=False)
    while world.tables.runs[run_id]["status"] != "cancelling":
        world.replicas[1].turn()
    world.tables.elapsed_s += 5.0
    late = GateTimeoutEntry(run_id, f"{gate}:gate", lambda _: None, lambda _: None)
    world.replicas[2].engine._registry.submit(late)
    world.replicas[2].turn(20)
    world.turn_all()

    assert world.tables.gates[gate]["state"] == "cancelled"
    assert world.violations() == []
    world.close_books()


def test_s10_what_was_recorded_before_a_vote_ends_the_step_and_the_vote_stands() -> None:
    """Owned elsewhere: a look at the gate fails for good, and then, both unapplied, ann approves.

    The step fails, for that came first; the gate is approved once, in its row and in the log.
    """
    world, _, run_id = begun('gate custom { timeout = "9s" } call a')
    (worker,) = (each for each in world.workers if each.open)
    broken = Reported(
        task_id=worker.open[0].lease.task_id,
        outcome=Outcome.FAILED,
        error="no gate",
        error_code="BROKEN",
        retryable=False,
    )
    worker.report(worker.open[0], broken, by=world.replicas[1])
    world.replicas[1].turn(20)
    (gate,) = world.tables.gates
    world.vote(world.replicas[1], gate, "ann", approve=True)
    world.replicas[1].turn(20)
    assert world.tables.gates[gate]["state"] == "approved"

    world.turn_all()
    evidence = world.heal()

    assert check(evidence, ALL) == []
    assert world.tables.gates[gate]["state"] == "approved"
    assert world.tables.runs[run_id]["status"] == "failed"
    kinds = [event.kind for event in world.tables.events.values()]
    assert kinds.count("gate_resolved") == 1
    assert kinds.count("step_failed") == 1
    world.close_books()


def fail_all_work(world: SimWorld) -> None:
    """Whatever the workers have, or get of it, fails for good."""
    for _ in range(12):
        world.turn_all()
        for worker in world.workers:
            for given in list(worker.open):
                task = given.lease.task_id
                broken = Reported(
                    task_id=task, outcome=Outcome.FAILED, error="broken", retryable=False
                )
                worker.report(given, broken)
        world.pass_time(0.2)


def test_l1_a_parent_is_resumed_whose_child_was_resumed_twice_by_itself() -> None:
    """It would never hear of the end of a third time: another child does all of the work."""
    world, _, parent = begun("call workflow child")
    (child,) = (each for each in world.tables.runs if each != parent)
    fail_all_work(world)
    assert world.tables.runs[parent]["status"] == "failed"
    for _ in range(2):
        world.resume(world.replicas[0], child, ResumeMode.RESTART)
        fail_all_work(world)
    assert (world.tables.runs[child]["status"], world.tables.runs[child]["epoch"]) == ("failed", 3)

    world.resume(world.replicas[0], parent, ResumeMode.NORMAL)
    world.turn_all()
    evidence = world.heal()

    assert check(evidence, ALL) == []
    assert world.tables.runs[parent]["status"] == "completed"
    assert world.tables.runs[child]["epoch"] == 3
    assert len(world.tables.runs) == 3
    world.close_books()


def test_l1_a_parked_run_goes_on_when_its_timer_is_due() -> None:
    """Nobody has it in memory; its row alone says when it is to be taken."""
    world, _, run_id = begun('call a { retries = 1 retry_delay = "2s" }')
    (worker,) = (each for each in world.workers if each.open)
    task = worker.open[0].lease.task_id
    worker.report(worker.open[0], Reported(task_id=task, outcome=Outcome.FAILED, error="broken"))
    for _ in range(3):
        world.turn_all()
        world.pass_time(0.5)
    world.turn_all()
    assert world.tables.runs[run_id]["owner_token"] is None

    world.pass_time(1.0)
    world.turn_all()
    world.pass_time(0.5)
    world.turn_all()
    assert [step["retry_count"] for step in world.tables.steps.values()] == [0, 1]
    world.close_books()


def test_s21_a_timer_is_due_by_the_clock_of_the_database() -> None:
    """A replica whose clock runs ten times as fast tries a step again, and is told to wait."""
    text = 'call a { retries = 1 retry_delay = "300ms" }'
    world, _, _ = begun(text, rates=(10.0, 1.0, 1.0))
    (worker,) = (each for each in world.workers if each.open)
    given = worker.open[0]
    broken = Reported(task_id=given.lease.task_id, outcome=Outcome.FAILED, error="broken")
    worker.report(given, broken)
    world.turn_all()
    world.pass_time(0.035)
    world.turn_all()

    assert len(world.tables.steps) == 1
    assert world.violations() == []
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

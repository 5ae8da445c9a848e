"""A run that is restored goes on as if nothing had happened, wherever it was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runkon_server.core.engine import ResumeRefusedError, advance, restore
from support.players import FACTS_MAX, Player

if TYPE_CHECKING:
    from runkon_server.core.decision import Decision
    from runkon_server.core.facts import Fact
    from runkon_server.core.plan import Plan
    from runkon_server.core.records import RunRows

PROGRAMS: Final = 1_000
FIRST_SEED: Final = 1_000_000
"""Other programs than those of the laws."""


class Moment(NamedTuple):
    """What was in the rows, what happened then, and what the run that was never lost decided."""

    rows: RunRows
    fact: Fact
    decision: Decision


def lives(player: Player) -> list[list[Moment]]:
    """One history, epoch by epoch, of a run that is never lost; resumes begin an epoch."""
    world = player.world
    epochs: list[list[Moment]] = [[]]
    for step in range(FACTS_MAX):
        if not world.state.is_terminal:
            rows, fact = world.rows(), player.pick_fact(step)
            epochs[-1].append(Moment(rows, fact, world.happen(fact)))
            continue
        how = player.pick_resume()
        if how is None:
            break
        try:
            world.resume(*how)
        except ResumeRefusedError:
            break
        epochs.append([])
    return epochs


def check_prefixes(plan: Plan, epoch: list[Moment]) -> None:
    """Lost after each prefix of facts and restored once, the run makes the same decisions."""
    for begin in range(len(epoch)):
        state = restore(plan, epoch[begin].rows)
        for number, moment in enumerate(epoch[begin:], begin):
            decision = advance(state, moment.fact)
            assert decision == moment.decision, f"restored after {begin} facts, at fact {number}"
            state = decision.state


def test_bisimulation_restored_after_any_prefix_of_facts_a_run_comes_to_the_same_end() -> None:
    """Random programs and histories: each run is lost at every place and played to its end again.

    Rows, events, orders and state of every decision are those of the run that was never lost. One
    random program after the other, by seed; a failure names its seed, the prefix and the fact.
    """
    restores = resumed = 0
    for seed in range(FIRST_SEED, FIRST_SEED + PROGRAMS):
        player = Player(seed)
        epochs = lives(player)
        resumed += len(epochs) - 1
        for epoch in epochs:
            restores += len(epoch)
            try:
                check_prefixes(player.world.plan, epoch)
            except BaseException as error:
                error.add_note(f"program {seed}")
                raise

    assert restores > 5 * PROGRAMS
    assert resumed > PROGRAMS // 10

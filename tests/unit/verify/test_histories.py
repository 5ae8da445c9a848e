"""Every legitimate history passes: random programs and random worlds, as in the engine's laws."""

from __future__ import annotations

from typing import Final

from runkon_server.core.engine import ResumeRefusedError
from runkon_server.core.facts import LimitReached
from runkon_server.verify.invariants import OF_HISTORIES, OF_RUNS, check
from support.evidence import evidence_of
from support.players import FACTS_MAX, Player

HISTORIES: Final = 150


def play(player: Player) -> None:
    """From pending to an end, over some resumes."""
    world = player.world
    for step in range(FACTS_MAX):
        if not world.state.is_terminal:
            fact = player.pick_fact(step)
            if not (isinstance(fact, LimitReached) and world.run["status"] == "cancelling"):
                world.happen(fact)  # of a run that ends so the events do not tell that it had to
            continue
        how = player.pick_resume()
        if how is None:
            return
        try:
            world.resume(*how)
        except ResumeRefusedError:
            return


def test_what_the_engine_does_breaks_no_promise() -> None:
    """At the end of each, over all its epochs."""
    epochs = 0
    for seed in range(HISTORIES):
        player = Player(seed)
        play(player)

        assert check(evidence_of(player.world), (*OF_RUNS, *OF_HISTORIES)) == [], seed
        epochs += player.world.run.get("epoch", 1) - 1
    assert epochs > HISTORIES / 10

"""What one run may use up of the database, and of replicas; more than that fails it."""

from __future__ import annotations

from typing import Final

from runkon_server.core.facts import LimitReached

EVENTS_MAX: Final = 200_000
"""Events of one run, all epochs together; those of its end may go beyond."""


def out_of_events(epoch: int) -> LimitReached:
    """What a run is told that has no events left."""
    return LimitReached(
        epoch=epoch,
        reason=f"BUDGET_EXCEEDED: the run has {EVENTS_MAX} events, more are not possible",
    )


INFRA_ATTEMPTS_MAX: Final = 5
"""How often a run may lose its owner, silently, between two steps that end."""


def poisonous(epoch: int, attempts: int) -> LimitReached:
    """What a run is told whose owners fall silent one after the other."""
    return LimitReached(
        epoch=epoch,
        reason=f"INFRA_POISON: {attempts} replicas in a row fell silent while they owned the run,"
        " and no step ended in between; it is not given to another one",
    )

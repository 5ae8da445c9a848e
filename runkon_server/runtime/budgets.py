"""What one run may use up of the database; more than that fails it, and nothing else."""

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

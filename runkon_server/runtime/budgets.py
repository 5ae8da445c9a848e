"""What one run may use up of the database; more than that fails it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runkon_server.core.decision import Event, RunEnded
from runkon_server.core.engine import advance
from runkon_server.core.facts import CancelAsked

if TYPE_CHECKING:
    from runkon_server.core.decision import Decision
    from runkon_server.core.model import RunState

EVENTS_MAX: Final = 200_000
"""Events of one run, all epochs together; its last ones may go beyond."""
_REASON: Final = f"BUDGET_EXCEEDED: the run has {EVENTS_MAX} events, more are not possible"


def end_over_budget(state: RunState) -> Decision:
    """End a run at once, with everything that it has in flight.

    As a forced cancel does, but for the outcome: nobody asked for it, so the run has failed. A run
    that is being cancelled anyway stays cancelled.
    """
    decision = advance(state, CancelAsked(reason=_REASON, force=True))
    if state.cancel is not None:
        return decision
    run: dict[str, Any] = {
        **decision.run,
        "status": "failed",
        "body_outcome": "failed",
        "body_error": _REASON,
        "error": _REASON,
        "cancel_reason": None,
    }
    return replace(
        decision,
        state=replace(decision.state, status="failed"),
        run=run,
        events=tuple(_as_failure(event) for event in decision.events),
        orders=tuple(
            RunEnded(status="failed") if isinstance(order, RunEnded) else order
            for order in decision.orders
        ),
    )


def _as_failure(event: Event) -> Event:
    if event.kind != "run_finished":
        return event
    return Event(event.kind, {**event.payload, "status": "failed", "error": _REASON})

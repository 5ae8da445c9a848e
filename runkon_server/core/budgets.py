"""How much one run may do before it is stopped, so that none can fill the database.

Derived from its rows, so that it needs no memory of its own. A step's attempt takes at most four
events, so these bounds also keep the events of a run below some 200,000; child runs are counted by
whoever creates them, over the whole tree. Loops and retries have limits of their own in the
language, but they multiply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl import limits

if TYPE_CHECKING:
    from runkon_server.core.model import RunState

ATTEMPTS_MAX: Final = 50_000
"""Attempts at steps that a run may start before its body is stopped."""
ALWAYS_ATTEMPTS_MAX: Final = 1_000
"""Beyond those, for the always section."""
MANY_ROWS: Final = ATTEMPTS_MAX // (1 + limits.RETRIES)
"""Below this many rows there cannot be that many attempts, so nobody need count them."""
BUDGET_EXCEEDED: Final = "BUDGET_EXCEEDED"
"""Begins the error of a run that was stopped; the `error_code` of a child without room."""


def is_spent(state: RunState) -> bool:
    """Whether no further step may start in this section."""
    counts = state.counts
    attempts = counts.total + counts.repeats
    if attempts < ATTEMPTS_MAX:
        return False
    return state.phase == "body" or attempts >= ATTEMPTS_MAX + ALWAYS_ATTEMPTS_MAX


def spent() -> str:
    """Why a run was stopped, for people."""
    return f"{BUDGET_EXCEEDED}: {ATTEMPTS_MAX} attempts at steps, the most that a run may start"

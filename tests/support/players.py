"""Random histories: a random program, and whatever happens to its run next, chosen by a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from runkon_server.core.engine import ResumeMode
from runkon_server.core.facts import (
    CancelAsked,
    ChildBlocked,
    ChildEnded,
    GateDecided,
    GateDecision,
    LimitReached,
    Outcome,
    Reported,
    TimerDue,
)
from support.histories import World
from support.programs import FLAG, Programs

if TYPE_CHECKING:
    from runkon_server.core.facts import Fact

FACTS_MAX: Final = 60
"""Of one history; most end before."""
_FIRST_BIAS: Final = 0.9
"""The first step mostly succeeds; when it fails, much of the program is never seen."""


class Player:
    """Chooses what happens; `world` is the run that it happens to.

    The chance comes from a seeded generator: drawn by hypothesis, histories took four times as long
    and were so short that the laws held vacuously.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        size = self.chance.randint(1, 10)
        self._bias = self.chance.choice([0.1, 0.3, 0.6, 0.8, 0.9, 0.98])
        self._stubbornness = self.chance.choice([0.0, 0.0, 0.5])
        self._cancel_at = self.chance.randint(0, 12) if self.chance.random() < 0.3 else FACTS_MAX
        self.world = World(
            Programs(self.chance, size).make(),
            {FLAG: self.chance.choice(["true", "TRUE", "no"])},
            fail_fast=self.chance.random() < 0.4,
            dry_run=self.chance.random() < 0.1,
        )

    def pick_resume(self) -> tuple[ResumeMode, str | None] | None:
        """How to take the ended run up again, which may be refused; None: not at all."""
        if self.chance.random() < 0.4:
            return None
        mode = self.chance.choice(
            [ResumeMode.NORMAL] * 3 + [ResumeMode.FROM_STEP] * 2 + [*ResumeMode]
        )
        if mode is not ResumeMode.FROM_STEP:
            return mode, None
        return mode, self.chance.choice([*self.world.steps, "no such step"])

    def pick_fact(self, step: int) -> Fact:
        """What happens next; `step`: how much has happened."""
        if self.world.state.status != "pending" and self.chance.random() < 0.01:
            epoch = self.world.state.setup.epoch
            return LimitReached(epoch=epoch, reason="BUDGET_EXCEEDED: too much")
        facts = self.world.possible()
        cancels = [fact for fact in facts if isinstance(fact, CancelAsked)]
        is_in_pause = any(timer.kind in ("retry", "poll") for timer in self.world.timers.values())
        if step >= self._cancel_at or (is_in_pause and self.chance.random() < 0.1):
            self._cancel_at += self.chance.randint(2, 10)
            return cancels[self.chance.random() < 0.2]
        facts = [fact for fact in facts if not isinstance(fact, CancelAsked)]
        grace = [
            fact for fact in facts if isinstance(fact, TimerDue) and ":grace:" in fact.timer_id
        ]
        if grace and self.chance.random() < 0.15:
            return grace[0]
        again = [fact for fact in facts if _is_next_try(fact)]
        if again and self.chance.random() < 0.5:
            return again[0]
        failures = [fact for fact in facts if self._leaves_a_retry(fact)]
        if failures and self.chance.random() < self._stubbornness:
            return self.chance.choice(failures)
        good = [fact for fact in facts if _is_good(fact)]
        bias = self._bias if step > 1 else _FIRST_BIAS
        return self.chance.choice(good if good and self.chance.random() < bias else facts)

    def _leaves_a_retry(self, fact: Fact) -> bool:
        if not isinstance(fact, Reported) or fact.outcome is not Outcome.FAILED:
            return False
        return fact.retryable and self.world.tasks[fact.task_id].retries_remaining > 0


def _is_next_try(fact: Fact) -> bool:
    return isinstance(fact, TimerDue) and fact.timer_id.endswith((":retry", ":poll"))


def _is_good(fact: Fact) -> bool:
    match fact:
        case Reported():
            return fact.outcome is Outcome.COMPLETED
        case GateDecided():
            return fact.decision is GateDecision.APPROVED
        case TimerDue():
            return _is_next_try(fact)
        case ChildEnded():
            return fact.status == "completed" or fact.error_code == "RESUME_REFUSED"
        case ChildBlocked():
            return False  # nothing has been achieved
        case _:
            return True

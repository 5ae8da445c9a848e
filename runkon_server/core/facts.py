"""What can happen to a run. Each fact names the exact thing it answers.

A fact counts only if that thing is in flight; anything else (late, double, foreign) changes
nothing. That alone makes redelivery harmless: there is no list of facts already seen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias


class Outcome(StrEnum):
    """How an attempt of a task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Stopped because the server asked for it; unasked it is a failure that is not retried."""


class GateDecision(StrEnum):
    """How a gate ended, in the words of the gate's own row."""

    APPROVED = "approved"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run was created and may begin. Always the first fact of a run."""


# Not frozen, though nobody changes it: every step makes one, and a frozen dataclass of this size is
# four times as slow to make.
@dataclass(slots=True, kw_only=True)
class Reported:
    """A worker (or the server, for a lost one) says how one task ended."""

    task_id: str
    outcome: Outcome
    result_text: str | None = None
    context: str | None = None
    markers: tuple[str, ...] = ()
    structured_output: str | None = None
    """JSON text, as reported; parsed only by those who need it."""
    output_file: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    error_code: str | None = None
    retryable: bool = True
    jitter: float = 0.5
    """0…1, drawn by whoever recorded the fact; spreads delayed retries by ±10 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecided:
    """A gate was decided under its run's lock; there is one such fact per gate."""

    gate_id: str
    decision: GateDecision
    feedback: str | None = None
    selections: tuple[str, ...] = ()
    decided_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerDue:
    """The database's clock has passed a timer of kind `retry`, `deadline` or `grace`."""

    timer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """Somebody wants the run to stop; `force` skips the always section and every wait."""

    reason: str
    force: bool = False


Fact: TypeAlias = Started | Reported | GateDecided | TimerDue | CancelAsked

_KINDS: dict[str, type[Fact]] = {
    "started": Started,
    "reported": Reported,
    "gate_decided": GateDecided,
    "timer_due": TimerDue,
    "cancel_asked": CancelAsked,
}
_NAMES: dict[type[Fact], str] = {cls: name for name, cls in _KINDS.items()}


def kind_of(fact: Fact) -> str:
    """The fact's name in the `facts` table."""
    return _NAMES[type(fact)]


def dump_fact(fact: Fact) -> str:
    """JSON text for the `facts` table, without the kind."""
    return json.dumps(asdict(fact), ensure_ascii=False, separators=(",", ":"))


def load_fact(kind: str, payload: str) -> Fact:
    """The inverse of `dump_fact`.

    Raises:
        KeyError: a kind written by a newer server.
    """
    values: dict[str, Any] = json.loads(payload)
    cls = _KINDS[kind]
    if cls is Reported:
        values["outcome"] = Outcome(values["outcome"])
        values["markers"] = tuple(values["markers"])
    elif cls is GateDecided:
        values["decision"] = GateDecision(values["decision"])
        values["selections"] = tuple(values["selections"])
    return cls(**values)

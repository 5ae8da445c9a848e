"""What can happen to a run. Each fact names the exact thing it answers.

A fact counts only if that thing is in flight; anything else (late, double, foreign) changes
nothing. That alone makes redelivery harmless: there is no list of facts already seen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from runkon_server.core.bubbling import ChildResults, load_results

if TYPE_CHECKING:
    from collections.abc import Callable


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
    raw_output: str | None = None
    """What was printed or said, for `outputs.interpret`; the three above are then unset."""
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
    """Who resolved it; None: the deadline, or a poll that gave no name."""
    poll_id: str | None = None
    """The task of kind `gate` whose report decided; None: something else did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolled:
    """A worker looked at what a gate of a custom type waits for, and it has not come yet.

    A look that approves or rejects is recorded as `GateDecided`. One that failed is `Reported`: if
    that is retryable there is another look later, otherwise the gate's step fails.
    """

    task_id: str
    delay_s: float | None = None
    """How long to wait before the next look; None: the engine's own pause."""
    note: str | None = None
    """What the gate waits for, for people."""


class Item(NamedTuple):
    """One thing that a foreach makes a child run for; `item_type` and `item_id` identify it."""

    item_type: str
    item_id: str
    item_ref: str = ""
    """For people."""
    context: dict[str, str] = {}  # noqa: RUF012  never changed
    """What the child run is told beside `item.id` and `item.ref`: `item.KEY` for each key."""


class Dependency(NamedTuple):
    """One item of a foreach has to wait for another; both are named by their `item_id`.

    Where items of several types share an id, each of them is meant.
    """

    blocker: str
    dependent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsCollected:
    """A task of kind `items` found these; one that found nothing out is `Reported` as failed."""

    task_id: str
    items: tuple[Item, ...] = ()
    """In the provider's order; the same item twice counts once."""
    dependencies: tuple[Dependency, ...] = ()
    """Looked at only by a foreach that is `ordered`; may name items that are not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded:
    """A child run is terminal in the epoch named, or it could not be started at all.

    The latter (no such workflow, an input missing, too deep, a budget spent) is answered with
    `failed` and an `error_code`; it names the child that `StartChild` or `ResumeChild` asked for.
    """

    child_run_id: str
    child_epoch: int
    status: str
    """`completed`, `failed` or `cancelled`."""
    error: str | None = None
    error_code: str | None = None
    """`BUDGET_EXCEEDED` fails the whole parent; other codes are shown with the step."""
    retryable: bool = True
    """False: another child would fail as well. A cancelled child is never retried."""
    results: ChildResults | None = None
    """Of a completed child: `bubbling.results_of` its rows."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The child's own sums over all its epochs, as in its row; counted if it completed."""
    jitter: float = 0.5
    """As in `Reported`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildBlocked:
    """A child run began or ceased to wait for a gate of its own, or of a run below it.

    Told as the child's row stands when the fact is recorded, so the last one told is true
    whatever the order in which the changes came through.
    """

    child_run_id: str
    child_epoch: int
    blocked_on: dict[str, Any] | None
    """The child's own, with the `run_id` that the gate belongs to; None: it does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerDue:
    """The database's clock has passed a timer of kind `retry`, `deadline`, `grace` or `poll`."""

    timer_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked:
    """Somebody wants the run to stop; `force` skips the always section and every wait."""

    reason: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached:
    """The whole run has used up what it may: it fails here and now, always section or not.

    Told by whoever counts what the core cannot, such as events that recorders append.
    """

    epoch: int
    """Of the run; a later one has to be told again."""
    reason: str
    """The run's error."""


Fact: TypeAlias = (
    Started
    | Reported
    | GateDecided
    | GatePolled
    | ItemsCollected
    | ChildEnded
    | ChildBlocked
    | TimerDue
    | CancelAsked
    | LimitReached
)

_KINDS: dict[str, type[Fact]] = {
    "started": Started,
    "reported": Reported,
    "gate_decided": GateDecided,
    "gate_polled": GatePolled,
    "items_collected": ItemsCollected,
    "child_ended": ChildEnded,
    "child_blocked": ChildBlocked,
    "timer_due": TimerDue,
    "cancel_asked": CancelAsked,
    "limit_reached": LimitReached,
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
    for name, read in _READERS.get(cls, {}).items():
        if values[name] is not None:
            values[name] = read(values[name])
    return cls(**values)


def _items(found: list[list[Any]]) -> tuple[Item, ...]:
    return tuple(Item(*each) for each in found)


def _dependencies(found: list[list[str]]) -> tuple[Dependency, ...]:
    return tuple(Dependency(*each) for each in found)


_READERS: dict[type[Fact], dict[str, Callable[[Any], object]]] = {
    Reported: {"outcome": Outcome, "markers": tuple},
    GateDecided: {"decision": GateDecision, "selections": tuple},
    ItemsCollected: {"items": _items, "dependencies": _dependencies},
    ChildEnded: {"results": load_results},
}
"""What JSON does not keep: how to read it back, by class and field."""

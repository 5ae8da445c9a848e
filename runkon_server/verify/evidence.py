"""What a checker reads: the rows and events of a database, and what clients, workers and rigs saw.

All of it is plain data, so that an archive is one JSON document and a check needs nothing else.
Rows are dictionaries by the column names of the tables. Instants (`at`, and every column whose name
ends in `_at` or `_until`) are seconds since 1970 by the database's clock; `mono_s` is the clock
CLOCK_MONOTONIC of the machine that the rig ran on, the same for all its processes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Row: TypeAlias = "Mapping[str, Any]"
FORMAT: Final = 1
"""Of archives; raised when an older checker would misread a newer one."""


class UnreadableArchiveError(ValueError):
    """The text is no archive of evidence, or one of another format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """One row of `run_events`."""

    seq: int
    epoch: int
    kind: str
    generation: int
    at: float
    payload: Mapping[str, Any]
    op_id: str | None = None
    """Of the transaction that wrote it, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """Everything in the database about one run, read at one instant."""

    run_id: str
    row: Row
    """Columns of `workflow_runs` and of `run_details` together."""
    events: Sequence[LoggedEvent] = ()
    """In the order of their sequence numbers."""
    steps: Sequence[Row] = ()
    items: Sequence[Row] = ()
    gates: Sequence[Row] = ()
    votes: Sequence[Row] = ()
    tasks: Sequence[Row] = ()
    timers: Sequence[Row] = ()
    facts: Sequence[Row] = ()
    """Recorded and not applied yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """A replica took a run."""

    run_id: str
    generation: int
    token: str
    at: float
    why: str = ""
    """`started`, `ready`, `stolen`, `with a fact`, `resumed`; empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One line of a client's or worker's history: a call was made, or its outcome became known.

    Names of operations, with what the invariants read of `args` and `result`:

    * `StartRun`: `request_id`, `digest`, `name` (the caller's own for the run it wants, the same in
      all repeats of the call; also the run's label `name`); result `run_id`;
    * `CancelRun`, `ResumeRun`: `run_id`, `request_id`, `digest`; result `run_id`;
    * `ResolveGate`: `gate_id`, `principal`, `approve`; result `gate_id`, and with a refusal
      `reason` and `resolved_by`;
    * `ReportTask`: `task_id`, `token`, `digest`; result `status` (`accepted`, `duplicate`, `stale`,
      `refused`).
    """

    mono_s: float
    proc: str
    op_id: str
    """The same for the call and its outcome."""
    kind: Literal["invoke", "ok", "fail", "info"]
    """`fail`: certainly without effect. `info`: perhaps with one (UNAVAILABLE, DEADLINE_EXCEEDED,
    CANCELLED, INTERNAL)."""
    op: str
    args: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event as a subscriber got it."""

    seq: int
    kind: str
    epoch: int
    payload: Mapping[str, Any] | None = None
    """None: the subscriber kept only the head."""
    source: str = ""
    """Connection or replica that it came by, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one subscriber received of one run, over all its connections, in order."""

    subscriber: str
    run_id: str
    after_seq: int = 0
    """Where the subscriber began."""
    deliveries: Sequence[Delivery] = ()
    is_ended: bool = False
    """The stream told that the run's last event was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A line that a worker wrote, with fsync, before it reported: the step did something."""

    idem_key: str
    run_id: str
    step: str
    """The step's place, `at`."""
    iterations: tuple[int, ...] = ()
    item: str | None = None
    attempt: int = 0
    fence: str = ""
    """`GENERATION.DELIVERY`."""
    queues: Sequence[str] | None = None
    """Those that the worker said to serve, empty for the default one; None: not known."""
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that a nemesis did."""

    kind: str
    """`kill`, `term`, `stop`, `restart`, …"""
    at: float
    owner_token: str | None = None
    """Of the replica it was done to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the bounds of some invariants are made of."""

    lease_ttl_s: float = 30.0
    longest_step_s: float = 0.0
    """The longest that a worker of the rig takes for a step, retries and pauses included."""
    deliveries_max: int | None = None
    """How often a task is handed out at most; None: not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A whole history. What is empty was not watched, and is not checked."""

    runs: Mapping[str, RunEvidence]
    definitions: Mapping[str, str] = field(default_factory=dict)
    """Snapshots by content hash."""
    ownership: Sequence[Ownership] = ()
    """In the order in which it happened."""
    is_ownership_complete: bool = False
    """Every change of hands is in `ownership`."""
    operations: Sequence[Operation] = ()
    subscriptions: Sequence[Subscription] = ()
    effects: Sequence[Effect] = ()
    are_effects_complete: bool = False
    """Every worker wrote an effect log."""
    faults: Sequence[Fault] = ()
    sometimes: Mapping[str, int] = field(default_factory=dict)
    """How often each thing occurred that has to occur in a rig's run."""
    canaries: Sequence[str] = ()
    """Secrets that were planted."""
    limits: Limits = field(default_factory=Limits)
    taken_at: float = 0.0
    """When the database was read."""
    healed_at: float | None = None
    """When the last fault ended; None: none has, so nothing is due."""
    healed_mono_s: float | None = None

    def of_runs(self, run_ids: Iterable[str]) -> Evidence:
        """The same evidence about some of the runs, as far as it is about runs."""
        wanted = set(run_ids)
        return replace(
            self,
            runs={run_id: run for run_id, run in self.runs.items() if run_id in wanted},
            ownership=[each for each in self.ownership if each.run_id in wanted],
            subscriptions=[each for each in self.subscriptions if each.run_id in wanted],
            effects=[each for each in self.effects if each.run_id in wanted],
        )


_LISTS: Final = {"ownership": Ownership, "operations": Operation, "faults": Fault}


def dump(evidence: Evidence) -> str:
    """An archive of evidence: JSON text."""
    return json.dumps({"format": FORMAT, **asdict(evidence)}, ensure_ascii=False)


def load(text: str) -> Evidence:
    """The evidence of an archive.

    Raises:
        UnreadableArchiveError: see there.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        found = document.pop("format")
        if found != FORMAT:
            raise UnreadableArchiveError(f"format {found}; this checker reads {FORMAT}")
        for name, kind in _LISTS.items():
            document[name] = [kind(**each) for each in document[name]]
        document["subscriptions"] = [_subscription(each) for each in document["subscriptions"]]
        document["effects"] = [_effect(each) for each in document["effects"]]
        document["runs"] = {run_id: _run(each) for run_id, each in document["runs"].items()}
        document["limits"] = Limits(**document["limits"])
        return Evidence(**document)
    except UnreadableArchiveError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableArchiveError(f"no archive of evidence: {error!r}") from error


def _run(document: dict[str, Any]) -> RunEvidence:
    return RunEvidence(**{**document, "events": [LoggedEvent(**e) for e in document["events"]]})


def _subscription(document: dict[str, Any]) -> Subscription:
    deliveries = [Delivery(**each) for each in document["deliveries"]]
    return Subscription(**{**document, "deliveries": deliveries})


def _effect(document: dict[str, Any]) -> Effect:
    return Effect(**{**document, "iterations": tuple(document["iterations"])})

"""What is broken when: drawn up front from the seed, written down, and readable again for a replay.

Kinds are drawn from a shuffled bag that is filled again when it is empty, so that a run of some
length uses every kind. Their number follows from the length, and their instants are drawn evenly:
so the gaps between them are those of chance, exponential, and no seed makes a tame run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GAP_MEAN_S: Final = 1.5
CALM_S: Final = 1.0
"""At the beginning nothing is broken: runs have to be under way first."""


class Kind(StrEnum):
    """A way to do harm; the number is that of the fault catalogue."""

    KILL_REPLICA = "kill_replica"
    TERM_REPLICA = "term_replica"
    FREEZE_BRIEFLY = "freeze_replica_briefly"
    FREEZE_REPLICA = "freeze_replica"
    FREEZE_IN_TRANSACTION = "freeze_replica_in_transaction"
    CRASH_POSTGRES = "crash_postgres"
    RESTART_POSTGRES = "restart_postgres"
    TERMINATE_BACKENDS = "terminate_backends"
    CUT_TRANSACTION = "cut_transaction"
    LOSE_COMMIT = "lose_commit"
    LOSE_COMMIT_ANSWER = "lose_commit_answer"
    LATE_COMMIT = "late_commit"
    SLOW_DATABASE = "slow_database"
    LOCK_TABLE = "lock_table"
    LOSE_NOTIFICATIONS = "lose_notifications"
    PARTITION_DATABASE = "partition_database"
    PARTITION_ONE_WAY = "partition_database_one_way"
    PARTITION_WORKER = "partition_worker"
    KILL_WORKER = "kill_worker"
    FREEZE_WORKER = "freeze_worker"
    HALF_CLOSE_WORKER = "half_close_worker"
    RESET_CLIENT = "reset_client"
    THROTTLE_CLIENT = "throttle_client"

    @property
    def number(self) -> int:
        """In the catalogue of faults, reliability specification §3."""
        return _ABOUT[self][0]

    @property
    def words(self) -> str:
        """What it is, for people."""
        return _ABOUT[self][1]


_ABOUT: Final[dict[Kind, tuple[int, str]]] = {
    Kind.KILL_REPLICA: (2, "a replica is killed (kill -9) and started again"),
    Kind.TERM_REPLICA: (3, "a replica is asked to stop (SIGTERM) and started again"),
    Kind.FREEZE_BRIEFLY: (4, "a replica is frozen for less than its leases last"),
    Kind.FREEZE_REPLICA: (5, "a replica is frozen for longer than its leases last"),
    Kind.FREEZE_IN_TRANSACTION: (6, "the same in the midst of a transaction, with rows locked"),
    Kind.CRASH_POSTGRES: (9, "PostgreSQL is stopped at once (immediate) and started again"),
    Kind.RESTART_POSTGRES: (10, "PostgreSQL is restarted in order (fast)"),
    Kind.TERMINATE_BACKENDS: (12, "all sessions of the database are ended"),
    Kind.CUT_TRANSACTION: (13, "a connection is reset in the midst of a transaction"),
    Kind.LOSE_COMMIT: (14, "a COMMIT never reaches the database"),
    Kind.LOSE_COMMIT_ANSWER: (14, "the answer to a COMMIT is lost"),
    Kind.LATE_COMMIT: (14, "a COMMIT reaches the database a second after its connection broke"),
    Kind.SLOW_DATABASE: (17, "everything to and from the database takes 200 ms longer"),
    Kind.LOCK_TABLE: (17, "a stranger locks the table of runs"),
    Kind.LOSE_NOTIFICATIONS: (24, "notifications between replicas are lost"),
    Kind.PARTITION_DATABASE: (28, "a replica is cut off from the database"),
    Kind.PARTITION_ONE_WAY: (29, "the database's answers do not reach a replica"),
    Kind.PARTITION_WORKER: (30, "a worker is cut off for longer than its tasks are leased"),
    Kind.KILL_WORKER: (31, "a worker is killed (kill -9) and started again"),
    Kind.FREEZE_WORKER: (32, "a worker is frozen for longer than its tasks are leased"),
    Kind.HALF_CLOSE_WORKER: (36, "one direction of a worker's connections is closed"),
    Kind.RESET_CLIENT: (36, "the connections of a caller are reset"),
    Kind.THROTTLE_CLIENT: (37, "a caller receives 4 kB a second"),
}

OF_POSTGRES: Final = frozenset({Kind.CRASH_POSTGRES, Kind.RESTART_POSTGRES})
"""Need control over PostgreSQL's process."""
ON_THE_WIRE: Final = frozenset(
    {
        Kind.FREEZE_IN_TRANSACTION,
        Kind.CUT_TRANSACTION,
        Kind.LOSE_COMMIT,
        Kind.LOSE_COMMIT_ANSWER,
        Kind.LATE_COMMIT,
        Kind.LOSE_NOTIFICATIONS,
    }
)
"""Need a connection without TLS, for the proxy has to read along."""

_BRIEF: Final = frozenset({Kind.FREEZE_BRIEFLY})
_LONG: Final = frozenset(
    {
        Kind.FREEZE_REPLICA,
        Kind.FREEZE_IN_TRANSACTION,
        Kind.PARTITION_DATABASE,
        Kind.PARTITION_ONE_WAY,
        Kind.PARTITION_WORKER,
        Kind.FREEZE_WORKER,
        Kind.LOSE_NOTIFICATIONS,
    }
)
"""Last longer than a lease."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault."""

    at_s: float
    """Seconds after the load began."""
    kind: Kind
    target: int
    """Which replica, worker or caller, counted from 0 and beyond their number from 0 again."""
    lasts_s: float
    """How long until it is undone; for a killed process, until it is started again."""

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.kind}  target {self.target}  for {self.lasts_s:.2f} s"


def make_schedule(
    seed: int, seconds: float, kinds: Collection[Kind], *, lease_ttl_s: float
) -> tuple[PlannedFault, ...]:
    """Faults for so many seconds; the same arguments make the same schedule."""
    chance = Random(seed)
    wanted = sorted(kinds)
    count = round((seconds - CALM_S) / GAP_MEAN_S) if wanted else 0
    instants = sorted(chance.uniform(CALM_S, seconds) for _ in range(count))
    bag: list[Kind] = []
    planned: list[PlannedFault] = []
    for at_s in instants:
        bag = bag or chance.sample(wanted, len(wanted))
        kind = bag.pop()
        lasts_s = _lasts_s(kind, chance, lease_ttl_s)
        planned.append(PlannedFault(round(at_s, 3), kind, chance.randrange(12), lasts_s))
    return tuple(planned)


def _lasts_s(kind: Kind, chance: Random, lease_ttl_s: float) -> float:
    if kind in _BRIEF:
        return round(lease_ttl_s * chance.uniform(0.1, 0.7), 3)
    if kind in _LONG:
        return round(lease_ttl_s * chance.uniform(1.3, 2.0), 3)
    return round(chance.uniform(0.2, 2.0), 3)


def dump_schedule(faults: Sequence[PlannedFault]) -> str:
    """A line of JSON per fault."""
    return "".join(f"{json.dumps(asdict(fault))}\n" for fault in faults)


def load_schedule(text: str) -> tuple[PlannedFault, ...]:
    """The faults of such lines.

    Raises:
        ValueError: they are no schedule.
    """
    try:
        lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines() if line]
        return tuple(PlannedFault(**{**line, "kind": Kind(line["kind"])}) for line in lines)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no schedule: {error}") from error

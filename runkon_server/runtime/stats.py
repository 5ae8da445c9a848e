"""Counters and gauges of one replica, plain numbers; `api/metrics.py` renders them when scraped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class EngineStats:
    """Monotonic counters unless said otherwise. Written in the event loop only."""

    batches: int = 0
    entries: int = 0
    commit_seconds: float = 0.0
    commit_seconds_max: float = 0.0
    """Worst batch since the start."""
    commit_latency: Counter[float] = field(default_factory=Counter)
    """Upper bound in seconds → batches at or under it (not cumulative)."""
    batch_sizes: Counter[float] = field(default_factory=Counter)
    """Upper bound in entries → batches at or under it (not cumulative)."""
    commit_retries: int = 0
    commit_refusals: int = 0
    ambiguous_commits: int = 0
    commits_resolved: Counter[str] = field(default_factory=Counter)
    """Ambiguous ones by what they turned out to be: committed, aborted, unknown."""
    runs_started: int = 0
    runs_finished: Counter[str] = field(default_factory=Counter)
    steps_finished: Counter[str] = field(default_factory=Counter)
    events_appended: int = 0
    leases_held: int = 0
    """Gauge: runs in memory here."""
    runs_acquired: int = 0
    steals: int = 0
    """Runs taken over from a replica whose lease ran out."""
    orphans: int = 0
    """Runs taken over from a replica whose session was gone."""
    leases_lost: int = 0
    runs_parked: int = 0
    runs_set_aside: int = 0
    """Runs that this replica gave up because it cannot read them."""
    notices_unreadable: int = 0
    """Times that a child run could not be read to tell its parent."""
    runs_purged: int = 0
    """Runs that were kept no longer, removed by this replica's sweeper."""
    tasks_dispatched: int = 0
    tasks_reported: Counter[str] = field(default_factory=Counter)
    """By acknowledgement."""
    tasks_redelivered: int = 0
    hints_lost: int = 0
    """Messages with hints to other replicas that could not be sent."""
    queue_looks: int = 0
    """Statements that looked for queued tasks."""
    workers_connected: int = 0
    """Gauge."""
    peers: int = 0
    """Gauge: other live replicas on the same database."""

    def observe_batch(self, size: int, seconds: float) -> None:
        """Count one committed batch."""
        self.batches += 1
        self.entries += size
        self.commit_seconds += seconds
        self.commit_seconds_max = max(self.commit_seconds_max, seconds)
        self.commit_latency[_bucket(seconds, LATENCY_BUCKETS_S)] += 1
        self.batch_sizes[_bucket(size, SIZE_BUCKETS)] += 1


LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, float("inf"))
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def _bucket(value: float, bounds: tuple[float, ...]) -> float:
    return next((bound for bound in bounds if value <= bound), bounds[-1])

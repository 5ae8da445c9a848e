"""What a scrape reads from the engine: plain numbers made into Prometheus metrics.

Runs on the thread that answers the scrape, while the event loop goes on counting; a number may be
one behind another.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from runkon_server.runtime.stats import LATENCY_BUCKETS_S, SIZE_BUCKETS
from runkon_server.store.queues import display_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.reads.queue import Waiting

__all__ = ["EngineCollector", "ReplicaCollector"]

_B = TypeVar("_B", int, float)

_COUNTERS: Final = {
    "runs_started": ("runkon_runs_started", "Runs created by this replica."),
    "events_appended": ("runkon_events_appended", "Events of runs that were committed."),
    "commit_retries": (
        "runkon_commit_retries",
        "Batches tried again, after a deadlock, say.",
    ),
    "commit_refusals": ("runkon_commit_refusals", "Entries that the database refused."),
    "ambiguous_commits": ("runkon_commits_ambiguous", "Batches whose commit went unanswered."),
    "runs_acquired": ("runkon_runs_acquired", "Runs taken up from the database."),
    "steals": ("runkon_steals", "Runs taken over from a replica that had fallen silent."),
    "orphans": ("runkon_orphans", "Runs taken over from a replica whose session was gone."),
    "leases_lost": ("runkon_leases_lost", "Runs that another replica took over from this one."),
    "runs_parked": ("runkon_runs_parked", "Runs put out of memory because they only wait."),
    "runs_set_aside": (
        "runkon_runs_set_aside",
        "Runs given up for a while because this replica cannot read them.",
    ),
    "notices_unreadable": (
        "runkon_notices_unreadable",
        "Times that a child run could not be read to tell its parent.",
    ),
    "runs_purged": ("runkon_runs_purged", "Runs removed because they were kept no longer."),
    "tasks_dispatched": ("runkon_tasks_dispatched", "Tasks handed to workers."),
    "tasks_redelivered": ("runkon_tasks_redelivered", "Tasks handed out again."),
    "hints_lost": ("runkon_hints_lost", "Messages to other replicas that could not be sent."),
    "queue_looks": ("runkon_queue_looks", "Statements that looked for queued tasks."),
}
"""Field of the statistics → name, as which `_total` is added, and help."""
_LABELLED: Final = {
    "runs_finished": ("runkon_runs_finished", "Runs that ended.", "status"),
    "steps_finished": ("runkon_steps_finished", "Steps that ended.", "status"),
    "commits_resolved": (
        "runkon_commits_resolved",
        "Batches whose commit went unanswered, by what became of them.",
        "outcome",
    ),
    "tasks_reported": ("runkon_tasks_reported", "Reports of workers.", "status"),
}
_GAUGES: Final = {
    "leases_held": ("runkon_leases_held", "Runs that this replica holds in memory."),
    "workers_connected": ("runkon_workers_connected", "Worker streams that are open."),
    "peers": ("runkon_peers", "Other live replicas on the same database."),
}


class EngineCollector(Collector):
    """The engine's own statistics."""

    def __init__(self, stats: EngineStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        stats = self._stats
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=getattr(stats, field))
        for field, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(name, text, value=getattr(stats, field))
        for field, (name, text, label) in _LABELLED.items():
            family = CounterMetricFamily(name, text, labels=[label])
            for value, count in dict(getattr(stats, field)).items():
                family.add_metric([str(value)], count)
            yield family
        yield HistogramMetricFamily(
            "runkon_commit_duration_seconds",
            "How long batches took, from their first statement to the commit.",
            buckets=_cumulated(LATENCY_BUCKETS_S, stats.commit_latency),
            sum_value=stats.commit_seconds,
        )
        yield HistogramMetricFamily(
            "runkon_commit_batch_entries",
            "How many changes of runs one commit carried.",
            buckets=_cumulated(SIZE_BUCKETS, stats.batch_sizes),
            sum_value=stats.entries,
        )


class ReplicaCollector(Collector):
    """What is asked for at the moment of the scrape."""

    def __init__(
        self,
        *,
        database_is_up: Callable[[], bool],
        streams_open: Callable[[], int],
        feed_lag_s: Callable[[], float],
        queues: Callable[[], Sequence[Waiting]],
        notifications_ratio: Callable[[], float | None],
    ) -> None:
        self._database_is_up = database_is_up
        self._streams_open = streams_open
        self._feed_lag_s = feed_lag_s
        self._queues = queues
        self._notifications_ratio = notifications_ratio

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        build = GaugeMetricFamily(
            "runkon_build_info", "Always 1; the version is the label.", labels=["version"]
        )
        build.add_metric([version("runkon")], 1)
        yield build
        yield GaugeMetricFamily(
            "runkon_database_up", "1 while PostgreSQL answers.", value=int(self._database_is_up())
        )
        yield GaugeMetricFamily(
            "runkon_event_streams_open",
            "Streams of events and gates under way.",
            value=self._streams_open(),
        )
        yield GaugeMetricFamily(
            "runkon_feed_lag_seconds",
            "How long an open transaction has held back the oldest event that feeds wait for.",
            value=self._feed_lag_s(),
        )
        notifications = GaugeMetricFamily(
            "runkon_notification_queue_ratio",
            "How full PostgreSQL's queue of notifications is; from 1 on, hints are lost.",
            labels=[],
        )
        if (ratio := self._notifications_ratio()) is not None:
            notifications.add_metric([], ratio)
        yield notifications
        depth = GaugeMetricFamily(
            "runkon_task_queue_depth",
            "Tasks that no worker has taken yet.",
            labels=["namespace", "queue", "action"],
        )
        age = GaugeMetricFamily(
            "runkon_task_queue_age_seconds",
            "How long the oldest of them has waited.",
            labels=["namespace", "queue", "action"],
        )
        for tasks in self._queues():
            labels = [tasks.namespace, display_queue(tasks.queue), tasks.action]
            depth.add_metric(labels, tasks.depth)
            age.add_metric(labels, tasks.age_s)
        yield from (depth, age)


def _cumulated(bounds: Sequence[_B], counts: Mapping[_B, int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them, the last one without a bound."""
    found = dict(counts)
    sums = accumulate(found.get(bound, 0) for bound in bounds)
    buckets = [(_bound(bound), float(count)) for bound, count in zip(bounds, sums, strict=True)]
    if buckets[-1][0] != "+Inf":
        buckets.append(("+Inf", buckets[-1][1]))
    return buckets


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else str(float(value))

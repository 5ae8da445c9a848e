"""Metrics: what a scrape shows, and that the documentation lists all of it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import generate_latest
from sqlalchemy import text

from runkon_server.api.metrics import Metrics
from runkon_server.runtime.ambient import SystemAmbient
from support.replicas import FakeReplica
from support.rows import engine_of, ulid
from support.waiting import eventually

DOCUMENT = Path(__file__).parents[2] / "docs/reference/metrics.md"


@dataclass(frozen=True)
class OpenOnes:
    """The streams of a replica."""

    streams_open: int
    feed_lag_s: float


NO_STREAMS = OpenOnes(0, 0.0)
START_RUN = "/runkon.v1.RunService/StartRun"


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample of a scrape by name and labels."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    parts = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in parts}


def test_calls_are_counted_by_method_and_code() -> None:
    """Those that ended, how long they took, and those under way."""
    metrics = Metrics(FakeReplica(), NO_STREAMS)
    for _ in range(3):
        metrics.started(START_RUN)
    metrics.finished(START_RUN, grpc.StatusCode.OK, 0.003)
    metrics.finished(START_RUN, grpc.StatusCode.NOT_FOUND, 0.2)

    shown = samples(metrics)

    method = f'method="{START_RUN}"'
    assert shown[f'runkon_rpcs_total{{code="OK",{method}}}'] == 1
    assert shown[f'runkon_rpcs_total{{code="NOT_FOUND",{method}}}'] == 1
    assert shown[f"runkon_rpcs_open{{{method}}}"] == 1
    assert shown[f"runkon_rpc_duration_seconds_count{{{method}}}"] == 2
    assert shown[f'runkon_rpc_duration_seconds_bucket{{le="0.005",{method}}}'] == 1


def test_what_the_engine_counts_is_shown() -> None:
    """As of the moment of the scrape."""
    replica = FakeReplica()
    metrics = Metrics(replica, OpenOnes(7, 0.25))
    replica.stats.runs_started = 5
    replica.stats.runs_finished["failed"] += 2
    replica.stats.steps_finished["completed"] += 9
    replica.stats.leases_held = 3
    replica.stats.steals = 1
    replica.database_is_up = False

    shown = samples(metrics)

    assert shown["runkon_runs_started_total"] == 5
    assert shown['runkon_runs_finished_total{status="failed"}'] == 2
    assert shown['runkon_steps_finished_total{status="completed"}'] == 9
    assert shown["runkon_leases_held"] == 3
    assert shown["runkon_steals_total"] == 1
    assert shown["runkon_event_streams_open"] == 7
    assert shown["runkon_feed_lag_seconds"] == 0.25
    assert shown["runkon_database_up"] == 0


def test_batches_are_a_histogram() -> None:
    """Buckets add up, whatever the size; sums are exact."""
    replica = FakeReplica()
    metrics = Metrics(replica, NO_STREAMS)
    for size, seconds in ((1, 0.0005), (3, 0.004), (64, 0.004), (9999, 20.0)):
        replica.stats.observe_batch(size, seconds)

    shown = samples(metrics)

    bucket = 'runkon_commit_batch_entries_bucket{le="%s"}'
    assert [shown[bucket % bound] for bound in ("1.0", "4.0", "64.0", "+Inf")] == [1, 2, 3, 4]
    assert shown["runkon_commit_batch_entries_count"] == 4
    assert shown["runkon_commit_batch_entries_sum"] == 1 + 3 + 64 + 9999
    assert shown['runkon_commit_duration_seconds_bucket{le="0.005"}'] == 3
    assert shown['runkon_commit_duration_seconds_bucket{le="+Inf"}'] == 4


async def test_queues_are_read_from_the_database(database: str) -> None:
    """Depth and age by namespace, queue and action, of queued tasks only."""
    async with engine_of(database) as engine:
        async with engine.connect() as conn:
            for number, state in enumerate(["queued", "queued", "done", "queued"]):
                await conn.execute(
                    text(
                        "INSERT INTO tasks (run_id, id, namespace, queue, step_id, kind, action,"
                        " state, created_at, payload) VALUES (:run, :id, 'team', :queue, 's',"
                        " 'action', 'plan', :state, clock_timestamp() - interval '90 s', '{}')"
                    ),
                    {
                        "run": ulid(1),
                        "id": f"t{number}",
                        "state": state,
                        "queue": "gpu" if number == 3 else "",
                    },
                )
        metrics = Metrics(FakeReplica(engine), NO_STREAMS)
        following = asyncio.create_task(metrics.follow(SystemAmbient()))
        depth = 'runkon_task_queue_depth{action="plan",namespace="team",queue="default"}'
        ratio = "runkon_notification_queue_ratio"

        async def is_read() -> bool:
            return {depth, ratio} <= samples(metrics).keys()

        await eventually(is_read, "the queues are read, one after the other")
        shown = samples(metrics)
        following.cancel()

    assert shown[depth] == 2
    assert shown[depth.replace("default", "gpu")] == 1
    assert 90 <= shown[depth.replace("depth", "age_seconds")] < 3_600
    assert 0 <= shown[ratio] < 0.5


def test_the_reference_lists_every_metric_with_its_type() -> None:
    """Neither more nor less than what a scrape shows, but for those of the process."""
    metrics = Metrics(FakeReplica(), NO_STREAMS)
    families: list[Any] = list(metrics.registry.collect())
    shown = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type)
        for family in families
        if family.name.startswith("runkon_")
    }
    rows = re.findall(r"^\| `(runkon_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)

    assert set(rows) == shown
    assert len(rows) == len(shown)

"""Prometheus metrics of one replica; `docs/reference/metrics.md` lists them for users.

Calls are counted as they end; what the engine counts is read when somebody scrapes, on the thread
that answers the scrape; queues are read from the database now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import prometheus_client as prometheus
import structlog

from runkon_server.api.collectors import EngineCollector, ReplicaCollector
from runkon_server.store.database import is_passing
from runkon_server.store.reads.queue import longest_waiting, notifications_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc
    from sqlalchemy.ext.asyncio import AsyncEngine

    from runkon_server.runtime.ambient import Ambient
    from runkon_server.runtime.stats import EngineStats
    from runkon_server.store.reads.queue import Waiting

__all__ = ["Metrics"]

log = structlog.get_logger(__name__)

QUEUES_EVERY_S: Final = 5.0
_RPC_BUCKETS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0),
)


class Source(Protocol):
    """The part of the engine that is measured."""

    stats: EngineStats

    @property
    def reads(self) -> AsyncEngine:
        """The pool for reads."""

    @property
    def database_is_up(self) -> bool:
        """Whether PostgreSQL answered lately."""


class Streams(Protocol):
    """The streams that are measured."""

    @property
    def streams_open(self) -> int:
        """How many there are."""

    @property
    def feed_lag_s(self) -> float:
        """For how long the oldest event of any feed is held back."""


class Metrics:
    """All metrics of a replica, in a registry of their own; also the observer of its calls.

    Args:
        engine: what is measured.
        streams: says how many there are, and how far feeds lag.
    """

    def __init__(self, engine: Source, streams: Streams) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call] # left untyped
        self.registry = prometheus.CollectorRegistry()
        self._engine = engine
        self._open = prometheus.Gauge(
            "runkon_rpcs_open", "Calls under way.", ["method"], registry=self.registry
        )
        self._ended = prometheus.Counter(
            "runkon_rpcs", "Calls that ended.", ["method", "code"], registry=self.registry
        )
        self._duration = prometheus.Histogram(
            "runkon_rpc_duration_seconds",
            "How long calls took; of a stream, how long it was open.",
            ["method"],
            buckets=_RPC_BUCKETS_S,
            registry=self.registry,
        )
        self._queues: Sequence[Waiting] = ()
        self._notifications_ratio: float | None = None
        self._known: dict[str, tuple[prometheus.Gauge, prometheus.Histogram]] = {}
        prometheus.ProcessCollector(registry=self.registry)
        prometheus.GCCollector(registry=self.registry)
        self.registry.register(EngineCollector(engine.stats))
        self.registry.register(
            ReplicaCollector(
                database_is_up=lambda: engine.database_is_up,
                streams_open=lambda: streams.streams_open,
                feed_lag_s=lambda: streams.feed_lag_s,
                queues=lambda: self._queues,
                notifications_ratio=lambda: self._notifications_ratio,
            )
        )

    def started(self, method: str) -> None:
        """A call began; with `finished` what `interceptor.CallObserver` asks for."""
        self._of(method)[0].inc()

    def finished(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """A call ended."""
        under_way, duration = self._of(method)
        under_way.dec()
        duration.observe(seconds)
        self._ended.labels(method, code.name).inc()

    def _of(self, method: str) -> tuple[prometheus.Gauge, prometheus.Histogram]:
        known = self._known.get(method)
        if known is None:
            known = self._open.labels(method), self._duration.labels(method)
            self._known[method] = known
        return known

    async def follow(self, ambient: Ambient) -> None:
        """Read the queues now and then; never returns."""
        while True:
            try:
                async with self._engine.reads.connect() as conn:
                    self._queues = await longest_waiting(conn)
                    self._notifications_ratio = await notifications_ratio(conn)
            except Exception as error:
                if not is_passing(error):
                    raise
                self._queues, self._notifications_ratio = (), None  # better none than old ones
                log.debug("metrics.look_failed", reason=str(error))
            await ambient.sleep(QUEUES_EVERY_S)

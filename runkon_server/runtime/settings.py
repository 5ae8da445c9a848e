"""What an operator can set for the engine. All times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one replica. The defaults suit production; tests use shorter times."""

    dsn: str
    """libpq URL or key/value text; through a transaction pooler only with a `direct_dsn`."""
    direct_dsn: str | None = None
    """The same database without a pooler, for what needs a session: notifications, the sign of
    life, the renewal of leases. None: `dsn` is direct."""
    lease_ttl_s: float = 30.0
    """How long a run stays with a replica that has fallen silent."""
    lease_refresh_s: float = 10.0
    """At most a third of the TTL."""
    settle_s: float = 5.0
    """After its own listener's session is new, a replica takes nobody for gone for this long: when
    PostgreSQL restarts, everybody looks dead."""
    task_lease_s: float = 30.0
    """A task whose worker is silent for this long is handed out again."""
    linger_s: float = 2.0
    """How long a run that waits only for workers stays in its owner's memory."""
    scan_s: float = 0.5
    """Pause between looks for runs without an owner, ±50 %."""
    poll_s: float = 1.0
    """Longest wait for anything that a notification should have told."""
    lanes: int = 2
    """Transactions in flight: while the database writes one, the replica decides the next."""
    read_connections: int = 4
    sweep_s: float = 600.0
    """Pause between looks for runs that are kept no longer, ±50 %."""
    acquire_batch: int = 64
    held_max: int = 10_000
    """A replica that holds so many runs takes up no more; those that are started there it keeps."""
    deliveries_max: int = 6
    """A task lost this often is failed with code WORKER_LOST instead of being handed out again."""

    @property
    def session_dsn(self) -> str:
        """Where a session is a session."""
        return self.direct_dsn or self.dsn

    @property
    def is_pooled(self) -> bool:
        """Whether `dsn` may give every transaction another session."""
        return self.direct_dsn is not None

    def __post_init__(self) -> None:
        if self.lease_refresh_s > self.lease_ttl_s / 2:
            raise ValueError("lease_refresh_s must be well below lease_ttl_s")

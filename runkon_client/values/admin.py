"""What operators look at: limits of actions, replicas, retention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionLimit:
    """What was set for an action of a namespace, and how much of it is in use."""

    namespace: str
    action: str
    concurrency: int | None
    """Tasks that may be with workers at once; 0 stops the action, None is any number."""
    rate_per_s: float | None
    """Tasks that may be handed out in a second, on average; None is any number."""
    running: int
    queued: int
    """At most 1,000 are counted."""
    next_task_at: datetime | None
    """When the rate lets the next task out; in the past if it does now. None without a rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A server on the database, as it told of itself."""

    id: str
    version: str
    started_at: datetime
    last_seen_at: datetime
    is_live: bool
    is_draining: bool
    runs_owned: int
    """At most 100,000 are counted."""
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long runs are kept after their end."""

    namespace: str
    """Empty if it is the default of all."""
    keep_for: timedelta | None
    """None: for ever."""
    is_inherited: bool
    """Whether nothing was set for the namespace, so that a default holds."""

"""Workers: who is there to take tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedWorker:
    """A worker as the replica has it that it is connected to; `*` in `actions` means any other.

    One that `polls` instead of holding a stream tells no `client` and no `concurrency`.
    """

    namespace: str
    id: str
    client: str
    queues: tuple[str, ...]
    """`default` is that of runs without a queue, `*` every one; empty if the server knows none."""
    actions: tuple[str, ...]
    item_providers: tuple[str, ...]
    gate_types: tuple[str, ...]
    scripts: bool
    concurrency: int
    polls: bool
    connected_at: datetime
    last_seen_at: datetime
    replica: str

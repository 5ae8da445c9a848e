"""A line of the tree that `--watch` draws. What it looks like is decided in `drawing`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime


class Mark(StrEnum):
    """What a line's sign says."""

    GROUP = "group"
    """A block, or one pass of a loop; its state is that of its lines."""
    AHEAD = "ahead"
    """Not reached yet; it may never be."""
    NOT_TAKEN = "not taken"
    RUNNING = "running"
    RETRYING = "retrying"
    """Between two attempts."""
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed out"


ACTIVE: Final = frozenset({Mark.RUNNING, Mark.RETRYING, Mark.WAITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the tree."""

    depth: int
    mark: Mark
    label: str
    began_at: datetime | None = None
    ended_at: datetime | None = None
    notes: tuple[str, ...] = ()
    """Markers, attempts, what a worker says of its progress, whose vote decided."""
    text: str = ""
    """What the step told later steps, or why it failed; may have several lines."""

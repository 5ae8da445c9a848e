"""The items of a `foreach` below its line: how many are over, which are running, which failed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from runkon_client.cli.lines import Line, Mark
from runkon_client.values import FanOutItemStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runkon_client.values import FanOutCounts, FanOutItem

SHOWN_MAX: Final = 6
"""Lines for running items, and as many for failed ones; a `foreach` may have 10,000."""


def count(counts: FanOutCounts) -> str:
    """How far a `foreach` is."""
    words = [f"{counts.completed} of {counts.total} items done"]
    words += [f"{counts.failed} failed"] if counts.failed else []
    words += [f"{counts.skipped} skipped"] if counts.skipped else []
    return ", ".join(words)


@dataclass(slots=True)
class FanOut:
    """The items of one row of a `foreach`, as far as its events have been applied."""

    counts: FanOutCounts | None = None
    """After the newest end of an item; None before the first."""
    _running: dict[int, FanOutItem] = field(default_factory=dict)
    _failed: list[FanOutItem] = field(default_factory=list)

    def start(self, item: FanOutItem) -> None:
        """An item is running."""
        self._running[item.position] = item

    def complete(self, item: FanOutItem, counts: FanOutCounts) -> None:
        """An item is over."""
        began = self._running.pop(item.position, None)
        self.counts = counts
        if item.status is FanOutItemStatus.FAILED and len(self._failed) < SHOWN_MAX:
            self._failed.append(item if began is None else _ended(began, item))

    def lines(self, depth: int) -> Iterator[Line]:
        """Failed items, then running ones, the first of each."""
        for item in self._failed:
            yield _line(item, depth, Mark.FAILED)
        running = [self._running[position] for position in sorted(self._running)]
        for item in running[:SHOWN_MAX]:
            yield _line(item, depth, Mark.RUNNING)
        if len(running) > SHOWN_MAX:
            more = f"{len(running) - SHOWN_MAX} more running"
            yield Line(depth=depth, mark=Mark.RUNNING, label=more)


def _ended(began: FanOutItem, item: FanOutItem) -> FanOutItem:
    """An item with what its end does not repeat of its beginning."""
    return replace(item, dispatched_at=began.dispatched_at, child_run_id=began.child_run_id)


def _line(item: FanOutItem, depth: int, mark: Mark) -> Line:
    return Line(
        depth=depth,
        mark=mark,
        label=item.item_ref or item.item_id,
        began_at=item.dispatched_at,
        ended_at=item.completed_at,
        notes=(f"run {item.child_run_id}",) if item.child_run_id else (),
        text=item.error,
    )

"""What may wait in the table for workers of this replica, as far as it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runkon_server.runtime.roster import Need


class Backlog:
    """Needs of queued tasks, each with the moment at which it was last told of.

    A look into the table sees what was committed before it began. What is told of meanwhile may be
    missing in its answer, so it stays.
    """

    def __init__(self) -> None:
        self._told: dict[Need, int] = {}
        self._own: set[Need] = set()
        self._moment = 0

    def __iter__(self) -> Iterator[Need]:
        return iter(self._told)

    @property
    def moment(self) -> int:
        """Now, by the number of times that something was told."""
        return self._moment

    def add(self, need: Need, *, is_own: bool) -> None:
        """A task was queued, by this replica (`is_own`) or by another one.

        One that was out before counts as our own, whoever has queued it again.
        """
        self._moment += 1
        self._told[need] = self._moment
        if is_own:
            self._own.add(need)

    def is_own(self, need: Need) -> bool:
        """Whether our own may still wait, or such as were lost: later ones go behind them."""
        return need in self._own

    def drained(self, before: int, is_met: Callable[[Need], bool]) -> None:
        """A look that began at the moment `before` has left nothing of the needs that it met."""
        self.keep(lambda need: self._told[need] > before or not is_met(need))

    def keep(self, is_wanted: Callable[[Need], bool]) -> None:
        """Forget all other needs."""
        self._told = {need: told for need, told in self._told.items() if is_wanted(need)}
        self._own &= self._told.keys()

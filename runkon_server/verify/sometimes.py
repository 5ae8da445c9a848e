"""Things that have to occur in a rig's run: one in which they never did has shown nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from runkon_server.verify.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runkon_server.verify.evidence import Evidence
    from runkon_server.verify.plans import Plans


class Sometimes:
    """Counters of what has to occur, all of which are known from the start.

    Args:
        floors: how often each has to occur at least; most of them once.
    """

    def __init__(self, floors: Mapping[str, int]) -> None:
        self._floors = dict(floors)
        self._seen: Counter[str] = Counter(dict.fromkeys(floors, 0))

    def occurred(self, what: str, times: int = 1) -> None:
        """It occurred.

        Raises:
            KeyError: nobody expects it; a counter without a floor proves nothing.
        """
        if what not in self._floors:
            raise KeyError(what)
        self._seen[what] += times

    def counts(self) -> dict[str, int]:
        """How often each occurred."""
        return dict(self._seen)

    def missing(self) -> dict[str, tuple[int, int]]:
        """What occurred too rarely: how often, and how often it has to."""
        return {
            what: (self._seen[what], floor)
            for what, floor in self._floors.items()
            if self._seen[what] < floor
        }


def sometimes_occurred(evidence: Evidence, _: Plans) -> Iterator[Violation]:
    """Everything that was to occur did so at least once (the second half of L8)."""
    if evidence.healed_at is None:
        return
    for what, times in evidence.sometimes.items():
        if times == 0:
            yield Violation(invariant="L8", what=f"never occurred: {what}")

"""Which play passes which point, and how a point is armed: the table of the sweep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from failpoints import _plays
from runkon_server.failpoints import POINTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from failpoints._plays import Play

POINTS_AT_ONCE: Final = 8
"""How many points one server has armed with `ambiguous`: more would hide one another."""

PLAYS: Final[dict[str, Play]] = {
    "runs.acquired": _plays.waits,
    "runs.loaded": _plays.waits,
    "run.revived": _plays.waits,
    "gate.timed_out": _plays.waits,
    "cancel.recorded": _plays.cancelled,
    "resume.prepared": _plays.resumed,
    "resume.committed": _plays.resumed,
    "write.answers": _plays.keyed,
    "tasks.claimed": _plays.elsewhere,
    "report.recorded": _plays.elsewhere,
    "listener.heard": _plays.elsewhere,
    "facts.read": _plays.elsewhere,
    "tasks.requeued": _plays.silent,
    "tasks.lost": _plays.silent,
    "drain.begun": _plays.stopped,
    "leases.hand_over": _plays.stopped,
    "leases.handed_over": _plays.stopped,
    "listener.locked": _plays.cut,
}
"""Every other point is passed by `everything`."""
LATER: Final = {
    "runs.acquire": 4,
    "leases.renew": 3,
    "leases.renewed": 3,
    "statement.answered": 6,
    "pipeline.answered": 5,
    "batch.begin": 3,
    "batch.locked": 4,
    "batch.decided": 5,
    "batch.written": 4,
    "batch.committed": 5,
    "batch.telling": 6,
    "write.events": 4,
    "write.counters": 5,
    "write.steps": 4,
    "decision.committed": 3,
    "decision.settled": 4,
    "decision.carried_out": 5,
}
"""Struck at in this passage since it serves, not in the first one: in the middle of things."""
BEFORE: Final = {
    "batch.resolving": "batch.committed=ambiguous*1/3",
    "tasks.given_back": "decision.committed=ambiguous*4/2",
}
"""What has to happen for a point to be passed at all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One server with points armed, and what is played on it."""

    points: tuple[str, ...]
    action: str
    play: Play

    @property
    def name(self) -> str:
        """For the report."""
        return f"{self.action} at {', '.join(self.points)}"

    @property
    def armed(self) -> str:
        """For RUNKON_FAILPOINTS."""
        parts = ["from=serving", *(BEFORE[point] for point in self.points if point in BEFORE)]
        for point in self.points:
            later = f"/{LATER[point]}" if point in LATER else ""
            parts.append(f"{point}={self.action}*1{later}")
        return ";".join(parts)


def cases(points: Iterable[str] = POINTS) -> list[Case]:
    """A case for every point that ends the process there, and few for all lost answers."""
    chosen = list(points)
    found = [Case((point,), "exit", PLAYS.get(point, _plays.everything)) for point in chosen]
    together = [point for point in chosen if point not in BEFORE]
    found += [
        Case((point,), "ambiguous", PLAYS.get(point, _plays.everything))
        for point in chosen
        if point in BEFORE
    ]
    for play in dict.fromkeys(PLAYS.get(point, _plays.everything) for point in together):
        mine = [point for point in together if PLAYS.get(point, _plays.everything) is play]
        if play is _plays.stopped:  # a replica stops once
            found += [Case((point,), "ambiguous", play) for point in mine]
        else:
            found += [Case(part, "ambiguous", play) for part in _parts(mine)]
    return found


def _parts(points: Sequence[str]) -> list[tuple[str, ...]]:
    """In portions that mix what lies far apart in the table."""
    count = -(-len(points) // POINTS_AT_ONCE)
    return [tuple(points[start::count]) for start in range(count)]


def unknown(points: Iterable[str]) -> list[str]:
    """Those that do not exist."""
    return sorted(Counter(points).keys() - POINTS.keys())

"""What an invariant says when it does not hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One place where a history broke a promise."""

    invariant: str
    """`S5`, `L1`, …"""
    what: str
    """One sentence for people, with the numbers that contradict each other."""
    run_id: str | None = None
    """The run it is about; None: no single one."""
    seq: int | None = None
    """The event that shows it."""

    def __str__(self) -> str:
        where = "" if self.run_id is None else f" run {self.run_id}"
        return f"{self.invariant}{where}{'' if self.seq is None else f' #{self.seq}'}: {self.what}"

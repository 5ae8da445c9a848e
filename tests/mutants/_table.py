"""Mutants as data: one exact text in one module, and the fault that takes its place.

Not patches: a patch quotes the lines around its change, and no longer applies when one of those
changes. These apply as long as the line itself stands, and say loudly when it does not.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DoesNotApplyError(ValueError):
    """The text that a mutant replaces does not stand there exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A package with one change for the worse."""

    name: str
    """`kind.what-goes-wrong`."""
    module: str
    """The module that is changed: its path below the package, without `.py`."""
    old: str
    new: str
    tests: tuple[str, ...] = ()
    """Files below the folder of tests, or tests in them, that look for it; empty: those that look
    for all."""

    def applied(self, text: str) -> str:
        """The text of the module with the fault.

        Raises:
            DoesNotApplyError: see there.
        """
        times = text.count(self.old)
        if times != 1:
            raise DoesNotApplyError(
                f"{self.name}: {times} times in {self.module}.py, not once:\n{self.old}"
            )
        return text.replace(self.old, self.new)


def load(table: Path) -> tuple[Mutant, ...]:
    """The mutants of a table, in its order."""
    kinds = tomllib.loads(table.read_text(encoding="utf-8"))
    return tuple(
        Mutant(f"{kind}.{name}", **{**change, "tests": tuple(change.get("tests", ()))})
        for kind, changes in kinds.items()
        for name, change in changes.items()
    )

"""Put one-line faults into the core, one at a time; each must make a test fail.

The laws look first, then the named plays. Ends with 1 if a mutant survives or does not apply.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mutants._copies import ROOT, Copy
from mutants._running import main

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE: Final = Path(__file__).with_suffix(".toml")
PACKAGE: Final = "runkon_server/core"
TESTS: Final = "tests/unit/core"
FIRST: Final = ("test_laws.py", "test_bisimulation.py")


def files() -> list[Sequence[str]]:
    """The tests that look for faults: first the laws, then what is left."""
    found = {path.name for path in (ROOT / TESTS).glob("test_*.py")}
    return [FIRST, sorted(found.difference(FIRST))]


def make(folder: Path) -> Copy:
    """A copy of the core and its tests."""
    return Copy(folder, PACKAGE, TESTS, files())


if __name__ == "__main__":
    sys.exit(main(TABLE, __doc__, make))

"""Put one-line faults into leases, fences, facts and commits; each must make a test fail.

Most are left to the simulation, in seeded histories; those in SQL, which the simulation does not
execute, to a test of the store or the runtime that names them. Ends with 1 if a mutant survives or
does not apply.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from mutants._copies import Copy
from mutants._running import main

TABLE: Final = Path(__file__).with_suffix(".toml")
PACKAGE: Final = "runkon_server"
SIMULATION: Final = "sim/test_stories.py"


def make(folder: Path) -> Copy:
    """A copy of the server and of all tests; those mutants that name no test are simulated."""
    return Copy(folder, PACKAGE, "tests", [[SIMULATION]])


if __name__ == "__main__":
    sys.exit(main(TABLE, __doc__, make))

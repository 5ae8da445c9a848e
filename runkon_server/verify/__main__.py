"""Check an archive again: `python -m runkon_server.verify ARCHIVE`; 1 if it broke a promise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runkon_server.verify.evidence import UnreadableArchiveError, load
from runkon_server.verify.invariants import check


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong with the archive that the arguments name; the exit code."""
    parser = argparse.ArgumentParser(prog="runkon_server.verify", description=__doc__)
    parser.add_argument("archive", type=Path, help="a file that `evidence.dump` wrote")
    chosen = parser.parse_args(arguments)
    try:
        evidence = load(chosen.archive.read_text(encoding="utf-8"))
    except (OSError, UnreadableArchiveError) as error:
        parser.error(str(error))
    violations = check(evidence)
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    events = sum(len(run.events) for run in evidence.runs.values())
    found = f"{len(evidence.runs)} runs, {events} events: {len(violations)} violations"
    sys.stdout.write(f"{found}\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

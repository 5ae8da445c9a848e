"""Judge many mutants side by side, and say what became of each."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutants._copies import Verdict
from mutants._table import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mutants._copies import Copy, Finding
    from mutants._table import Mutant

MEMORY_BYTES: Final = 4 << 30
"""Of each process at most: a fault may make a list endless."""


def judge(copies: queue.SimpleQueue[Copy], mutant: Mutant | None) -> Finding:
    """Let the tests look at a mutant, or at the package as it is, in any copy that is free."""
    copy = copies.get()
    try:
        return copy.run_tests() if mutant is None else copy.judge(mutant)
    finally:
        copies.put(copy)


def run(mutants: Sequence[Mutant], jobs: int, make: Callable[[Path], Copy]) -> int:
    """Judge them all, print each verdict as it comes; the exit code."""
    began_s = time.monotonic()
    alive: list[str] = []
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    with (
        tempfile.TemporaryDirectory(prefix="runkon-mutants-") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        for number in range(jobs):
            copies.put(make(Path(folder, str(number))))
        sound = judge(copies, None)
        if sound.verdict is not Verdict.SURVIVED:
            print(f"without any fault the tests do not pass: {sound.reason}")
            return 1
        findings = pool.map(lambda mutant: judge(copies, mutant), mutants)
        for mutant, finding in zip(mutants, findings, strict=True):
            reason = f" by {finding.reason}" if finding.reason else ""
            print(f"{finding.took_s:5.1f} s  {mutant.name}: {finding.verdict}{reason}", flush=True)
            if finding.verdict is not Verdict.KILLED:
                alive.append(mutant.name)
    killed, took_s = len(mutants) - len(alive), time.monotonic() - began_s
    print(f"{killed} of {len(mutants)} mutants killed in {took_s:.0f} s")
    for name in alive:
        print(f"not killed: {name}")
    return 1 if alive else 0


def main(table: Path, about: str | None, make: Callable[[Path], Copy]) -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog=f"dev.py mutants {table.stem}", description=about)
    parser.add_argument("--only", metavar="NAME", help="this one, or those like `parallel.*`")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    arguments: Any = parser.parse_args()
    mutants = [each for each in load(table) if fnmatchcase(each.name, arguments.only or "*")]
    if not mutants:
        parser.error(f"no mutant in {table.name} is called {arguments.only}")
    with contextlib.suppress(ValueError):  # not every system knows this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    return run(mutants, max(1, arguments.jobs), make)

"""The language's front end: mutated and generated texts, in search of anything but diagnostics.

The same seed gives the same texts, as long as the examples and the unit tests' texts, which most
of them start from, stay the same; what breaks something is written to a file. Exits with 1 if
anything did.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import _setting
from fuzz._inputs import make
from fuzz._properties import LIMIT_MS, judge
from runkon_server.cli.collecting import spare_the_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 500
FRAMES: Final = 250
"""How deep calls may go: far above what the nesting limit allows, far below what a loop needs."""
AGAIN_MAX: Final = 4
PAUSE_S: Final = 2.0
"""So often, and so far apart, an input that broke something is judged again."""
HANG_S: Final = 60.0
SHOWN: Final = 20


@dataclass(slots=True)
class Findings:
    """What came out of some of the inputs."""

    accepted: int = 0
    size: int = 0
    exceptions: dict[int, str] = field(default_factory=dict)
    """Number of the input → traceback."""
    violations: dict[int, tuple[str, ...]] = field(default_factory=dict)
    slowest: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """What was asked for → milliseconds per 64 KiB and the input's number, the slowest first."""

    def add(self, other: Findings) -> None:
        """Put findings of other inputs to these."""
        self.accepted += other.accepted
        self.size += other.size
        self.exceptions |= other.exceptions
        self.violations |= other.violations
        for what, slowest in other.slowest.items():
            self.slowest[what] = heapq.nlargest(SHOWN, [*self.slowest.get(what, []), *slowest])


class HungError(BaseException):
    """One input took so long that there may be no end to it."""


def stop(_signal: int, _frame: object) -> None:
    """Interrupt what is running."""
    raise HungError


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within it, neither the stack nor the time is without end."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + FRAMES)
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        sys.setrecursionlimit(limit)


def run(seed: int, indexes: range) -> Findings:
    """Judge the inputs with these numbers."""
    found = Findings()
    for index in indexes:
        text = make(seed, index)
        found.size += len(text)
        try:
            with guarded():
                verdict = judge(text)
        except (Exception, HungError):  # noqa: BLE001 - to find any is what this is for
            found.exceptions[index] = traceback.format_exc(limit=-6)
            continue
        found.accepted += verdict.accepted
        if verdict.violations:
            found.violations[index] = verdict.violations
        found.add(Findings(slowest={what: [(ms, index)] for what, ms in verdict.ms.items()}))
    return found


def run_all(seed: int, count: int, jobs: int) -> Findings:
    """Judge them all, with a dot for every hundredth part."""
    chunks = [range(begin, min(begin + CHUNK, count)) for begin in range(0, count, CHUNK)]
    total = Findings()
    spare_the_loop()  # times are those of a server, so the cycle collector is set up as there
    with ProcessPoolExecutor(jobs, initializer=spare_the_loop) as pool:
        for number, found in enumerate(pool.map(run, [seed] * len(chunks), chunks)):
            total.add(found)
            if number * 100 // len(chunks) != (number + 1) * 100 // len(chunks):
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return judged_alone(seed, total)


def judged_alone(seed: int, found: Findings) -> Findings:
    """The findings, with the slowest inputs judged again while nothing else of ours is running.

    Two processes on one core slow each other down in processor time as well, and so does, for a
    moment, whatever else a machine does: what is broken is so each time.
    """
    slow = {index for slowest in found.slowest.values() for _, index in slowest}
    slow |= found.violations.keys()
    alone = Findings(found.accepted, found.size, found.exceptions)
    for index in sorted(slow):
        again = run(seed, range(index, index + 1))
        for _ in range(AGAIN_MAX):
            if not again.violations:
                break
            time.sleep(PAUSE_S)
            again = run(seed, range(index, index + 1))
        alone.add(replace(again, accepted=0, size=0))
    return alone


def report(found: Findings, arguments: argparse.Namespace, took_s: float) -> None:
    """Print what was found, and keep the inputs that broke something."""
    count, seed = arguments.count, arguments.seed
    print(
        f"inputs       {count:,} of seed {seed} in {took_s:,.0f} s, {found.size / 1e6:,.0f} MB;"
        f" {found.accepted / max(1, count):.0%} of them could be read"
    )
    for what, ((ms, index), *_) in sorted(found.slowest.items()):
        print(
            f"slowest      {what:9} {ms:5.1f} ms of processor time per 64 KiB"
            f" (at most {LIMIT_MS:.0f}), input {index}"
        )
    print(f"exceptions   {len(found.exceptions)}")
    for index, trace in sorted(found.exceptions.items())[:SHOWN]:
        print(f"  input {index}, {kept(arguments, index)}\n{trace}")
    print(f"violations   {len(found.violations)}")
    for index, broken in sorted(found.violations.items())[:SHOWN]:
        print(f"  input {index}, {kept(arguments, index)}: {'; '.join(broken)}")


def kept(arguments: argparse.Namespace, index: int) -> Path:
    """Write an input to a file; where it is."""
    path = Path(arguments.keep) / f"dsl-{arguments.seed}-{index}.wf"
    path.write_text(make(arguments.seed, index), encoding="utf-8", errors="surrogatepass")
    return path


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="dev.py fuzz dsl", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--only", type=int, metavar="N", help="print input N, judge only that")
    parser.add_argument("--keep", default=tempfile.gettempdir(), help="folder for what breaks")
    arguments: Any = parser.parse_args()
    print(_setting.host())
    began_s = time.monotonic()
    if arguments.only is None:
        found = run_all(arguments.seed, arguments.count, arguments.jobs)
    else:
        print(make(arguments.seed, arguments.only))
        arguments.count = 1
        found = run(arguments.seed, range(arguments.only, arguments.only + 1))
    report(found, arguments, time.monotonic() - began_s)
    return 1 if found.exceptions or found.violations else 0


if __name__ == "__main__":
    sys.exit(main())

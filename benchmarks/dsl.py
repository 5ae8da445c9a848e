"""What reading workflows costs: lines parsed per second, and 1,000 files checked and formatted.

Processor time of one process, the best of several rounds: what else runs on the machine only ever
makes a round longer. The limits are printed beside the figures and not asserted.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import _setting
from runkon_server.dsl.format import format_text
from runkon_server.dsl.parser import parse
from runkon_server.dsl.validate_set import validate_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from runkon_server.dsl.parser import ParseResult

ROOT: Final = Path(__file__).resolve().parents[1]
SAMPLE: Final = ROOT / "examples/workflows/ticket-to-pr.wf"
NAME: Final = "ticket-to-pr"
LINES_PER_S: Final = 100_000
TOGETHER_S: Final = 5.0
CALL_DEPTH: Final = 4
"""Every file but each fourth calls the next one, so that checks look at other files as well."""


def files(count: int) -> dict[str, str]:
    """So many workflows of ordinary size, by name."""
    text = SAMPLE.read_text(encoding="utf-8")
    head, _, tail = text.partition("  call prepare\n")
    found = {}
    for number in range(count):
        calls_next = number % CALL_DEPTH and number + 1 < count
        link = f'  call workflow {NAME}-{number + 1} {{ inputs {{ ticket = "x" }} }}\n'
        named = head.replace(f"workflow {NAME} ", f"workflow {NAME}-{number} ")
        found[f"{NAME}-{number}"] = f"{named}{link if calls_next else ''}  call prepare\n{tail}"
    return found


def best_s(rounds: int, do: Callable[[], object]) -> float:
    """Processor time of the quickest of so many rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        do()
        best = min(best, time.process_time() - began)
    return best


def parse_all(texts: dict[str, str]) -> dict[str, ParseResult]:
    """What each of the texts says."""
    return {f"{name}.wf": parse(text, f"{name}.wf") for name, text in texts.items()}


def parse_each(texts: dict[str, str]) -> None:
    """Parse one after the other and keep nothing, so that memory is not what is measured."""
    for name, text in texts.items():
        parse(text, f"{name}.wf")


def format_all(texts: dict[str, str]) -> None:
    """Lay them all out."""
    for name, text in texts.items():
        format_text(text, f"{name}.wf")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(prog="dev.py bench dsl", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(_setting.host())
    texts = files(arguments.files)
    lines = sum(text.count("\n") for text in texts.values())
    print(f"files        {len(texts):,} of {lines / len(texts):.0f} lines")

    results = parse_all(texts)
    if not all(result.definition for result in results.values()):
        raise SystemExit("not all of the files can be read")
    parse_s = best_s(arguments.rounds, lambda: parse_each(texts))
    check_s = best_s(arguments.rounds, lambda: validate_set(results))
    format_s = best_s(arguments.rounds, lambda: format_all(texts))
    print(f"parse        {lines / parse_s:9,.0f} lines/s (at least {LINES_PER_S:,})")
    print(f"check        {check_s:9.2f} s for all, parsed before")
    print(f"format       {format_s:9.2f} s for all, parsing included")
    together_s = parse_s + check_s + format_s
    print(f"together     {together_s:9.2f} s to check and format all (at most {TOGETHER_S:.0f})")


if __name__ == "__main__":
    main()

"""The same for hours, guided by code coverage (atheris, extra `fuzz`); libFuzzer's arguments.

`--first` (default 1,000) inputs of `dsl` are the corpus it starts from; `-max_total_time=300` ends
it after five minutes. Where atheris is not installed (it has wheels for Linux only), the inputs of
`dsl` are judged one after the other instead, for as long.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SEED: Final = 1
SIZE_MAX: Final = 4_096
OPTION: Final = "-max_total_time="


class BrokenPromiseError(Exception):
    """A text was found for which something does not hold that must."""


def target(data: bytes) -> None:
    """Judge one text.

    Raises:
        BrokenPromiseError: something does not hold.
    """
    properties: Any = importlib.import_module("fuzz._properties")
    text = data.decode("utf-8", "replace")
    verdict = properties.judge(text)
    # Traced code is slow, so times say nothing here; `dsl` looks at them.
    broken = [each for each in verdict.violations if not each.startswith(tuple(verdict.ms))]
    if broken:
        raise BrokenPromiseError("; ".join(broken))


def guided(inputs: list[bytes], arguments: list[str]) -> None:
    """Let atheris find inputs. Does not return: libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["runkon_server.dsl"]):
        importlib.import_module("fuzz._properties")
    with tempfile.TemporaryDirectory(prefix="runkon-fuzz-") as folder:
        for number, data in enumerate(inputs):
            Path(folder, str(number)).write_bytes(data)
        options = [f"-max_len={SIZE_MAX}", f"-artifact_prefix={tempfile.gettempdir()}/", *arguments]
        atheris.Setup([sys.argv[0], folder, *options], target)
        atheris.Fuzz()


def unguided(make: Callable[[int, int], str], arguments: list[str]) -> None:
    """Judge the inputs of `dsl`, one after the other, until the time is over."""
    times = [int(each.removeprefix(OPTION)) for each in arguments if each.startswith(OPTION)]
    ends_s = time.monotonic() + (times[-1] if times else 300)
    index = 0
    while time.monotonic() < ends_s:
        target(make(SEED, index).encode("utf-8", "replace"))
        index += 1
    print(f"{index:,} inputs, not guided by coverage (`pip install atheris` changes that)")


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="dev.py fuzz dsl_atheris", description=__doc__)
    parser.add_argument("--first", type=int, default=1_000)
    arguments, rest = parser.parse_known_args()
    make = importlib.import_module("fuzz._inputs").make
    if importlib.util.find_spec("atheris") is None:
        unguided(make, rest)
    else:
        texts = (make(SEED, index) for index in range(arguments.first))
        guided([text.encode("utf-8", "replace")[:SIZE_MAX] for text in texts], rest)


if __name__ == "__main__":
    main()

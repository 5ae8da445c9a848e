"""Copies of the project, to make and look for faults in; the work tree stays as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mutants._table import DoesNotApplyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants._table import Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
TEST_S: Final = 300
"""After which a test has failed: a fault may make a loop endless. By the clock, so be generous."""
TESTS_S: Final = 900
_PASSED: Final = 0  # pytest's exit codes
_FAILED: Final = 1
_FAILURE: Final = re.compile(r"^FAILED tests/\S*/([^/\s]+::\S+)", re.MULTILINE)


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"
    """It does not apply, or the tests could not be run on it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one mutant."""

    verdict: Verdict
    reason: str
    """The test that killed it, or what is broken."""
    took_s: float


class Copy:
    """The package, and the tests that look for faults in it, in a folder of their own.

    Args:
        folder: an empty one, or none yet.
        package: path of the package that is mutated.
        tests: folder of the tests.
        files: those of them to run, group by group up to the first failure.
    """

    def __init__(
        self, folder: Path, package: str, tests: str, files: Sequence[Sequence[str]]
    ) -> None:
        self._folder = folder
        self._package = folder / package
        self._tests = tests
        self._groups = [[f"{tests}/{name}" for name in group] for group in files]
        ignore = shutil.ignore_patterns("__pycache__")
        for name in (package.partition("/")[0], "tests/support", tests):
            shutil.copytree(ROOT / name, folder / name, ignore=ignore, dirs_exist_ok=True)
        for name in ("pyproject.toml", "tests/conftest.py"):
            shutil.copy(ROOT / name, folder / name)

    def judge(self, mutant: Mutant) -> Finding:
        """Make a fault, look for it, and mend it."""
        module = self._package / f"{mutant.module}.py"
        sound = module.read_text(encoding="utf-8")
        try:
            _write(module, mutant.applied(sound))
        except DoesNotApplyError as reason:
            return Finding(Verdict.BROKEN, str(reason), 0.0)
        try:
            return self.run_tests(mutant.tests)
        finally:
            _write(module, sound)

    def run_tests(self, tests: Sequence[str] = ()) -> Finding:
        """Up to the first that fails; of these tests, or of those that look for every fault."""
        began_s = time.monotonic()
        verdict, reason = Verdict.SURVIVED, ""
        for group in [[f"{self._tests}/{each}" for each in tests]] if tests else self._groups:
            verdict, reason = self._run(group)
            if verdict is not Verdict.SURVIVED:
                break
        return Finding(verdict, reason, time.monotonic() - began_s)

    def _run(self, paths: Sequence[str]) -> tuple[Verdict, str]:
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, "-o", f"timeout={TEST_S}", *paths],
                cwd=self._folder,  # which `-m` puts before the package that is installed
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TESTS_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict.KILLED, f"no end within {TESTS_S} s"
        return verdict_of(done.returncode, done.stdout)


def verdict_of(code: int, output: str) -> tuple[Verdict, str]:
    """What pytest's exit code and output amount to, and for what reason."""
    failure = _FAILURE.search(output)
    if code == _PASSED:
        return Verdict.SURVIVED, ""
    if code == _FAILED and failure is not None:
        return Verdict.KILLED, failure[1]
    return Verdict.BROKEN, f"pytest ended with {code}:\n{output}"


def _write(module: Path, text: str) -> None:
    """Compiled modules are known by size and second, which does not tell two mutants apart."""
    module.write_text(text, encoding="utf-8")
    for compiled in module.parent.glob(f"__pycache__/{module.stem}.*"):
        compiled.unlink()

"""The mutants of `dev.py mutants`: each still is a change, and verdicts are read rightly."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from typing import Final

import pytest

from mutants import core, reliability
from mutants._copies import ROOT, Verdict, verdict_of
from mutants._table import DoesNotApplyError, Mutant, load

LINES_MAX: Final = 2
MUTANTS: Final = load(core.TABLE)
FAULTS: Final = load(reliability.TABLE)
ALL: Final = [
    *((core.PACKAGE, mutant) for mutant in MUTANTS),
    *((reliability.PACKAGE, mutant) for mutant in FAULTS),
]


@pytest.mark.parametrize(("package", "mutant"), ALL, ids=[mutant.name for _, mutant in ALL])
def test_mutant_still_applies(package: str, mutant: Mutant) -> None:
    """It changes one line, at most two, and what comes of it is Python."""
    sound = (ROOT / package / f"{mutant.module}.py").read_text(encoding="utf-8")
    faulty = mutant.applied(sound)

    lines = difflib.unified_diff(sound.splitlines(), faulty.splitlines(), n=0)
    changes = [line[0] for line in lines if line[0] in "+-" and line[:3] not in ("---", "+++")]
    assert 0 < max(changes.count("+"), changes.count("-")) <= LINES_MAX
    ast.parse(faulty)


def test_every_named_killer_is_there() -> None:
    """A mutant that names no tests is looked for by the simulation."""
    named = {each.partition("::")[0] for mutant in FAULTS for each in mutant.tests}

    assert len(FAULTS) >= 15
    assert [each for each in named if not Path(ROOT, "tests", each).is_file()] == []


def test_there_are_mutants_of_every_module_that_decides() -> None:
    """Of those that start steps, take answers, or rebuild a state from rows."""
    deciding = {
        path.stem
        for path in (ROOT / core.PACKAGE).glob("*.py")
        if "def enter(" in (text := path.read_text(encoding="utf-8")) or "def _adopt" in text
    }

    assert deciding - {mutant.module for mutant in MUTANTS} == set()


def test_no_test_of_the_core_is_forgotten() -> None:
    """Every file is in one group, so that no mutant survives because nobody looked."""
    names = [name for group in core.files() for name in group]

    assert sorted(names) == sorted(path.name for path in Path(ROOT, core.TESTS).glob("test_*.py"))


@pytest.mark.parametrize("text", ["nothing of that kind", "twice, twice"])
def test_mutant_whose_line_has_gone_says_so(text: str) -> None:
    """Also one whose line is no longer the only one."""
    mutant = Mutant("kind.name", "walk", old="twice", new="once")

    with pytest.raises(DoesNotApplyError, match=r"kind\.name: [02] times in walk\.py"):
        mutant.applied(text)


@pytest.mark.parametrize(
    ("code", "output", "verdict", "reason"),
    [
        (0, "3 passed", Verdict.SURVIVED, ""),
        (
            1,
            "FAILED tests/unit/core/test_x.py::test_y - assert",
            Verdict.KILLED,
            "test_x.py::test_y",
        ),
        (1, "FAILED tests/unit/core/test_x.py::test_y[a b]", Verdict.KILLED, "test_x.py::test_y[a"),
        (2, "ERROR tests/unit/core/test_x.py - SyntaxError", Verdict.BROKEN, "pytest ended with 2"),
        (4, "no such file", Verdict.BROKEN, "pytest ended with 4"),
    ],
)
def test_only_a_failed_test_kills(code: int, output: str, verdict: Verdict, reason: str) -> None:
    """Tests that cannot be collected, or that nobody found, say nothing about a mutant."""
    found, why = verdict_of(code, output)

    assert found is verdict
    assert why.startswith(reason)

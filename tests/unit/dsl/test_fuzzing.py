"""The fuzzer sees what it is there to see, and a first few of its inputs break nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from fuzz._inputs import HUGE_EVERY, LARGE, LARGE_EVERY, corpus, make
from fuzz._properties import broken, broken_place, judge, slow
from runkon_server.dsl.format import format_text
from runkon_server.dsl.parser import parse
from runkon_server.dsl.source import Span
from runkon_server.dsl.validate import validate
from support.workflows import wrap

TESTS: Final = Path(__file__).resolve().parents[2]
TEXT: Final = wrap("call x call y")


def test_an_input_has_a_number() -> None:
    """The same text every time, and another one for other seeds and numbers."""
    assert make(1, 7) == make(1, 7)
    assert len({make(seed, index) for seed in (1, 2) for index in range(20)}) > 30
    assert len(make(1, LARGE_EVERY - 1)) >= LARGE
    assert len(make(1, HUGE_EVERY - 1)) > 9_000_000


def test_it_starts_from_the_examples_and_the_tests() -> None:
    texts = corpus()

    assert any("workflow ticket-to-pr" in text for text in texts)
    assert wrap("call x { retries = [1] }") in texts
    assert len(texts) > 500


def test_generated_texts_are_mostly_valid() -> None:
    """Otherwise nothing that comes after the parser would be tried."""
    accepted = [index for index in range(49) if judge(make(5, index)).accepted]

    assert len(accepted) > 4


def test_the_first_inputs_break_nothing() -> None:
    """Times are left to the program, because other programs disturb them."""
    for index in range(2 * LARGE_EVERY, 3 * LARGE_EVERY):
        verdict = judge(make(4, index))
        violations = [each for each in verdict.violations if "KiB" not in each]
        assert (index, violations) == (index, [])


def test_a_changed_meaning_is_noticed() -> None:
    """A formatter that dropped a step, or did not come to rest."""
    report, laid_out = validate(TEXT, "w.wf"), format_text(TEXT, "w.wf")
    assert list(broken(TEXT, report, laid_out)) == []

    shorter = replace(laid_out, text=wrap("call x"))

    assert list(broken(TEXT, report, shorter)) == [
        "parse(format(x)) is not parse(x)",
        "format(format(x)) is not format(x)",
    ]
    assert list(broken(TEXT, report, replace(laid_out, text=None))) == [
        "what can be read cannot be formatted, or the other way round"
    ]


@pytest.mark.parametrize(
    ("span", "complaint"),
    [
        (Span(0, 999, 1, 1), "points outside the text"),
        (Span(-1, 2, 1, 1), "points outside the text"),
        (Span(3, 4, 1, 3), "has a line and column that are not those of its offset"),
    ],
)
def test_a_wrong_place_is_noticed(span: Span, complaint: str) -> None:
    result = parse("workflow w { cal x }", "w.wf")
    (found,) = result.diagnostics

    assert list(broken_place(found, result.source)) == []
    assert list(broken_place(replace(found, span=span), result.source)) == [f"WF204 {complaint}"]


def test_a_slow_text_is_noticed() -> None:
    assert list(slow({"validate": 49.9, "format": 50.1})) == ["format takes 50 ms per 64 KiB"]


def test_the_program_reports_and_succeeds() -> None:
    """As `dev.py fuzz dsl` starts it, on inputs too small to be slow."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.dsl", "--count", "40", "--seed", "6", "--jobs", "1"],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 of seed 6" in done.stdout
    assert "exceptions   0\nviolations   0\n" in done.stdout

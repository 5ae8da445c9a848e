"""The project does what it tells others to do with their workflow files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from support.wf_files import runkon

EXAMPLES: Final = Path(__file__).resolve().parents[3] / "examples"


def test_the_examples_pass_the_strict_check() -> None:
    answer = runkon("check", EXAMPLES, "--strict", "--no-scripts")

    assert answer.code == 0, answer.out


def test_the_examples_are_in_the_canonical_layout() -> None:
    assert runkon("fmt", "--check", EXAMPLES) == (0, "", "")

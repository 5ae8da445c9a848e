"""Files as people write them, each with five mistakes that have nothing to do with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from runkon_server.dsl.parser import parse

MISTAKES: Final = Path(__file__).parent / "golden" / "mistakes"
NAMES: Final = sorted(path.stem for path in MISTAKES.glob("*.wf"))


@pytest.mark.parametrize("name", NAMES)
def test_five_mistakes_are_told_as_five_problems(name: str) -> None:
    """All in one pass, none twice, none that only follows from another; as recorded."""
    source = MISTAKES / f"{name}.wf"
    result = parse(source.read_text(encoding="utf-8"), source.name)

    assert len({each.span.line for each in result.diagnostics}) == 5
    assert f"{result.render()}\n" == source.with_suffix(".txt").read_text(encoding="utf-8")


def test_there_are_a_dozen_of_them() -> None:
    """An empty folder would make the test above pass by having no cases."""
    assert len(NAMES) == 12

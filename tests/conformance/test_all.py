"""Every numbered statement has a test here, or a reason why not in the decision record."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent
RECORD: Final = HERE.parents[1] / "docs/adr/0013-statements-that-do-not-apply.md"
STATEMENTS: Final = frozenset(range(1, 163))
EXCUSES_MAX: Final = 20
ON_BOTH_STAGES_MIN: Final = 110
NAME: Final = re.compile(r"test_(\d{3})_")
ROW: Final = re.compile(r"^\| (\d+) \|", re.MULTILINE)
MENTIONED: Final = re.compile(r"`(test_\w+)`")


def functions_of(*folders: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every test function below the folders, without importing anything."""
    for folder in folders:
        for path in sorted(folder.rglob("test_*.py")):
            for node in ast.parse(path.read_bytes()).body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield node


def shown(*, on_both_stages: bool) -> frozenset[int]:
    """The statements that have a test, or one whose body is played on both stages."""
    return frozenset(
        int(match[1])
        for test in functions_of(HERE)
        if (match := NAME.match(test.name))
        and (not on_both_stages or "stage" in {argument.arg for argument in test.args.args})
    )


def excused() -> frozenset[int]:
    """The statements that do not apply, by the decision record."""
    return frozenset(map(int, ROW.findall(RECORD.read_text(encoding="utf-8"))))


def test_every_statement_has_a_test_or_a_reason() -> None:
    """And none has both: what is tested does apply."""
    assert shown(on_both_stages=False) | excused() == STATEMENTS
    assert not shown(on_both_stages=False) & excused()


def test_most_statements_are_shown_on_both_stages() -> None:
    """What a caller can observe holds in memory and through gRPC on PostgreSQL."""
    assert len(shown(on_both_stages=True)) >= ON_BOTH_STAGES_MIN


def test_few_statements_are_excused() -> None:
    """Each with a reason and a counterpart; a test that the record names is there."""
    text = RECORD.read_text(encoding="utf-8")
    names = {test.name for test in functions_of(HERE.parent)}

    assert len(excused()) <= EXCUSES_MAX
    for line in text.splitlines():
        if ROW.match(line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4
            assert all(cells), line
    assert set(MENTIONED.findall(text)) <= names

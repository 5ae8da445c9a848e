"""Five unrelated mistakes in a file are five problems, each told because of itself alone.

Also where some are mistakes of grammar and others of meaning.
"""

from __future__ import annotations

import pytest

from runkon_server.dsl.validate import validate
from support.five_mistakes import FILES, Mistaken

UNSERVED = "WF601"
NAMES = [each.name for each in FILES]


def told(text: str) -> list[str]:
    """The codes of what is said about a text, sorted."""
    found = validate(text, "w.wf").diagnostics
    return sorted(each.code for each in found if each.code != UNSERVED)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_five_unrelated_mistakes_are_five_problems(file: Mistaken) -> None:
    assert len(file.codes) == 5
    assert told(file.written()) == sorted(file.codes)


@pytest.mark.parametrize("fixed", range(5))
@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_putting_one_right_leaves_the_other_four(file: Mistaken, fixed: int) -> None:
    """So none of them follows from another, and none hides another."""
    others = file.codes[:fixed] + file.codes[fixed + 1 :]

    assert told(file.written(without=fixed)) == sorted(others)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_the_file_put_right_says_nothing(file: Mistaken) -> None:
    assert told(file.put_right()) == []

"""The words of a broken text that can be steps: asked for one by one, or listed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runkon_server.dsl.checking import sketches
from runkon_server.dsl.checking.sketches import _Words

STEPS = st.text("ab-_1é", min_size=1, max_size=3)
TEXTS = st.lists(STEPS | st.sampled_from([" ", ".", "/", "\n", ' "', "{", "."])).map("".join)


@given(text=TEXTS, steps=st.lists(STEPS, max_size=12))
def test_one_word_is_found_where_the_list_has_it(text: str, steps: list[str]) -> None:
    """Also when so many are asked for that the list is made in the end."""
    listed = frozenset(sketches._STEP.findall(text))
    words = _Words(text)

    assert [words.lack(step) for step in steps] == [step not in listed for step in steps]

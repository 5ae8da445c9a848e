"""Pauses after what could not be read."""

from __future__ import annotations

from itertools import pairwise

from runkon_server.runtime.ambient import SystemAmbient
from runkon_server.runtime.setbacks import FIRST_S, LONGEST_S, REMEMBERED_MAX, Setbacks


class Even(SystemAmbient):
    def jitter(self) -> float:
        return 0.5


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    setbacks = Setbacks(Even())

    pauses = [setbacks.pause_s("a") for _ in range(100)]

    assert (pauses[0], pauses[-1]) == (FIRST_S, LONGEST_S)
    assert all(after in {2 * before, LONGEST_S} for before, after in pairwise(pauses))
    assert setbacks.pause_s("b") == FIRST_S
    setbacks.forget("a")
    assert setbacks.pause_s("a") == FIRST_S


def test_those_that_were_not_tried_for_longest_are_forgotten_first() -> None:
    """Among more than are remembered; however early the others failed for the first time."""
    setbacks = Setbacks(Even())
    for name in ("tried again", "not tried"):
        setbacks.pause_s(name)
    for number in range(REMEMBERED_MAX - 2):
        setbacks.pause_s(str(number))

    assert setbacks.pause_s("tried again") == 2 * FIRST_S
    setbacks.pause_s("one too many")

    assert setbacks.pause_s("tried again") == 4 * FIRST_S
    assert setbacks.pause_s("not tried") == FIRST_S

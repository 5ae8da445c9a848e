"""The cycle collector of a server: what was there when it came up is walked no more."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from runkon_server.cli.collecting import spare_the_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES_ALONE = 10_000
"""Objects that importing the server makes, at the very least."""


class Ring:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_only_what_was_made_since_is_walked() -> None:
    kept = Ring()

    spare_the_loop()
    later = Ring()

    walked = {id(each) for each in gc.get_objects()}
    assert gc.get_freeze_count() > MODULES_ALONE
    assert id(kept) not in walked
    assert id(later) in walked


def test_rings_made_since_are_freed_by_themselves() -> None:
    """Without a call of `gc.collect`: so many are made that the collector has to look."""
    spare_the_loop()
    gone = weakref.ref(Ring())

    rest: list[list[int]] = [[] for _ in range(2 * gc.get_threshold()[0])]

    assert rest
    assert gone() is None
